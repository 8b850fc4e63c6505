import dataclasses
import itertools

import numpy as np
import pyarrow.parquet as pq
import pytest

from worldmodel.data import open_episodes
from worldmodel.envs import make_env

try:
    from worldmodel.envs.metaworld.env import MetaWorld
except ValueError as error:  # it names the package that is missing
    pytest.skip(str(error), allow_module_level=True)

from worldmodel.envs.metaworld.expert import with_noise
from worldmodel.envs.record import RecordConfig, prepare, record, record_episode, simulate_episode
from worldmodel.envs.scripts import behave

pytestmark = pytest.mark.slow

TASKS = ("reach", "drawer-open", "button-press-topdown", "window-open", "door-open")


def blind(task: str) -> MetaWorld:
    """An environment that draws nothing: the scripts do not look."""
    env = make_env(f"metaworld:{task}-v3")
    env.get_obs = dict
    return env


@pytest.fixture(scope="module")
def push() -> MetaWorld:
    return blind("push")


def run(env: MetaWorld, behaviour: str, seed: int) -> tuple[np.ndarray, np.ndarray, list[bool]]:
    """Actions, the object's positions and successes of an episode."""
    env.reset(seed=seed)
    actions, positions, successes = [], [], []
    script = behave(behaviour, env, np.random.default_rng(seed))
    for action in itertools.islice(script, env.episode_steps(behaviour)):
        actions.append(action)
        successes.append(env.step(action)[4]["success"])
        positions.append(env.object_position)
    return np.array(actions), np.array(positions), successes


def test_expert_pushes_the_puck_to_the_goal(push):
    for seed in range(4):
        actions, _, successes = run(push, "expert", seed)
        assert len(actions) == 30
        assert successes[-1]
        assert np.linalg.norm(push.object_position - push.goal_position) < 0.05


@pytest.mark.parametrize("task", TASKS)
def test_experts_solve_the_other_tasks(task):
    assert any(run(blind(task), "expert", 0)[2])


def test_noise_has_many_sizes():
    sigmas = []
    for seed in range(40):
        noisy = with_noise(itertools.repeat(np.zeros(4)), np.random.default_rng(seed))
        sigmas.append(np.std(list(itertools.islice(noisy, 50))))
    assert 0.04 < min(sigmas) < 0.1
    assert 0.3 < max(sigmas) < 0.55


def test_play_moves_the_puck_and_keeps_it_in_the_picture(push):
    moved = []
    for seed in range(4):
        actions, positions, _ = run(push, "play", seed)
        assert len(actions) == 60
        moved.append((np.linalg.norm(np.diff(positions, axis=0), axis=1) > 2e-3).mean())
        assert np.abs(positions[:, 0]).max() < 0.35
        assert 0.35 < positions[:, 1].min() < positions[:, 1].max() < 1.0
    assert np.mean(moved) > 0.3


@pytest.mark.parametrize("behaviour", ["expert", "noisy", "play"])
def test_behaviours_are_functions_of_the_seed(push, behaviour):
    first, second = (run(push, behaviour, 5)[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert np.abs(first).max() <= 1


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> RecordConfig:
    folder = tmp_path_factory.mktemp("recorded") / "set"
    return RecordConfig(
        env="metaworld:push-v3",
        out=folder,
        episodes=2,
        seed=4,
        behaviour="expert",
        size=32,
        shift="start-region",
        workers=1,
    )


@pytest.fixture(scope="module")
def recorded(config):
    return record(config)


def test_recording_is_a_lerobot_data_set(recorded):
    source = open_episodes(recorded)
    assert source.views == ("scene", "wrist")
    assert (source.fps, source.size, source.robot_type) == (16, (32, 32), "metaworld:push-v3")
    assert (source.action_dim, source.state_dim, list(source.lengths)) == (4, 4, [30, 30])
    assert [source.reset_seed(episode) for episode in range(2)] == [400000, 400001]
    (file,) = recorded.glob("meta/episodes/*/*.parquet")
    assert pq.read_table(file).to_pydict()["shift"] == ["start-region"] * 2
    assert source.task(0) == "Push the puck to the green goal."


def test_rewards_and_successes_are_recorded(recorded):
    (file,) = recorded.glob("data/*/*.parquet")
    rows = pq.read_table(file).to_pydict()
    rewards, successes = (np.array(rows[f"next.{name}"]) for name in ("reward", "success"))
    assert successes[29]
    assert not successes[0]
    assert (rewards[successes] == 10).all(), "Meta-World's reward of a success"
    assert (rewards[~successes] < 10).all()


def test_an_episode_starts_where_its_reset_seed_says(config, recorded):
    source = open_episodes(recorded)
    env = make_env("metaworld:push-v3", size=32, shift="start-region")
    for episode in range(2):
        observation, _ = env.reset(seed=source.reset_seed(episode))
        clip = source.read(episode, 0, 1)
        np.testing.assert_array_equal(clip.states[0], observation["observation.state"])
        for index, view in enumerate(source.views):
            shown = observation[f"observation.images.{view}"].astype(float)
            assert np.square(clip.frames[0, index].numpy() - shown).mean() < 12


def test_an_interrupted_recording_is_resumed_with_the_same_data(config, recorded, tmp_path):
    """libx264 does not give the same bytes for pictures this small on a busy machine: some levels of grey."""
    resumed = dataclasses.replace(config, out=tmp_path / "set")
    prepare(resumed)
    record_episode(resumed, 1)
    simulate_episode(resumed, 77)  # what was simulated before does not matter
    record(resumed)
    for file in recorded.rglob("data/*/*.parquet"):
        assert (resumed.out / file.relative_to(recorded)).read_bytes() == file.read_bytes()
    one, two = open_episodes(recorded), open_episodes(resumed.out)
    for episode in range(2):
        pair = [source.read(episode, 0, source.lengths[episode]).frames.int() for source in (one, two)]
        assert (pair[0] - pair[1]).abs().max() < 32
