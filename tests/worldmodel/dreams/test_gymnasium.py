"""The dream under Gymnasium's own names, beside Gymnasium's own vector environment, and in its wrappers."""

import gymnasium
import numpy as np
import pytest
from drawn_episodes import SEEDS, DrawnEpisodes, TellingWorld
from drawn_episodes import tiny_world as fresh_world
from gymnasium import wrappers
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from worldmodel.dreams.env import DreamEnv
from worldmodel.dreams.spaces import stretched
from worldmodel.dreams.starts import Starts
from worldmodel.dreams.verdict import Verdict
from worldmodel.streaming.state import Observation

DREAM = "worldmodel.dreams:worldmodel/Dream-v0"
TOP, STATE = "observation.images.top", "observation.state"


def telling(views=("top",)) -> TellingWorld:
    """A world in which every frame is brighter by the first dim of the action, whoever dreams beside it."""
    return TellingWorld(fresh_world(views=views, relative=False).config).eval()


def episodes(views=("top",)) -> DrawnEpisodes:
    """Pictures of grey 40, 90, 140, 190; actions within 0..6.6."""
    return DrawnEpisodes(
        [5, 6, 7, 8],
        lambda episode, frame: 40 + 50 * episode + 0 * frame,
        action=lambda episode, frame: frame + 0.2 * episode,
        reset_seeds=SEEDS,
        views=views,
    )


def bright(observation: Observation) -> Verdict:
    """Success in pictures brighter than 150; the judge is not sure just below."""
    grey = observation.frames.float().mean((1, 2, 3, 4))
    return Verdict(grey / 255, grey > 150, unsure=(grey > 145) & (grey <= 150))


def parts(**options) -> dict:
    return {"world": telling(), "data": episodes(), "judge": bright, "horizon": 4, **options}


def single(**options) -> gymnasium.Env:
    return gymnasium.make(DREAM, disable_env_checker=True, **parts(**options))


def assert_same(ours: object, theirs: object) -> None:
    """Equal, at any depth of dictionaries."""
    if isinstance(theirs, dict):
        assert set(ours) == set(theirs), (set(ours), set(theirs))
        for name in theirs:
            assert_same(ours[name], theirs[name])
    elif isinstance(theirs, tuple) or (isinstance(theirs, np.ndarray) and theirs.dtype == object):
        assert type(ours) is type(theirs) and len(ours) == len(theirs)
        for mine, other in zip(ours, theirs, strict=True):
            assert_same(mine, other)
    else:
        assert getattr(ours, "dtype", None) == getattr(theirs, "dtype", None)
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_the_batch_does_what_gymnasium_does_with_single_dreams(mode):
    ours = gymnasium.make_vec(DREAM, num_envs=2, autoreset_mode=mode.value, **parts(horizon=2))
    theirs = SyncVectorEnv([lambda: single(horizon=2)] * 2, autoreset_mode=mode)
    assert ours.single_observation_space == theirs.single_observation_space
    assert ours.action_space == theirs.action_space
    assert_same(ours.reset(seed=3), theirs.reset(seed=3))
    rng, ends = np.random.default_rng(0), np.zeros(2, int)
    for _ in range(8):
        actions = rng.uniform(-1, 1, (2, 2)).astype(np.float32)
        mine = ours.step(actions)
        assert_same(mine, theirs.step(actions))
        over = mine[2] | mine[3]
        ends += mine[2].sum(), mine[3].sum()
        if mode is AutoresetMode.DISABLED and over.any():
            again = [envs.reset(options={"reset_mask": over.copy()}) for envs in (ours, theirs)]
            assert_same(*again)
    assert (ends >= 2).all()  # some by success, some by the horizon


def test_a_stream_that_begins_anew_in_the_next_step_ignores_its_action():
    envs = gymnasium.make_vec(DREAM, num_envs=1, autoreset_mode="NEXT_STEP", **parts(horizon=1))
    envs.reset(options={"starts": [0]})
    *_, truncated, info = envs.step(np.ones((1, 2)))
    assert truncated.all() and "final_obs" not in info
    observation, reward, terminated, truncated, _ = envs.step(np.ones((1, 2)))
    assert observation[TOP][0, 0, 0, 0] in (40, 90, 140, 190)
    assert reward[0] == 0 and not terminated.any() and not truncated.any()


def test_the_name_is_known_where_the_package_is_imported():
    assert gymnasium.spec("worldmodel/Dream-v0").entry_point == "worldmodel.dreams.single:Dream"
    env = gymnasium.make("worldmodel/Dream-v0", **parts(horizon=None))
    assert isinstance(gymnasium.make_vec("worldmodel/Dream-v0", **parts()), DreamEnv)
    assert env.unwrapped.envs.horizon == 7  # the longest episode has 8 frames
    assert gymnasium.make("worldmodel/Dream-v0", **parts(horizon=None, episodes=[0, 1])).unwrapped.envs.horizon == 5


@pytest.mark.filterwarnings("ignore:.*infinity.*")
@pytest.mark.filterwarnings("error")
def test_gymnasium_accepts_a_single_dream():
    env = gymnasium.make(DREAM, **parts())
    check_env(env.unwrapped)
    env.reset(seed=0)
    for _ in range(4):
        info = env.step(env.action_space.sample())[4]
    assert set(info) >= {"success", "is_success"} and type(info["success"]) is bool


def test_a_start_may_be_chosen_in_a_single_dream():
    env = single()
    assert env.reset(options={"start": 2})[0][TOP][0, 0, 0] == 140
    with pytest.raises(ValueError, match=r"has the option start, got \['starts'\]"):
        env.reset(options={"starts": [2]})
    with pytest.raises(ValueError, match="has no num_envs"):
        single(num_envs=2)


def test_actions_within_one_are_stretched_to_the_bounds_of_the_data():
    envs = gymnasium.make_vec(DREAM, num_envs=3, **parts(horizon=9))
    assert envs.single_action_space == gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    np.testing.assert_allclose(envs.metadata["action_low"], [0, 0])
    np.testing.assert_allclose(envs.metadata["action_high"], [6.6, 6.6], rtol=1e-6)
    envs.reset(options={"starts": [0, 0, 0]})
    actions = np.array([[-1, 0], [0.5, 0], [9, 0]], np.float32)
    observation, *_ = envs.step(actions)
    assert observation[TOP][:, 0, 0, 0].tolist() == [40, 45, 47]  # by 0, 4.95 and 6.6
    raw = gymnasium.make_vec(DREAM, num_envs=3, normalise_actions=False, **parts(horizon=9))
    np.testing.assert_allclose(raw.single_action_space.high, [6.6, 6.6], rtol=1e-6)
    raw.reset(options={"starts": [0, 0, 0]})
    again, *_ = raw.step(stretched(actions.clip(-1, 1), envs.action_low, envs.action_high))
    assert_same(again, observation)
    assert DreamEnv(telling(), Starts(episodes()), bright, num_envs=1, horizon=1).single_action_space.high[0] > 6


def test_actions_without_bounds_cannot_be_normalised():
    like = single(normalise_actions=False)
    like.unwrapped.action_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    with pytest.raises(ValueError, match="drawn: normalise_actions needs actions with bounds"):
        single(like=like)


def test_observations_may_have_the_names_of_gym_environments():
    one = gymnasium.make_vec(DREAM, num_envs=2, keys="gym", **parts(horizon=1))
    observation, _ = one.reset(options={"starts": [1, 3]})
    assert observation in one.observation_space
    assert observation["pixels"].shape == (2, 16, 16, 3) and observation["pixels"][1, 0, 0, 0] == 190
    assert observation["agent_pos"].tolist() == [[0, 1], [0, 3]]
    *_, info = one.step(np.zeros((2, 2)))
    assert set(info["final_obs"][0]) == {"pixels", "agent_pos"}
    views = ("top", "wrist")
    env = single(keys="gym", world=telling(views), data=episodes(views))
    observation, _ = env.reset(seed=0)
    assert observation in env.observation_space and list(observation["pixels"]) == ["top", "wrist"]


def test_a_picture_of_each_stream_is_rendered():
    views = ("top", "wrist")
    envs = gymnasium.make_vec(DREAM, num_envs=2, **parts(world=telling(views), data=episodes(views)))
    envs.reset(options={"starts": [0, 2]})
    pictures = envs.render()
    assert [picture.shape for picture in pictures] == [(16, 32, 3)] * 2 and pictures[1].mean() == 140
    assert single(render_mode=None).unwrapped.render() is None


def test_wrappers_of_gymnasium_work_on_a_single_dream():
    env = wrappers.RecordEpisodeStatistics(wrappers.TimeLimit(single(), 3))
    env = wrappers.FlattenObservation(wrappers.FilterObservation(env, [STATE]))
    env = wrappers.NormalizeReward(wrappers.FrameStackObservation(env, 2))
    observation, _ = env.reset(seed=0, options={"start": 0})
    assert observation.shape == (2, 2)
    for _ in range(3):
        *_, truncated, info = env.step(np.zeros(2, np.float32))
    assert truncated and info["episode"]["l"] == 3


@pytest.mark.parametrize("mode", ["NextStep", "SAME_STEP"])
def test_wrappers_of_gymnasium_work_on_many_dreams(mode):
    envs = gymnasium.make_vec(DREAM, num_envs=2, autoreset_mode=mode, **parts())
    envs = wrappers.vector.RecordEpisodeStatistics(wrappers.vector.NormalizeReward(envs))
    envs.reset(options={"starts": [0, 0]})
    for _ in range(4):
        *_, truncated, info = envs.step(np.full((2, 2), -1))
    assert truncated.all() and info["episode"]["l"].tolist() == [4, 4]


def test_parts_may_be_folders_and_names(tmp_path, monkeypatch):
    pytest.importorskip("policy_eval.judge.find", reason="judges cannot be found by name yet")
    telling().save(tmp_path / "world")
    (tmp_path / "my_judge.py").write_text(
        "import torch\nfrom worldmodel import Verdict\n"
        "def harsh(observation):\n"
        "    n = len(observation.frames)\n"
        "    return Verdict(torch.full((n,), 7.0), torch.zeros(n, dtype=torch.bool))\n"
    )
    monkeypatch.chdir(tmp_path)
    env = single(world=tmp_path / "world", judge="my_judge:harsh", data=Starts(episodes(), [2]))
    env.reset(seed=0)
    assert env.step(np.zeros(2, np.float32))[1] == 7.0
    with pytest.raises(ValueError, match="episodes must be left out"):
        single(data=Starts(episodes(), [2]), episodes=[1])
    with pytest.raises(ValueError, match="missing"):
        single(data=tmp_path / "nowhere")


def test_a_seed_of_none_goes_on_with_the_generator_of_the_stream():
    def starts(*seeds):
        envs = gymnasium.make_vec(DREAM, num_envs=2, **parts())
        return [envs.reset(seed=seed)[0][TOP][:, 0, 0, 0].tolist() for seed in seeds]

    assert starts(3, None, None) == starts([3, 4], [None, None], None)
    assert len({tuple(row) for row in starts(3, *[None] * 9)}) > 3
