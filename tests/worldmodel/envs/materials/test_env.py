import numpy as np
import pytest

from worldmodel.data import open_episodes
from worldmodel.envs import make_env, object_names
from worldmodel.envs.materials import env as table_env
from worldmodel.envs.materials.rope import LENGTH, PushTRope, curve, lies_free
from worldmodel.envs.materials.sand import RADIUS, PushTSand, heap
from worldmodel.envs.record import RecordConfig, record
from worldmodel.envs.scripts import behave

TOP, WRIST, STATE = "observation.images.top", "observation.images.wrist", "observation.state"
GREEN, BLUE, WHITE = (144, 238, 144), (78, 126, 255), (255, 255, 255)
NAMES = ("pusht-rope", "pusht-sand")


def blind(name: str, **options):
    """An environment that draws nothing."""
    env = make_env(name, **options)
    env.get_obs = dict
    return env


def played(env, steps: int, seed: int = 0) -> np.ndarray:
    """Places of the pieces before each step and after the last: `t n 2`."""
    env.reset(seed=seed)
    targets = behave("play", env, np.random.default_rng(seed))
    places = [env.pieces]
    for _ in range(steps):
        env.step(next(targets))
        places.append(env.pieces)
    return np.array(places)


@pytest.mark.parametrize(
    ("name", "shift", "count"),
    [
        ("pusht-rope", "", 24),
        ("pusht-rope", "longer-rope", 36),
        ("pusht-sand", "", 80),
        ("pusht-sand", "more-discs", 120),
    ],
)
def test_the_shift_is_the_amount_of_material(name, shift, count):
    env = blind(name, shift=shift)
    for seed in range(3):
        _, info = env.reset(seed=seed)
        assert len(env.pieces) == count
        assert info["success"] is False and info["share"] == env.share <= 0.3
        assert env.pieces.min() > 10 and env.pieces.max() < 502
        assert np.linalg.norm(env.pieces - env.agent_position, axis=1).min() > 40


@pytest.mark.parametrize("name", NAMES)
def test_material_rests_unless_it_is_pushed_and_stays_on_the_table(name):
    env = blind(name)
    for seed in range(2):
        places = played(env, 60, seed)
        assert places.min() > 3 and places.max() < 509
    places = played(env, 12, seed=3)
    assert np.ptp(places, axis=0).max() > 20, "play moves it"
    env.reset(seed=0)
    before, stay = env.pieces, env.agent_position
    for _ in range(3):
        env.step(stay)
    np.testing.assert_allclose(env.pieces, before, atol=1e-6)


def test_material_rests_once_it_is_let_go():
    env = blind("pusht-sand")
    env.reset(seed=0)
    env.bodies[0].position, env.agent.position = (300, 60), (200, 60)
    for x in (400.0, 400.0, 200.0, 200.0, 200.0):
        env.step(np.array([x, 60.0]))
    pushed = env.pieces[0]
    assert pushed[0] > 300
    for _ in range(2):
        env.step(np.array([200.0, 60.0]))
    np.testing.assert_allclose(env.pieces[0], pushed, atol=1e-6)


def test_what_is_pushed_into_a_corner_does_not_leave_the_table():
    env = blind("pusht-sand")
    env.reset(seed=1)
    for index, body in enumerate(env.bodies):
        body.position = 20 + 15 * (index % 9), 20 + 15 * (index // 9)
    for _ in range(2):
        for target in ([130.0, 130.0], [0.0, 0.0], [0.0, 90.0], [90.0, 0.0]):
            for _ in range(6):
                env.step(np.array(target))
    assert env.pieces.min() > 0


def test_the_joints_of_the_rope_hold():
    env = blind("pusht-rope")
    played(env, 60)
    path, middles = env.path, env.pieces
    np.testing.assert_allclose(np.linalg.norm(np.diff(path, axis=0), axis=1), LENGTH, atol=3)
    np.testing.assert_allclose((path[:-1] + path[1:]) / 2, middles, atol=3)


def test_the_agent_moves_as_in_pusht():
    sand, pusht = blind("pusht-sand"), blind("pusht")
    for env in (sand, pusht):
        env.reset(seed=0)
        env.agent.position, env.agent.velocity = (60, 60), (0, 0)
    for target in ([100.0, 70.0], [30.0, 30.0], [-50.0, 600.0], [60.0, 40.0]):
        for env in (sand, pusht):
            env.step(np.array(target))
        np.testing.assert_allclose(sand.agent_position, pusht.agent_position)


def test_reward_is_the_share_in_the_goal():
    env = blind("pusht-sand", time_limit=3)
    env.reset(seed=0)
    env.agent.position = 30, 30
    stay = np.array([30.0, 30.0])
    for inside, reward, success in ((20, 0.5, False), (39, 39 / 40, False), (40, 1.0, True)):
        for index, body in enumerate(env.bodies):
            column, row = divmod(index, 9)
            body.position = (190 + 15 * column, 196 + 15 * row) if index < inside else (60 + 5 * index, 480)
        _, got, terminated, truncated, info = env.step(stay)
        assert got == pytest.approx(reward, abs=1e-9)
        assert terminated is success is info["success"]
        assert truncated is (inside == 40)


def test_pictures_show_goal_and_agent_on_top():
    env = make_env("pusht-rope")
    env.reset(seed=0)
    env.agent.position = tuple(env.path[0])
    pictures = env.get_obs()
    assert pictures[TOP].shape == pictures[WRIST].shape == (64, 64, 3)
    np.testing.assert_allclose(pictures[WRIST][31:33, 31:33], np.full((2, 2, 3), BLUE), atol=2)
    for body in env.bodies:
        body.position = 30, 30
    env.agent.position = 480, 480
    top = env.get_obs()[TOP]
    np.testing.assert_allclose(top[32, 32], GREEN, atol=2)
    edge = int((256 + table_env.GOAL_RADIUS) // 8)
    assert tuple(top[32, edge - 2]) == GREEN and tuple(top[32, edge + 2]) == WHITE
    np.testing.assert_array_equal(env.render()[128, 128], GREEN)


def test_time_limit_and_wrong_input():
    env = blind("pusht-rope", time_limit=2)
    env.reset(seed=0)
    assert [env.step(np.array([30.0, 30.0]))[3] for _ in range(2)] == [False, True]
    env.reset(seed=0)
    assert env.step(np.array([30.0, 30.0]))[3] is False
    with pytest.raises(ValueError, match="an action of pusht-rope is two finite numbers, got"):
        env.step(np.array([np.nan, 1.0]))
    with pytest.raises(ValueError, match="time_limit is at least 1 step, got 0"):
        PushTSand(time_limit=0)
    with pytest.raises(ValueError, match="pusht-rope has no shift 'more-discs'; known are longer-rope"):
        PushTRope(shift="more-discs")


def test_a_start_of_the_rope_is_smooth_and_free():
    rng = np.random.default_rng(0)
    path = curve(24, rng)
    np.testing.assert_allclose(np.linalg.norm(np.diff(path, axis=0), axis=1), LENGTH)
    bent = np.array([[0.0, 0], [12, 0], [24, 0], [36, 0], [36, 12], [24, 12], [12, 12], [0, 12]]) + 200
    assert not lies_free(bent) and lies_free(bent * [1, 1] * 0 + np.linspace([200, 200], [300, 200], 8))
    assert not lies_free(np.linspace([200, 200], [490, 200], 25)), "too near the wall"


def test_a_heap_touches_nobody():
    for seed in range(3):
        places = heap(120, np.random.default_rng(seed))
        distance = np.linalg.norm(places[:, None] - places[None], axis=-1) + 1e3 * np.eye(len(places))
        assert 2 * RADIUS < distance.min() < 2 * RADIUS + 1.5
        assert np.ptp(places, axis=0).max() < 260


def test_a_recording_knows_its_objects(tmp_path):
    record(RecordConfig("pusht-sand", tmp_path / "sand", episodes=1, size=16, horizon=2, workers=1))
    source = open_episodes(tmp_path / "sand")
    assert object_names(source.robot_type) == ("agent", "sand")
    assert source.views == ("top", "wrist") and source.action_dim == source.state_dim == 2
