"""Dreams on a server as Gymnasium environments: bit for bit those of `DreamEnv` at the same batch size."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import gymnasium
import numpy as np
import pytest
from drawn_episodes import never
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from places import ROOT
from served import served, small_world, starts

import worldmodel
from worldmodel.dreams.env import DreamEnv
from worldmodel.dreams.verdict import Verdict
from worldmodel.wire.server import Door, serving

WORLD = small_world()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served(WORLD, never, starts(), batch=4) as address:
        yield address


def dream_env(number: int = 4, judge=never) -> DreamEnv:
    mode = AutoresetMode.DISABLED
    return DreamEnv(WORLD, starts(), judge, num_envs=number, horizon=10**6, autoreset_mode=mode)


def assert_equal(mine: dict, theirs: dict, place: int | None = None) -> None:
    assert set(mine) == set(theirs)
    for name, value in mine.items():
        np.testing.assert_array_equal(value, theirs[name] if place is None else theirs[name][place], err_msg=name)


def four_sessions(url: str, steps: int) -> None:
    """Four connections, whose steps meet by chance, against one `DreamEnv`."""
    local, remote = dream_env(), [worldmodel.connect(url) for _ in range(4)]
    first, _ = local.reset(seed=5)
    actions = np.random.default_rng(0).uniform(-1, 5, (steps, 4, 2)).astype(np.float32)
    told = [local.step(action) for action in actions]
    for place, env in enumerate(remote):  # one after the other, so that they have the rows in this order
        assert_equal(env.reset(seed=5 + place)[0], first, place)

    def drive(place: int) -> None:
        for step, (observation, rewards, *_) in enumerate(told):
            seen, reward, terminated, truncated, _ = remote[place].step(actions[step, place])
            assert_equal(seen, observation, place)
            assert reward == rewards[place] and not terminated and not truncated

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(drive, range(4)))
    for env in remote:
        env.close()


def test_four_sessions_are_four_dreams_of_dream_env_bit_for_bit(url):
    four_sessions(url, 8)


@pytest.mark.slow
def test_they_are_after_200_steps(url):
    four_sessions(url, 200)


def test_who_else_is_there_does_not_matter(url):
    """A session alone in its batch, one among others that come and go, and one in another place by rounding."""
    actions = np.random.default_rng(1).uniform(0, 3, (6, 2)).astype(np.float32)

    def film(other_at: int | None) -> list[np.ndarray]:
        env, frames = worldmodel.connect(url), []
        env.reset(options={"start": 2})
        for index, action in enumerate(actions):
            if index == other_at:
                other = worldmodel.connect(url, num_envs=2)
                other.reset(seed=0)
            if other_at is not None and index > other_at:
                other.step(np.ones((2, 2)))
            frames.append(env.step(action)[0]["observation.images.top"])
        if other_at is not None:
            other.close()
        env.close()
        return frames

    np.testing.assert_array_equal(film(None), film(1))


@pytest.mark.filterwarnings("ignore:.*(infinity|render|Box|close).*")
def test_gymnasium_accepts_a_remote_dream(url):
    env = worldmodel.connect(url, horizon=5)
    check_env(env, skip_render_check=True, skip_close_check=True)
    assert env.metadata["render_fps"] == 10.0 and env.render().shape == (16, 32, 3)
    env.close()


def test_a_horizon_truncates_and_a_seed_repeats(url):
    env = worldmodel.connect(url, horizon=2)
    first, _ = env.reset(seed=3)
    ended = [env.step(env.action_space.low)[3] for _ in range(2)]
    assert ended == [False, True]
    again, _ = env.reset(seed=3)
    assert_equal(first, again)
    draws = {int(env.reset()[0]["observation.images.top"].mean()) for _ in range(12)}
    assert len(draws) > 1
    env.close()


def close(observation) -> Verdict:
    """Success where the second state, the episode's number at the start, is near 2 or 3; the reward is that state."""
    return Verdict(observation.states[:, 1], observation.states[:, 1] > 1.5)


def test_success_terminates_and_a_finished_stream_stands_still():
    still = small_world(random=False)
    with served(still, close, starts(), batch=4) as url:
        env = worldmodel.connect(url)
        env.reset(options={"start": 3})
        _, reward, terminated, _, info = env.step(np.zeros(2))
        assert terminated and info["success"] and info["is_success"] and reward > 1.5
        env.close()
        envs = worldmodel.connect(url, num_envs=2, horizon=2)
        envs.reset(options={"starts": [0, 3]})
        _, reward, terminated, truncated, info = envs.step(np.zeros((2, 2)))
        assert terminated.tolist() == [False, True] == info["success"].tolist()
        shown, reward, terminated, truncated, _ = envs.step(np.ones((2, 2)))
        assert reward[1] == 0 and terminated.tolist() == [False, True] and truncated.tolist() == [True, False]
        fresh, _ = envs.reset(options={"starts": [1, 1], "reset_mask": [True, False]})
        assert (fresh["observation.images.top"][0] == 90).all()
        np.testing.assert_array_equal(fresh["observation.images.top"][1], shown["observation.images.top"][1])
        envs.close()


def test_snapshots_branches_and_rolls(url):
    env = worldmodel.connect(url)
    env.reset(options={"start": 1, "noise": 4})
    before, *_ = env.step(np.ones(2))
    saved = env.snapshot()
    after, *_ = env.step(np.array([3.0, 0.0]))
    assert_equal(env.restore(saved), before)
    branch = env.branch()
    assert_equal(env.step(np.array([3.0, 0.0]))[0], after)
    actions = np.array([[3.0, 0.0], [0.0, 3.0]], np.float32)
    rolled = branch.roll(actions)
    assert rolled["observation"]["observation.images.top"].shape == (2, 16, 16, 3) and rolled["reward"].shape == (2,)
    difference = rolled["observation"]["observation.images.top"][0].astype(int) - after["observation.images.top"]
    assert np.abs(difference).max() <= 2
    assert_equal(branch._first(), {name: value[-1] for name, value in rolled["observation"].items()})
    env.forget(saved)
    with pytest.raises(ValueError, match="there is no snapshot"):
        env.restore(saved)
    branch.close()
    assert env.step(np.ones(2))[0]["observation.images.top"].shape == (16, 16, 3)
    env.close()


def test_a_vector_of_dreams_is_dream_env(url):
    envs, local = worldmodel.connect(url, num_envs=4), dream_env()
    assert isinstance(envs, gymnasium.vector.VectorEnv) and envs.action_space == local.action_space
    assert_equal(envs.reset(seed=9)[0], local.reset(seed=9)[0])
    for _ in range(3):
        action = local.action_space.sample()
        mine, theirs = envs.step(action), local.step(action)
        assert_equal(mine[0], theirs[0])
        np.testing.assert_array_equal(mine[1], theirs[1])
    two = worldmodel.connect(url, num_envs=2)
    two.reset(options={"starts": [2, 0]})
    branches = two.branch(2)
    shown = branches.dreams.observation["observation.images.top"]
    assert shown[:, 0, 0, 0].tolist() == [140, 140, 40, 40] and branches.num_envs == 4
    for env in (envs, two, branches):
        env.close()


def test_frames_of_a_vector_can_be_sent_as_files(url):
    raw, png = (worldmodel.connect(url, num_envs=2, pictures=form) for form in ("raw", "png"))
    for envs in (raw, png):
        envs.reset(options={"starts": [0, 1]})
    difference = raw.step(np.ones((2, 2)))[0]["observation.images.top"].astype(int)
    difference -= png.step(np.ones((2, 2)))[0]["observation.images.top"]
    assert np.abs(difference).max() <= 2  # the rows are others
    branch = png.branch()
    assert branch.step(np.ones((2, 2)))[0]["observation.images.top"].shape == (2, 16, 16, 3)
    for envs in (raw, branch, png):
        envs.close()


def test_a_dream_from_pictures_of_the_visitor(url):
    env = worldmodel.connect(url)
    given = {f"observation.images.{view}": np.full((16, 16, 3), 33, np.uint8) for view in ("top", "wrist")}
    given |= {"observation.state": np.array([1.0, 2.0], np.float32)}
    seen, info = env.reset(options={"observation": given | {"task": "push"}})
    assert_equal(seen, given)
    assert info["task"] == "push"
    env.close()


def test_what_does_not_fit_is_one_line(url):
    env = worldmodel.connect(url)
    with pytest.raises(ValueError, match="reset comes before step"):
        env.step(np.zeros(2))
    with pytest.raises(ValueError, match="reset has the options start, noise, observation, got 'starts'"):
        env.reset(options={"starts": [0]})
    with pytest.raises(ValueError, match=r"starts is a whole number within 0\.\.3, got 7"):
        env.reset(options={"start": 7})
    with pytest.raises(ValueError, match="the option noise goes with start"):
        env.reset(options={"noise": 7})
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"action has 2 numbers for each action, got 3"):
        env.step(np.zeros(3))
    env.close()
    with pytest.raises(ConnectionError, match="there is no server"):
        worldmodel.connect("ws://127.0.0.1:9")
    with pytest.raises(ValueError, match="is not the address of a server"):
        worldmodel.connect("127.0.0.1:8000")
    with (
        served(token="x") as closed,
        pytest.raises(ValueError, match=r"refuses \(401\): the token is missing or wrong"),
    ):
        worldmodel.connect(closed, token="y")
    envs = worldmodel.connect(url, num_envs=2)
    with pytest.raises(ValueError, match="got 1 seeds for 2 streams"):
        envs.reset(seed=[1])
    with pytest.raises(ValueError, match="the first reset is of all streams"):
        envs.reset(options={"reset_mask": [True, False]})
    envs.close()


class Policy:
    """A host of something else than dreams."""

    def enter(self) -> "Policy":
        return self

    async def run(self) -> None:
        """Nothing goes on beside."""

    def error(self, message: str) -> str:
        return message

    def hello(self) -> dict:
        return {"policy": "p"}

    async def answer(self, message: object) -> dict:
        return {}

    def leave(self) -> None:
        """Nothing."""


def test_a_server_of_policies_is_no_server_of_dreams():
    with (
        serving(Policy(), Door("127.0.0.1", 0)) as url,
        pytest.raises(ValueError, match="this server does not serve dreams"),
    ):
        worldmodel.connect(url)


def test_a_server_that_is_gone_is_a_connection_error():
    with served() as url:
        env = worldmodel.connect(url)
        env.reset(seed=0)
    with pytest.raises(ConnectionError, match="the connection is closed"):
        env.step(np.zeros(2))


@pytest.mark.slow
def test_a_client_does_not_import_torch():
    code = "import sys, worldmodel; worldmodel.connect; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
