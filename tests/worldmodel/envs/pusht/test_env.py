import signal
import subprocess
import sys
import warnings

import numpy as np
import pytest
from gym_pusht.envs.pusht import PushTEnv
from gymnasium.utils.env_checker import check_env

from worldmodel.envs import ENV_NAMES, make_env
from worldmodel.envs.pusht.env import PushT, PushTPosition
from worldmodel.envs.pusht.scene import Scene, grown, placed

TOP, WRIST, STATE = "observation.images.top", "observation.images.wrist", "observation.state"
WHITE, GREEN, BLUE, GREY = (255, 255, 255), (144, 238, 144), (78, 126, 255), (143, 163, 184)


def put_block(env: PushT, x: float, y: float, angle: float) -> None:
    env.block.angle = angle
    env.block.position = x, y


def assert_same(first: dict, second: dict) -> None:
    assert first.keys() == second.keys()
    for key, value in first.items():
        np.testing.assert_array_equal(value, second[key])


@pytest.mark.parametrize("name", ENV_NAMES)
def test_gymnasium_contract(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it recommends actions in -1..1 and a registered env
        check_env(make_env(name), skip_render_check=False)


def test_importing_the_package_imports_no_simulator():
    code = "import sys, worldmodel.envs; print(HEAVY & set(sys.modules))"
    code = code.replace("HEAVY", "{'pymunk', 'pygame', 'cv2', 'torch'}")
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"


def test_unknown_environment():
    with pytest.raises(
        ValueError, match="no environment 'push'; known are pusht, pusht-position, pusht-rope, pusht-sand"
    ):
        make_env("push")


def test_starts_are_those_of_gym_pusht():
    reference = PushTEnv(obs_type="state")
    for seed in (0, 7):
        agent_x, agent_y, block_x, block_y, angle = reference.reset(seed=seed)[0]
        env = make_env("pusht")
        observation, info = env.reset(seed=seed)
        np.testing.assert_array_equal(observation[STATE], np.float32([agent_x, agent_y]))
        np.testing.assert_allclose(env.block_pose[:2], [block_x, block_y])
        assert env.block_pose[2] % (2 * np.pi) == pytest.approx(angle)
        assert info["success"] is False


def test_physics_are_those_of_gym_pusht():
    reference, env = PushTEnv(obs_type="state"), make_env("pusht")
    reference.reset(seed=3)
    env.reset(seed=3)
    for action in np.random.default_rng(0).uniform(0, 512, (30, 2)):
        state, reward, *_ = reference.step(action)
        observation, own_reward, *_ = env.step(action)
        np.testing.assert_array_equal(observation[STATE], np.float32(state[:2]))
        assert own_reward == pytest.approx(reward)


@pytest.mark.parametrize("name", ENV_NAMES)
def test_a_seed_reproduces_start_and_episode(name):
    env, other = make_env(name), make_env(name)
    start, _ = env.reset(seed=5)
    for action in ([20, 30], [400, 100]):
        end = env.step(np.float32(action))[0]
    assert_same(other.reset(seed=5)[0], start)
    assert_same(env.reset(seed=5)[0], start)
    for action in ([20, 30], [400, 100]):
        again = env.step(np.float32(action))[0]
    assert_same(again, end)
    assert not np.array_equal(env.reset(seed=6)[0][TOP], start[TOP])


def test_pictures_show_the_scene_in_its_colours():
    env = make_env("pusht", size=64)
    env.reset(seed=0)
    env.agent.position = 100, 60
    put_block(env, 400, 300, 0.0)
    pictures = env.get_obs()
    assert pictures[TOP].shape == pictures[WRIST].shape == (64, 64, 3)
    for (x, y), colour in {(20, 480): WHITE, (256, 268): GREEN, (100, 60): BLUE, (400, 316): GREY}.items():
        np.testing.assert_allclose(pictures[TOP][y // 8, x // 8], colour, atol=2)
    # the agent is the middle of the wrist picture, whose pixels are 3 world units wide
    np.testing.assert_allclose(pictures[WRIST][31:33, 31:33], np.full((2, 2, 3), BLUE), atol=2)
    assert (pictures[WRIST][32, 32 + 8] == WHITE).all()
    wall_row = 32 - 19  # the wall lies at 3 to 7 units, 53 to 57 above the agent
    assert pictures[WRIST][wall_row, 50].max() < 225
    assert (pictures[WRIST][: wall_row - 2] == WHITE).all(), "background beyond the table"


def test_motion_below_a_pixel_is_visible():
    env = make_env("pusht")
    env.reset(seed=0)
    put_block(env, 400, 300, 0.0)
    centres = []
    for x in (100.0, 101.0, 102.0):  # an eighth of a pixel each
        env.agent.position = x, 60
        blueness = np.ptp(env.get_obs()[TOP].astype(float), axis=-1)[2:16, 4:24]
        centres.append((blueness.sum(0) @ np.arange(20)) / blueness.sum())
    np.testing.assert_allclose(np.diff(centres), 1 / 8, atol=0.03)


def test_wrist_camera_follows_by_fractions_of_a_pixel():
    env = make_env("pusht")
    env.reset(seed=0)
    put_block(env, 140, 100, 0.0)
    pictures = []
    for x in (100.0, 100.5):
        env.agent.position = x, 110
        pictures.append(env.get_obs()[WRIST].astype(int))
    difference = np.abs(pictures[1] - pictures[0])
    assert difference[24:40, 24:40].max() < 40, "the agent stays in the middle"
    assert difference.max() > 8, "the block moves"


def test_render_returns_the_canvas():
    env = make_env("pusht")
    env.reset(seed=1)
    canvas = env.render()
    assert canvas.shape == (256, 256, 3)
    top = env.get_obs()[TOP].astype(float)
    blocks = canvas.reshape(64, 4, 64, 4, 3).mean((1, 3))
    np.testing.assert_allclose(top, blocks, atol=0.51)


def test_pose_task_rewards_coverage():
    env = make_env("pusht")
    env.reset(seed=0)
    env.agent.position = 60, 60
    put_block(env, *env.goal_pose)
    _, reward, terminated, truncated, info = env.step(np.float32([60, 60]))
    assert (reward, terminated, truncated) == (1.0, True, False)
    assert info["success"] is True
    assert info["coverage"] == pytest.approx(1.0)
    put_block(env, 286, 256, np.pi / 4)
    _, reward, terminated, _, info = env.step(np.float32([60, 60]))
    assert not terminated
    assert reward == pytest.approx(info["coverage"] / 0.95)
    assert 0.1 < reward < 0.9


def test_position_task_rewards_closeness_whatever_the_angle():
    env = make_env("pusht-position")
    env.reset(seed=0)
    env.agent.position = 60, 60
    for distance, success in ((64.0, False), (31.0, False), (29.0, True)):
        put_block(env, 100, 100, 2.0)
        shift = env.goal_centre + np.array([distance, 0.0]) - env.block_centre
        put_block(env, *(np.array([100, 100]) + shift), 2.0)
        _, reward, terminated, _, info = env.step(np.float32([60, 60]))
        assert reward == pytest.approx(1 - distance / 256)
        assert terminated is success is info["success"]


def test_position_starts_are_away_from_the_goal():
    env = make_env("pusht-position")
    redrawn = 0
    for seed in range(60):
        _, info = env.reset(seed=seed)
        assert env.distance >= 60
        assert info["success"] is False
        reference = PushTEnv(obs_type="state").reset(seed=seed)[0]
        redrawn += not np.allclose(reference[2:4], env.block_pose[:2])
    assert 0 < redrawn < 30
    env.reset(seed=0, options={"reset_to_state": [50, 50, *env.goal_pose]})
    assert env.distance < 60, "a state that is asked for is kept"


@pytest.mark.parametrize(("name", "limit"), [("pusht", 120), ("pusht-position", 60)])
def test_time_limit(name, limit):
    env = make_env(name)
    env.reset(seed=0)
    ends = [env.step(np.float32([20, 20]))[3] for _ in range(limit)]
    assert ends == [False] * (limit - 1) + [True]
    env.reset(seed=0)
    assert env.step(np.float32([20, 20]))[3] is False


def test_targets_outside_are_clipped():
    first, second = make_env("pusht"), make_env("pusht")
    first.reset(seed=0)
    second.reset(seed=0)
    assert_same(first.step(np.array([-90.0, 600.0]))[0], second.step(np.array([0.0, 512.0]))[0])


@pytest.mark.parametrize("action", [[np.nan, 1.0], [1.0], [[1.0, 2.0]]])
def test_a_wrong_action_is_refused(action):
    env = make_env("pusht")
    env.reset(seed=0)
    with pytest.raises(ValueError, match="an action of pusht is two finite numbers, got"):
        env.step(np.array(action))


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="16 to 256 pixels a side, got 8"):
        PushT(size=8)
    with pytest.raises(ValueError, match="at least 1 step, got 0"):
        PushTPosition(time_limit=0)


def test_filled_rectangles_have_their_area():
    rectangle = np.array([[-60.0, 0], [60, 0], [60, 30], [-60, 30]])
    np.testing.assert_allclose(grown(rectangle, 3.2), [[-62, -2], [62, -2], [62, 32], [-62, 32]], atol=1e-9)
    scene = Scene([rectangle], np.array([256.0, 256.0, 0.3]))
    scene.draw(np.array([60.0, 60.0]), np.array([300.0, 100.0, 0.8]))
    darkness = 255.0 - scene.canvas[5:110, 60:240, 1]
    # 124 x 34 units of edge colour (119 dark) with 116 x 26 of block colour (92) on top, in canvas
    # pixels of 2 x 2 units
    expected = ((124 * 34 - 116 * 26) * 119 + 116 * 26 * 92) / 4
    assert darkness.sum() == pytest.approx(expected, rel=0.05)


def test_placed_turns_and_moves():
    np.testing.assert_allclose(
        placed(np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([10.0, 20.0, np.pi / 2])), [[10, 21], [8, 20]]
    )


def test_ctrl_c_while_the_agent_touches_the_block_is_not_lost():
    """The simulator's C code swallows what is raised in the function that it calls at every contact."""
    env = PushT()
    env.reset(seed=0)
    touched = []
    env.collision_handeler.post_solve = lambda *about: touched.append(signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        for _ in range(20):
            env.step(np.array(env.block.position))
    assert touched
    with pytest.raises(KeyboardInterrupt):
        env._set_state([*env.block_centre, *env.block_pose])
