import itertools

import numpy as np
import pytest

from worldmodel.envs import make_env
from worldmodel.envs.behaviour import MIXTURE, choose_behaviour
from worldmodel.envs.pusht.expert import NUM_LOOKS, PushModel, behave, pose_error, with_noise
from worldmodel.envs.pusht.pushing import before_contact, clearance, contact, drive, in_block_frame, towards, way_round
from worldmodel.envs.pusht.scene import placed


def blind(name):
    """An environment that draws nothing: the experts do not look."""
    env = make_env(name)
    env.get_obs = dict
    return env


def run(env, behaviour, seed, steps):
    """Block poses before each step and after the last, agent positions, and who succeeded when."""
    env.reset(seed=seed)
    targets = behave(behaviour, env, np.random.default_rng(seed))
    poses, agents, success_step = [env.block_pose], [env.agent_position], None
    for step in range(steps):
        *_, info = env.step(np.float32(next(targets)))
        poses.append(env.block_pose)
        agents.append(env.agent_position)
        if info["success"]:
            success_step = step
            break
    return np.array(poses), np.array(agents), success_step


def test_clearance_is_the_distance_to_the_t():
    points = np.array([[0.0, -10], [100, 15], [0, 60], [63, 34], [25, 40], [0, 150]])
    np.testing.assert_allclose(clearance(points), [10, 40, 0, 5, 10, 30])


def test_contact_walks_along_the_outline():
    # the outline is 2 x (120 + 30 + 90) = 480 long and starts at the bar's corner
    for place, point, inwards in (
        (60 / 480, [0, 0], [0, 1]),
        (135 / 480, [60, 15], [-1, 0]),
        (300 / 480, [0, 120], [0, -1]),
        (0.9999999, [-60, 0], [1, 0]),
    ):
        found, direction = contact(place)
        np.testing.assert_allclose(found, point, atol=1e-3)
        np.testing.assert_allclose(direction, inwards, atol=1e-9)
    np.testing.assert_allclose(before_contact(*contact(60 / 480)), [0, -19], atol=1e-9)


def test_block_frame_is_the_inverse_of_placing():
    points, pose = np.array([[3.0, 4.0], [-50.0, 7.0]]), np.array([100.0, 200.0, 1.2])
    np.testing.assert_allclose(in_block_frame(placed(points, pose), pose), points)


def test_towards_is_capped():
    np.testing.assert_allclose(towards(np.zeros(2), np.array([30.0, 40]), 10.0), [6, 8])
    np.testing.assert_allclose(towards(np.zeros(2), np.array([30.0, 40]), 60.0), [30, 40])


def test_way_round_is_straight_when_clear_and_keeps_clear_otherwise():
    pose = np.array([256.0, 200.0, 0.0])
    start, goal = np.array([100.0, 100.0]), np.array([400.0, 120.0])
    np.testing.assert_allclose(way_round(start, goal, pose), [goal])
    start, goal = np.array([120.0, 260.0]), np.array([400.0, 260.0])  # the stem is in between
    path = [start, *way_round(start, goal, pose)]
    assert len(path) > 2
    legs = np.concatenate([np.linspace(a, b, 40) for a, b in itertools.pairwise(path)])
    assert clearance(in_block_frame(legs, pose)).min() > 15
    lengths = [np.linalg.norm(b - a) for a, b in itertools.pairwise(path)]
    assert sum(lengths) < 1.4 * 280


def test_way_round_steps_back_from_contact_first():
    pose = np.array([256.0, 200.0, 0.0])
    touching = np.array([256.0, 200.0 - 15.5])
    first = way_round(touching, np.array([256.0, 400.0]), pose)[0]
    np.testing.assert_allclose(first, [256, 200 - 26])


def test_way_round_goes_through_when_shut_in():
    """A block in the corner leaves no way round: the path is the goal alone."""
    pose = np.array([60.0, 60.0, 0.0])
    goal = np.array([20.0, 20.0])
    path = way_round(np.array([60.0, 300.0]), goal, pose)
    np.testing.assert_allclose(path[-1], goal)


def test_drive_arrives_and_keeps_its_lead():
    env = blind("pusht")
    env.reset(seed=0)
    env.agent.position = 60, 60
    for target in drive(env, [np.array([60.0, 160]), np.array([160.0, 160])], 40.0, reach=3.0):
        assert np.linalg.norm(target - env.agent_position) <= 40 + 1e-9
        env.step(target)
    np.testing.assert_allclose(env.agent_position, [160, 160], atol=3)
    assert len(list(drive(env, [np.array([400.0, 400])], 10.0, limit=7))) == 7


def test_push_model_of_a_straight_push():
    """The disc of radius 15 starts 56 above the bar and goes 108 down: the bar ends 67 lower."""
    poses = PushModel().poses(np.array([256.0, 200.0]), np.array([0.0, 1.0]), np.array([256.0, 256.0, 0.0]), 9.0)
    assert poses.shape == (NUM_LOOKS, 3)
    np.testing.assert_allclose(poses[-1], [256, 200 + 9 * NUM_LOOKS + 15, 0], atol=0.5)
    np.testing.assert_allclose(poses[2], [256, 256, 0], atol=1e-9)


def test_push_model_agrees_with_the_environment():
    env = blind("pusht")
    env.reset(seed=0)
    start, direction = np.array([210.0, 180.0]), np.array([0.0, 1.0])
    env.agent.position = start.tolist()
    env.block.angle = 0.0
    env.block.position = 240.0, 220.0
    model = PushModel().poses(start, direction, env.block_pose, 9.0)[-1]
    for target in drive(env, [start + 9 * NUM_LOOKS * direction], 60.0, reach=0.5):
        env.step(target)
    assert abs(env.block_pose[2]) > 0.2, "an off-centre push turns the block"
    np.testing.assert_allclose(env.block_pose[:2], model[:2], atol=6)
    assert env.block_pose[2] == pytest.approx(model[2], abs=0.1)


def test_pose_error_is_the_corners_root_mean_square():
    goal = np.array([256.0, 256.0, 0.5])
    shifted = goal + np.array([3.0, 4.0, 0.0])
    half_turn = goal + np.array([0.0, 0.0, np.pi])
    # every corner moves by twice its distance from the origin: mean square of the eight is 5962.5
    np.testing.assert_allclose(
        pose_error(np.stack([goal, shifted, half_turn]), goal), [0, 5, 2 * np.sqrt(5962.5)], atol=1e-9
    )


def test_position_expert_succeeds():
    env = blind("pusht-position")
    ends = [run(env, "expert", seed, 60)[2] for seed in range(12)]
    assert sum(end is not None for end in ends) >= 11
    assert np.median([end for end in ends if end is not None]) < 35


def test_position_expert_breaks_the_tie_and_caps_its_targets():
    env = blind("pusht-position")
    env.reset(seed=0)
    env.block.angle = 0.0
    env.block.position = 100.0, 215.0
    forwards = (env.goal_centre - env.block_centre) / np.linalg.norm(env.goal_centre - env.block_centre)
    sideways = np.array([-forwards[1], forwards[0]])
    turns = []
    for offset in (-4.0, 4.0):  # on the goal's side, a little to the left and to the right
        env.agent.position = (env.block_centre + 90 * forwards + offset * sideways).tolist()
        target = next(behave("expert", env, np.random.default_rng(0)))
        assert np.linalg.norm(target - env.agent_position) <= 60 + 1e-9
        turns.append(np.sign((target - env.agent_position) @ sideways))
    assert turns[0] == turns[1] != 0


def test_pose_expert_covers_the_goal():
    env = blind("pusht")
    coverages, ends = [], []
    for seed in (1002, 1003):
        *_, end = run(env, "expert", seed, 120)
        coverages.append(env._get_coverage())
        ends.append(end)
    assert min(coverages) > 0.9
    assert None not in ends


def test_pose_expert_plays_on_after_success():
    env = blind("pusht")
    env.reset(seed=0)
    env.agent.position = 60, 60
    env.block.angle = env.goal_pose[2]
    env.block.position = env.goal_pose[:2].tolist()
    poses = []
    for target in itertools.islice(behave("expert", env, np.random.default_rng(0)), 60):
        env.step(np.float32(target))
        poses.append(env.block_pose)
    np.testing.assert_allclose(poses[4], env.goal_pose, atol=0.5)
    assert np.abs(poses[-1] - env.goal_pose).max() > 5


def test_play_moves_the_block_and_covers_the_table():
    env = blind("pusht")
    poses, agents = [], []
    for seed in range(6):
        block, agent, _ = run(env, "play", seed, 120)
        poses.append(block)
        agents.append(agent)
    steps = np.concatenate([np.diff(each, axis=0) for each in poses])
    moved = np.linalg.norm(steps[:, :2], axis=1) + 60 * np.abs(steps[:, 2]) > 0.5
    assert 0.5 < moved.mean() < 0.8
    agents = np.concatenate(agents)
    assert agents.min() < 40
    assert agents.max() > 472
    counts, _, _ = np.histogram2d(*agents.T, bins=4, range=[[0, 512], [0, 512]])
    assert counts.min() > 0.01 * counts.sum()
    speeds = np.linalg.norm(np.diff(agents, axis=0), axis=1)
    low, high = np.percentile(speeds, [10, 90])
    assert low < 12
    assert high > 30
    centres = np.concatenate([[placed(np.array([0.0, 45.0]), pose) for pose in p] for p in poses])
    assert centres.min() > 10, "the block stays on the table"
    assert centres.max() < 502


def test_noise_has_one_sigma_per_episode():
    sigmas = []
    for seed in range(8):
        noisy = with_noise(itertools.repeat(np.zeros(2)), np.random.default_rng(seed))
        samples = np.stack(list(itertools.islice(noisy, 500)))
        assert np.abs(samples.mean(0)).max() < 0.2 * samples.std()
        sigmas.append(samples.std())
    assert 7 < min(sigmas) < 20
    assert 30 < max(sigmas) < 66


@pytest.mark.parametrize("behaviour", list(MIXTURE))
def test_behaviours_are_functions_of_the_seed(behaviour):
    first, second = (run(blind("pusht"), behaviour, 4, 25)[1] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert np.isfinite(first).all()


def test_mixture_has_its_shares():
    names = [choose_behaviour("mixture", np.random.default_rng(seed)) for seed in range(2000)]
    for name, share in MIXTURE.items():
        assert names.count(name) / 2000 == pytest.approx(share, abs=0.04)
    assert choose_behaviour("noisy", np.random.default_rng(0)) == "noisy"
