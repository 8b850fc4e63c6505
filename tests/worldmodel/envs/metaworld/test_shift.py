"""Meta-World's controlled shifts: each changes what it says, and nothing else."""

import functools
import itertools

import numpy as np
import pytest

from worldmodel.data import open_episodes
from worldmodel.envs import make_env

try:
    from worldmodel.envs.metaworld.env import MetaWorld
except ValueError as error:  # it names the package that is missing
    pytest.skip(str(error), allow_module_level=True)

from worldmodel.envs.metaworld.points import image_points
from worldmodel.envs.record import RecordConfig, record
from worldmodel.envs.scripts import behave

pytestmark = pytest.mark.slow

SCENE, WRIST, STATE = "observation.images.scene", "observation.images.wrist", "observation.state"
PUSH = "metaworld:push-v3"


@functools.cache
def blind(shift: str = "", name: str = PUSH) -> MetaWorld:
    """An environment that draws nothing: the scripts do not look. Reset it before use."""
    env = make_env(name, size=16, shift=shift)
    env.get_obs = dict
    return env


def starts(env: MetaWorld, count: int = 40) -> np.ndarray:
    """Hand, object and goal (x, y, z) of many starts, in metres: `count 3 3`."""
    found = []
    for seed in range(count):
        env.reset(seed=seed)
        found.append([env.hand_position, env.object_position, env.goal_position])
    return np.array(found)


@pytest.fixture(scope="module")
def usual() -> np.ndarray:
    return starts(blind())


def test_start_region_moves_the_puck_only(usual):
    """The same draw u of 0..1 puts the puck at -0.1 + 0.2 u, and at 0.1 + 0.1 u when shifted.

    Meta-World draws again while puck and goal are close, which is rarer when shifted; the other
    starts agree in all but the puck's x.
    """
    env = blind("start-region")
    shifted = starts(env)
    np.testing.assert_array_equal(starts(env), shifted)  # a pure function of the seed
    x, moved = usual[:, 1, 0], shifted[:, 1, 0]
    assert np.abs(x).max() < 0.1
    assert 0.1 < moved.min() < 0.12 and 0.18 < moved.max() < 0.2
    same = np.abs(shifted[:, 2] - usual[:, 2]).max(-1) < 1e-9
    assert same.mean() > 0.8
    np.testing.assert_allclose(moved[same], 0.15 + x[same] / 2, atol=1e-6)
    np.testing.assert_allclose(shifted[same, 1, 1:], usual[same, 1, 1:], atol=1e-6)
    np.testing.assert_allclose(shifted[:, 0], usual[:, 0], atol=1e-6)


def test_the_shifted_puck_can_be_seen_and_pushed_to_the_goal():
    env = blind("start-region")
    for seed in range(3):
        env.reset(seed=seed)
        assert (np.abs(image_points(env) - 32) < 24).all()
        actions = behave("expert", env, np.random.default_rng(seed))
        assert any(env.step(next(actions))[4]["success"] for _ in range(30))


@pytest.mark.parametrize(
    ("task", "usual", "shifted"),
    [
        ("drawer-open", (-0.1, 0.1), (0.1, 0.2)),
        ("door-open", (0.19, 0.29), (0.29, 0.34)),  # the handle, 0.19 beside the door
    ],
)
def test_start_region_of_other_tasks(task, usual, shifted):
    for shift, (low, high) in (("", usual), ("start-region", shifted)):
        x = starts(blind(shift, f"metaworld:{task}-v3"), 4)[:, 1, 0]
        assert low < x.min() and x.max() < high


def test_camera_moves_the_scene_camera_only():
    usual, shifted = make_env(PUSH), make_env(PUSH, shift="camera")
    for seed in range(3):
        before, after = usual.reset(seed=seed)[0], shifted.reset(seed=seed)[0]
        np.testing.assert_array_equal(after[WRIST], before[WRIST])
        np.testing.assert_array_equal(after[STATE], before[STATE])
        assert np.abs(after[SCENE].astype(int) - before[SCENE]).mean() > 10
        again = make_env(PUSH, shift="camera").reset(seed=seed)[0]
        np.testing.assert_array_equal(again[SCENE], after[SCENE])
    cameras = usual.cameras["scene"], shifted.cameras["scene"]
    assert [each.azimuth for each in cameras] == [135, 150]
    assert [each.elevation for each in cameras] == [-35, -30]
    assert [each.distance for each in cameras] == [1, 1]
    np.testing.assert_array_equal(cameras[0].lookat, cameras[1].lookat)


@pytest.mark.parametrize("shift", ["camera", "action-noise"])
def test_other_shifts_keep_the_starts(shift, usual):
    np.testing.assert_array_equal(starts(blind(shift), 4), usual[:4])


def drawn(shift: str, behaviour: str, seed: int, count: int = 1) -> np.ndarray:
    """The first actions of a script while the simulation stands still: `count 4`."""
    env = blind(shift)
    env.reset(seed=seed)
    actions = behave(behaviour, env, np.random.default_rng(seed))
    return np.array(list(itertools.islice(actions, count)))


def test_action_noise_is_twofold():
    """Sigma is log-uniform in 0.1..1 instead of 0.05..0.5; the draws themselves are the same."""
    factors = []
    for seed in range(4):
        clean, usual = drawn("", "expert", seed), drawn("", "noisy", seed)
        shifted = drawn("action-noise", "noisy", seed)
        np.testing.assert_array_equal(drawn("action-noise", "expert", seed), shifted)
        whole = np.maximum(np.abs(shifted), np.abs(usual)) < 1  # nothing is cut
        factors.extend(((shifted - clean) / (usual - clean))[whole])
    assert len(factors) > 3
    np.testing.assert_allclose(factors, 2)


def test_play_is_noisy_too():
    """Play holds the gripper; noise moves it, unless it is cut at fully open."""

    def held(shift: str) -> float:
        return (np.diff(drawn(shift, "play", 0, count=60)[:, 3]) == 0).mean()

    assert held("") > 0.7
    assert held("action-noise") < 0.3


def test_the_recording_names_its_shift(tmp_path):
    config = RecordConfig(
        env=PUSH, out=tmp_path / "set", episodes=1, behaviour="expert", size=16, shift="camera", seed=7, workers=1
    )
    source = open_episodes(record(config))
    assert (source.shift, source.reset_seed(0)) == ("camera", 700000)
    first = make_env(PUSH, size=16, shift="camera").reset(seed=700000)[0]
    clip = source.read(0, 0, 1)
    np.testing.assert_array_equal(clip.states[0], first[STATE])
    assert np.square(clip.frames[0, 0].numpy() - first[SCENE].astype(float)).mean() < 40


def test_an_unknown_shift_is_refused(tmp_path):
    message = "push-v3 has no shift 'agent-speed'; known are start-region, goal-region, camera, action-noise"
    with pytest.raises(ValueError, match=message):
        make_env(PUSH, shift="agent-speed")
    out = tmp_path / "set"
    with pytest.raises(ValueError, match=message):
        record(RecordConfig(env=PUSH, out=out, shift="agent-speed"))
    assert not out.exists()


def test_start_region_needs_a_random_object():
    with pytest.raises(ValueError, match="in plate-slide-v3 it is always 0"):
        make_env("metaworld:plate-slide-v3", shift="start-region")
