"""LIBERO as an environment. Making a simulation takes seconds, so all of these are slow."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from worldmodel.envs import make_env
from worldmodel.envs.protocol import describe

try:
    from worldmodel.envs.libero.env import LiberoObject
except ValueError as error:  # it names the package that is missing
    pytest.skip(str(error), allow_module_level=True)

from worldmodel.envs.libero.expert import behave
from worldmodel.envs.libero.shift import NEARER

pytestmark = pytest.mark.slow

SOUP = "libero:libero_object/0"
AGENTVIEW, WRIST, STATE = "observation.images.agentview", "observation.images.wrist", "observation.state"
STILL = np.array([0, 0, 0, 0, 0, 0, -1], np.float32)


@pytest.fixture(scope="module")
def env() -> LiberoObject:
    return make_env(SOUP)


def assert_same(first: dict, second: dict) -> None:
    assert first.keys() == second.keys()
    for key, value in first.items():
        np.testing.assert_array_equal(value, second[key])


def places(env: LiberoObject) -> np.ndarray:
    return np.array([env.object_position, env.goal_position, *[place for place, _ in env.neighbours]])


def test_gymnasium_contract(env):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it recommends a registered env
        check_env(env, skip_render_check=False)


def test_facts(env):
    facts = describe(env)
    assert (facts.name, facts.fps) == (SOUP, 20)
    assert facts.views == {"agentview": (64, 64), "wrist": (64, 64)}
    assert facts.task == "pick up the alphabet soup and place it in the basket"
    assert (len(facts.action_names), len(facts.state_names), facts.stops_on_success) == (7, 8, True)


def test_an_episode_is_a_function_of_the_seed(env):
    """Whatever was simulated before, in this environment or in a new one, also beside another one that draws."""
    actions = np.random.default_rng(0).uniform(-1, 1, (4, 7))
    fresh, larger = make_env(SOUP), make_env(SOUP, size=128)
    env.reset(seed=99)
    for action in actions[::-1]:
        env.step(action)
    for seed in (5, 12345):
        starts = [each.reset(seed=seed)[0] for each in (env, fresh)]
        assert larger.reset(seed=seed)[0][AGENTVIEW].std() > 20
        assert_same(*starts)
        assert starts[0][AGENTVIEW].std() > 20 and starts[0][WRIST].std() > 20
        for action in actions:
            ends = [each.step(action)[0] for each in (env, fresh)]
            assert_same(*ends)
        assert np.abs(ends[0][AGENTVIEW].astype(int) - starts[0][AGENTVIEW]).max() > 50
    before = env.get_obs()
    for each in (fresh, larger):
        each.close()
    assert_same(env.get_obs(), before)


def test_the_first_fifty_seeds_are_the_fixed_starts(env):
    """Others place the objects anew, in the same regions; with no seed they go on."""
    (task,) = env.tasks
    for seed in (0, 49):
        env.simulator.begin(seed)
        np.testing.assert_allclose(env.simulator.control.get_sim_state()[1:], task.starts[seed][1:], atol=1e-12)
    env.reset(seed=0)
    fixed = places(env)
    env.reset(seed=50)
    drawn = places(env)
    assert 1e-3 < np.abs(drawn - fixed)[:, :2].max() < 0.06
    env.reset()
    assert not np.array_equal(places(env), drawn)


def test_global_random_numbers_are_left_alone(env):
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    env.reset(seed=77)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_actions_move_the_hand_and_the_fingers(env):
    env.reset(seed=0)
    start = env.hand_position
    for _ in range(5):
        observation = env.step(np.float32([0, 1, 0, 0, 0, 0, 1]))[0]
    moved = env.hand_position - start
    assert moved[1] > 0.03 and np.abs(moved[[0, 2]]).max() < 0.02
    np.testing.assert_allclose(observation[STATE][:3], env.hand_position, atol=1e-6)
    assert observation[STATE][6] < 0.03
    assert abs(observation[STATE][3]) > np.pi - 0.2, "the fingers point downwards"


def test_the_pictures_are_upright(env):
    """The robot stands at the back, so that it is in the upper half of the camera in front of it."""
    env.reset(seed=0)
    before = env.render().astype(int)
    for _ in range(6):
        env.step(np.float32([0, 1, 0, 0, 0, 0, -1]))
    changed = np.abs(env.render() - before).max(-1) > 40
    assert changed[:24].sum() > 30 > changed[40:].sum()


@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_expert_puts_the_object_into_the_basket(number):
    """1 is a flat box beside a can, 2 a tall bottle."""
    env = make_env(f"libero:libero_object/{number}")
    env.get_obs = dict
    env.reset(seed=3)
    actions = behave("expert", env, np.random.default_rng(3))
    steps = [env.step(next(actions)) for _ in range(150)]
    success = [info["success"] for *_, info in steps]
    assert any(success)
    first = success.index(True)
    assert steps[first][1:3] == (1.0, True) and steps[first - 1][1:3] == (0.0, False)
    assert first > 80


@pytest.mark.parametrize("behaviour", ["expert", "noisy", "play"])
def test_behaviours_are_functions_of_the_seed(env, behaviour, monkeypatch):
    monkeypatch.setattr(env, "get_obs", dict)
    drawn = []
    for _ in range(2):
        env.reset(seed=60)
        actions = behave(behaviour, env, np.random.default_rng(4))
        drawn.append([])
        for _ in range(25):
            drawn[-1].append(next(actions))
            env.step(drawn[-1][-1])
    np.testing.assert_array_equal(*drawn)
    assert np.abs(drawn).max() <= 1 and np.std(drawn) > 0.1


def test_play_touches_the_objects(env, monkeypatch):
    monkeypatch.setattr(env, "get_obs", dict)
    env.reset(seed=61)
    start, actions = places(env), behave("play", env, np.random.default_rng(1))
    for _ in range(env.episode_steps("play")):
        env.step(next(actions))
    moved = np.linalg.norm(places(env) - start, axis=1)
    assert moved.max() > 0.03


def test_a_suite_draws_the_task_from_the_seed(env):
    suite = make_env("libero:libero_object")
    expected = env.reset(seed=3)[0]
    assert_same(suite.reset(seed=30)[0], expected)
    assert suite.task == env.task
    suite.reset(seed=37)
    assert suite.task == "pick up the milk and place it in the basket"
    assert_same(suite.reset(seed=30)[0], expected)


def test_shifts_change_what_they_say(env):
    usual = env.reset(seed=60)[0]
    before = places(env)
    camera = make_env(SOUP, shift="camera")
    seen = camera.reset(seed=60)[0]
    np.testing.assert_array_equal(seen[WRIST], usual[WRIST])
    assert np.abs(seen[AGENTVIEW].astype(int) - usual[AGENTVIEW]).mean() > 10
    camera.close()
    nearer = make_env(SOUP, shift="start-region")
    nearer.reset(seed=60)
    np.testing.assert_allclose(places(nearer)[0] - before[0], NEARER, atol=5e-3)
    np.testing.assert_allclose(places(nearer)[1:], before[1:], atol=1e-3)
    nearer.close()
    swapped = make_env(SOUP, shift="object-swap")
    swapped.reset(seed=0)
    assert swapped.task == env.task
    env.reset(seed=0)
    assert np.linalg.norm(swapped.object_position - env.object_position) > 0.1


@pytest.mark.parametrize(
    "name, options, message",
    [
        (SOUP, {"size": 8}, "16 to 480 pixels a side, got 8"),
        (SOUP, {"time_limit": 0}, "at least 1 step, got 0"),
        (SOUP, {"shift": "agent-speed"}, "no shift 'agent-speed'; known are camera, start-region, object-swap, action"),
        ("libero:libero_goal/0", {"shift": "start-region"}, "no shift 'start-region'; known are camera, object-swap"),
        ("libero:libero_object_with_mug/0", {"shift": "object-swap"}, "no suite 'libero_object_with_mug_swap'"),
    ],
)
def test_wrong_settings_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        make_env(name, **options)


@pytest.mark.parametrize("action", [[np.nan, 0, 0, 0, 0, 0, 0], [0.0]])
def test_a_wrong_action_is_refused(env, action):
    env.reset(seed=0)
    with pytest.raises(ValueError, match="libero_object/0 is seven finite numbers, got"):
        env.step(np.array(action))


def test_processes_record_side_by_side(tmp_path):
    """Each has its own renderer; none complains when it ends."""
    command = ["-m", "worldmodel.cli", "record", SOUP, "--episodes", "2", "--workers", "2", "--horizon", "3"]
    run = subprocess.run(
        [sys.executable, *command, "--behaviour", "expert", "--out", tmp_path], capture_output=True, text=True
    )
    assert run.returncode == 0 and "GLContext" not in run.stderr and "macro" not in run.stderr, run.stderr
    from worldmodel.data import open_episodes

    source = open_episodes(tmp_path)
    assert source.views == ("agentview", "wrist")
    assert (source.fps, source.size, source.robot_type, source.action_dim) == (20, (64, 64), SOUP, 7)
    assert all(source.read(episode, 0, 2).frames.float().std() > 20 for episode in range(2))
    assert source.task(0) == "pick up the alphabet soup and place it in the basket"
