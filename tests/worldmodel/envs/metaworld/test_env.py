import ctypes.util
import gc
import subprocess
import sys
import warnings

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from worldmodel.envs import make_env

try:
    import worldmodel.envs.metaworld.headless  # noqa: F401
except ValueError as error:  # it names the package that is missing
    pytest.skip(str(error), allow_module_level=True)

import mujoco

from worldmodel.envs.metaworld.env import MetaWorld
from worldmodel.envs.mujoco import headless
from worldmodel.envs.mujoco.render import CANVASES, canvas

SCENE, STATE = "observation.images.scene", "observation.state"
PUSH = "metaworld:push-v3"
STILL = np.zeros(4, np.float32)


@pytest.fixture(scope="module")
def env() -> MetaWorld:
    return make_env(PUSH)


def assert_same(first: dict, second: dict) -> None:
    assert first.keys() == second.keys()
    for key, value in first.items():
        np.testing.assert_array_equal(value, second[key])


def test_gymnasium_contract(env):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it recommends a registered env
        check_env(env, skip_render_check=False)


def test_first_frame_and_episode_are_functions_of_the_seed(env):
    actions = np.random.default_rng(0).uniform(-1, 1, (3, 4)).astype(np.float32)
    env.reset(seed=1)
    env.step(actions[0])
    fresh = make_env(PUSH)
    starts = [each.reset(seed=2)[0] for each in (env, fresh)]
    assert_same(*starts)
    for action in actions:
        ends = [each.step(action) for each in (env, fresh)]
        assert_same(ends[0][0], ends[1][0])
        assert ends[0][1] == ends[1][1]
    assert np.abs(ends[0][0][SCENE].astype(int) - starts[0][SCENE]).max() > 100


def test_first_frame_shows_this_start(env):
    """Meta-World moves the goal without telling the renderer; `mj_forward` does."""
    for seed in range(3):
        first = env.reset(seed=seed)[0][SCENE]
        mujoco.mj_forward(env.simulator.model, env.simulator.data)
        np.testing.assert_array_equal(env.render(), first)


def test_other_seeds_start_elsewhere(env):
    env.reset(seed=0)
    first = env.object_position, env.goal_position
    env.reset(seed=1)
    for before, after in zip(first, (env.object_position, env.goal_position), strict=True):
        assert np.linalg.norm(before - after) > 0.01
    env.reset()
    assert not np.array_equal(env.object_position, first[0])


def test_state_is_hand_and_gripper(env):
    observation, _ = env.reset(seed=0)
    hand = env.simulator.data.body("hand").xpos
    np.testing.assert_allclose(observation[STATE][:3], hand, atol=1e-6)
    assert observation[STATE][3] == pytest.approx(1.0)
    for _ in range(4):
        closed = env.step(np.float32([0, 0, 0, 1]))[0]
    assert closed[STATE][3] < 0.6


def hand_after(env: MetaWorld, action: np.ndarray, steps: int) -> np.ndarray:
    """Where the hand comes to rest after one action."""
    env.reset(seed=0)
    env.step(action)
    for _ in range(steps):
        state = env.step(STILL)[0][STATE]
    return state[:3]


def test_an_action_moves_the_hand_by_repeated_centimetres(env):
    single = make_env(PUSH, size=16, action_repeat=1)
    assert (env.metadata["render_fps"], single.metadata["render_fps"]) == (16, 80)
    for each, steps, expected in ((env, 4, 0.05), (single, 16, 0.01)):
        up = hand_after(each, np.float32([0, 0, 1, 0]), steps) - hand_after(each, STILL, steps)
        np.testing.assert_allclose(up, [0, 0, expected], atol=expected / 5)


@pytest.mark.slow
def test_pictures_outlive_other_renderers(env):
    """A freed GL context leaves later ones black; ours is kept."""
    expected = env.reset(seed=3)[0]
    for size in (32, 48):
        other = make_env(PUSH, size=size)
        assert other.reset(seed=3)[0][SCENE].std() > 20
        del other
        gc.collect()
    again = env.reset(seed=3)[0]
    assert_same(again, expected)
    assert make_env(PUSH).renderer.canvas is env.renderer.canvas
    assert canvas("push-v3", env.simulator.model, 32) is CANVASES["push-v3", 32]


@pytest.mark.slow
def test_triton_can_be_imported_after_a_picture():
    """In the wrong order the process dies of a segmentation fault."""
    code = """
import importlib.util
from worldmodel.envs import make_env
env = make_env("metaworld:reach-v3", size=16)
before = env.reset(seed=0)[0]["observation.images.scene"]
if importlib.util.find_spec("triton"):
    import triton
after = env.reset(seed=0)[0]["observation.images.scene"]
print(before.std() > 20 and (before == after).all())
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (0, "True\n"), run.stderr


@pytest.mark.slow
def test_processes_that_drew_end_without_complaint(tmp_path):
    """OSMesa is gone when Python frees what is left at its end."""
    command = ["-m", "worldmodel.cli", "record", "metaworld:reach-v3", "--episodes", "2", "--out"]
    run = subprocess.run([sys.executable, *command, tmp_path], capture_output=True, text=True)
    assert run.returncode == 0 and "GLContext" not in run.stderr, run.stderr


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
    with pytest.raises(ValueError, match="apt-get install libosmesa6"):
        headless.check_installation("Meta-World", "metaworld")


def test_object_and_goal_are_in_the_scene(env):
    """The goal is the only green thing; the scene camera sees all of where it can be."""
    env.reset(seed=0)
    red, green, blue = np.moveaxis(env.render().astype(int), -1, 0)
    rows, columns = np.nonzero(green - np.maximum(red, blue) > 60)
    assert 2 <= len(rows) <= 12
    model, data = env.simulator.model, env.simulator.data
    model.site("goal").rgba[3] = 0
    try:
        hidden = env.renderer.picture(data, env.cameras["scene"]).astype(int)
    finally:
        model.site("goal").rgba[3] = 1
    changed = np.abs(hidden - env.render()).max(-1) > 30
    assert changed[rows, columns].all()
    assert changed.sum() < 20


def test_time_limit():
    env = make_env(PUSH, size=16, time_limit=2)
    for _ in range(2):
        env.reset(seed=0)
        assert [env.step(STILL)[3] for _ in range(2)] == [False, True]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("push", {}, "known are pusht, pusht-position, pusht-rope, pusht-sand, metaworld:TASK"),
        ("metaworld:push", {}, "no task 'push'; it has assembly-v3"),
        (PUSH, {"size": 8}, "16 to 480 pixels a side, got 8"),
        (PUSH, {"time_limit": 0}, "at least 1 step, got 0"),
        (PUSH, {"action_repeat": 3}, "divides 80, got 3"),
    ],
)
def test_wrong_settings_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        make_env(name, **options)


@pytest.mark.parametrize("action", [[np.nan, 0, 0, 0], [0.0], [[0.0, 0, 0, 0]]])
def test_a_wrong_action_is_refused(env, action):
    env.reset(seed=0)
    with pytest.raises(ValueError, match="push-v3 is four finite numbers, got"):
        env.step(np.array(action))
