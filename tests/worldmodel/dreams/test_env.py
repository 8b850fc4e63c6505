import gymnasium
import numpy as np
import pytest
import torch
from drawn_episodes import SEEDS, DrawnEpisodes, never
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from tiny import tiny_world

from worldmodel.dreams.env import DreamEnv
from worldmodel.dreams.starts import Starts
from worldmodel.dreams.verdict import Verdict, observed
from worldmodel.streaming.noise import mix_seed
from worldmodel.streaming.state import Observation


def episodes(**options) -> DrawnEpisodes:
    """Four episodes whose pictures are grey 40, 90, 140, 190."""
    grey = options.pop("grey", lambda episode, frame: 40 + 50 * episode + 0 * frame)
    return DrawnEpisodes([5, 6, 7, 8], grey, reset_seeds=SEEDS, **options)


def dream(judge=never, *, num_envs=3, horizon=4, **options) -> DreamEnv:
    world = tiny_world(size=(16, 16), relative_to={})
    return DreamEnv(world, Starts(episodes()), judge, num_envs=num_envs, horizon=horizon, **options)


def grey(observation: dict[str, np.ndarray]) -> list[int]:
    """Mean grey level of each stream's first view."""
    return observation["observation.images.top"].mean((1, 2, 3)).astype(int).tolist()


def test_gymnasium_accepts_the_batch_and_its_wrappers_work():
    envs = dream()
    assert envs.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    wrapped = RecordEpisodeStatistics(envs)
    observation, _ = wrapped.reset(seed=0)
    assert observation["observation.images.wrist"].shape == (3, 16, 16, 3)
    total = np.zeros(3)
    for _ in range(4):
        observation, reward, _, truncated, info = wrapped.step(np.zeros((3, 2)))
        total += reward
        assert observation in envs.observation_space
    assert truncated.all()
    np.testing.assert_allclose(info["episode"]["r"], total, rtol=1e-5)
    assert info["episode"]["l"].tolist() == [4, 4, 4]


def test_streams_begin_from_the_chosen_recorded_frames():
    envs = dream(autoreset_mode=AutoresetMode.DISABLED)
    observation, _ = envs.reset(options={"starts": [2, 0, 3]})
    assert grey(observation) == [140, 40, 190]
    assert observation["observation.state"].tolist() == [[0, 2], [0, 0], [0, 3]]
    mask = np.array([False, True, False])
    later, *_ = envs.step(np.ones((3, 2)))
    observation, _ = envs.reset(options={"starts": [0, 1, 0], "reset_mask": mask})
    assert grey(observation)[1] == 90
    np.testing.assert_array_equal(observation["observation.state"][0], later["observation.state"][0])


def test_a_dream_is_the_world_model_s_rollout_whatever_runs_beside_it():
    envs = dream(autoreset_mode=AutoresetMode.DISABLED, horizon=6)
    actions = np.random.default_rng(0).uniform(0, 1, (3, 3, 2)).astype(np.float32)
    envs.reset(options={"starts": [1, 2, 3]})
    for step in range(3):
        observation, *_ = envs.step(actions[step])
    alone = envs.world.rollout(
        envs.starts.clip([2]), torch.from_numpy(actions[:, 1])[None], seeds=[mix_seed(0, SEEDS[2])]
    )
    seen = observed(observation, ("top", "wrist"))
    assert (seen.frames[1].int() - alone.frames[0, -1].int()).abs().max() <= 1
    torch.testing.assert_close(seen.states[1], alone.states[0, -1], rtol=1e-3, atol=1e-3)


def test_a_seed_decides_on_start_and_noise():
    first, again = dream(), dream(seed=5)
    one, _ = first.reset(seed=10)
    two, _ = again.reset(seed=[12, 11, 10])
    assert grey(one) == grey(two)[::-1]
    one, *_ = first.step(np.zeros((3, 2)))
    two, *_ = again.step(np.zeros((3, 2)))
    np.testing.assert_allclose(one["observation.state"], two["observation.state"][::-1], rtol=1e-3, atol=1e-3)
    other, _ = dream(num_envs=30).reset(seed=0)
    assert set(grey(other)) == {40, 90, 140, 190}


def bright(observation: Observation) -> Verdict:
    """Success for streams whose second state, the episode's number at the start, is near 2 or 3."""
    return Verdict(observation.states[:, 1], observation.states[:, 1] > 1.5)


def still_world():
    """A world in which nothing moves: zero-initialised outputs."""
    return tiny_world(size=(16, 16), relative_to={}, random=False)


def test_success_ends_a_dream_which_then_stands_still():
    envs = DreamEnv(
        still_world(), Starts(episodes()), bright, num_envs=2, horizon=3, autoreset_mode=AutoresetMode.DISABLED
    )
    envs.reset(options={"starts": [0, 3]})
    _, reward, terminated, truncated, info = envs.step(np.zeros((2, 2)))
    assert terminated.tolist() == [False, True] and not truncated.any()
    assert info["success"].tolist() == [False, True]
    np.testing.assert_allclose(reward, [0, 3], atol=0.2)
    _, reward, terminated, truncated, _ = envs.step(np.zeros((2, 2)))
    assert reward[1] == 0 and terminated.tolist() == [False, True]
    _, _, terminated, truncated, _ = envs.step(np.zeros((2, 2)))
    assert terminated.tolist() == [False, True] and truncated.tolist() == [True, False]


def test_a_finished_stream_begins_anew_in_the_same_step():
    envs = DreamEnv(still_world(), Starts(episodes()), bright, num_envs=2, horizon=2)
    envs.reset(options={"starts": [1, 3]})
    observation, _, terminated, _, info = envs.step(np.zeros((2, 2)))
    assert terminated.tolist() == [False, True]
    assert info["_final_obs"].tolist() == [False, True]
    assert info["final_obs"][0] is None
    assert info["final_obs"][1]["observation.state"][1] > 1.5
    assert info["final_info"]["success"].tolist() == [False, True]
    assert observation["observation.state"][1, 0] == 0  # a first frame again
    _, _, terminated, truncated, info = envs.step(np.zeros((2, 2)))
    assert truncated[0] and info["_final_obs"][0]


class Real(gymnasium.Env):
    action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self, size=16):
        picture = gymnasium.spaces.Box(0, 255, (size, size, 3), np.uint8)
        self.observation_space = gymnasium.spaces.Dict(
            {
                "observation.images.top": picture,
                "observation.images.wrist": picture,
                "observation.state": gymnasium.spaces.Box(0, 2, (2,), np.float32),
            }
        )


def test_actions_are_clipped_to_the_spaces_of_the_real_environment():
    small, large = dream(like=Real()), dream(like=Real())
    assert small.single_action_space == Real.action_space
    for envs in (small, large):
        envs.reset(seed=1)
    one, *_ = small.step(np.ones((3, 2)))
    two, *_ = large.step(np.full((3, 2), 7.0))
    np.testing.assert_array_equal(one["observation.state"], two["observation.state"])
    assert one in small.observation_space


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: dream(horizon=0), "horizon are at least 1, got 3 and 0"),
        (lambda: dream(autoreset_mode="SAMESTEP"), "NEXT_STEP, SAME_STEP, DISABLED, got 'SAMESTEP'"),
        (lambda: dream(keys="gymnasium"), "lerobot, gym, render_mode is rgb_array or None, got 'gymnasium'"),
        (lambda: dream(render_mode="human"), "'lerobot' and 'human'"),
        (lambda: dream(like=Real(24)), r"observation.images.top of shape \(24, 24, 3\), the dream \(16, 16, 3\)"),
        (lambda: dream().reset(options={"start": [0]}), r"got \['start'\]"),
        (lambda: dream().reset(options={"starts": [0, 1]}), "got 2 starts for 3 streams"),
        (lambda: dream().reset(options={"starts": [0, 1, 4]}), r"starts \[4\] are not within 0..3"),
        (lambda: dream().reset(seed=[1]), "got 1 seeds for 3 streams"),
        (lambda: dream().reset(options={"reset_mask": np.zeros(3, bool)}), "is true somewhere"),
        (lambda: dream().reset(options={"reset_mask": np.eye(3)[0]}), "the first reset is of all"),
        (lambda: Starts(episodes(), [4]), "episode 4 is not within 0..3"),
        (lambda: Starts(DrawnEpisodes([5, 5], reset_seeds=[3, 3])), r"reset seeds \[3\]"),
        (
            lambda: DreamEnv(tiny_world(size=(16, 16)), Starts(episodes(views=("top",))), never, num_envs=1, horizon=1),
            r"views \('top',\), the world model \('top', 'wrist'\)",
        ),
    ],
)
def test_what_does_not_fit_is_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_episodes_without_reset_seeds_are_starts_by_their_numbers():
    source = DrawnEpisodes([5, 6, 7, 8])
    starts = Starts(source, [3, 1])
    assert (starts.seeds, starts.resettable) == ((3, 1), False)
    assert Starts(episodes(), [3, 1]).seeds == (SEEDS[3], SEEDS[1])
    box = starts.spaces()[1]  # of all episodes, whichever are chosen: frame / 10 + episode
    np.testing.assert_allclose([box.low[0], box.high[0]], [0.0, 3.6], atol=1e-6)


def test_a_judge_reads_the_task_and_may_be_unsure():
    class Told(DrawnEpisodes):
        def task(self, episode):
            return f"push {episode}"

    def judge(observation):
        asked.append(observation.task)
        hidden = torch.tensor([task == "push 1" for task in observation.task])
        return Verdict(torch.ones(2), ~hidden, unsure=hidden)

    asked = []
    envs = DreamEnv(
        tiny_world(size=(16, 16), relative_to={}),
        Starts(Told([5, 6, 7])),
        judge,
        num_envs=2,
        horizon=3,
        autoreset_mode=AutoresetMode.DISABLED,
    )
    envs.reset(options={"starts": [2, 1]})
    *_, info = envs.step(np.zeros((2, 2), np.float32))
    assert asked == [("push 2", "push 1")]
    assert (info["success"].tolist(), info["unsure"].tolist()) == ([True, False], [False, True])
    with pytest.raises(ValueError, match="either a success or unsure"):
        Verdict(torch.ones(1), torch.tensor([True]), unsure=torch.tensor([True]))


def test_actions_must_be_finite_and_one_per_stream():
    envs = dream()
    envs.reset(seed=0)
    for actions in (np.zeros((2, 2)), np.full((3, 2), np.nan)):
        with pytest.raises(ValueError, match=r"finite numbers of the shape \(3, 2\)"):
            envs.step(actions)


def strided(**options) -> tuple[DreamEnv, list[torch.Tensor]]:
    """Dreams of a world of stride 3, and the actions that it is told."""
    world = tiny_world(size=(16, 16), relative_to={}, stride=3)
    envs = DreamEnv(world, Starts(episodes()), never, num_envs=2, horizon=4, **options)
    envs.reset(seed=0)
    told, step = [], envs._stream.step

    def telling(actions, **settings):
        told.append(actions)
        return step(actions, **settings)

    envs._stream.step = telling
    return envs, told


def test_an_action_is_held_over_the_stride():
    envs, told = strided()
    assert envs.single_action_space.shape == (2,)
    assert envs.metadata["render_fps"] == pytest.approx(10 / 3)
    actions = envs.action_space.sample()
    envs.step(actions)
    assert torch.equal(told[0], torch.from_numpy(np.tile(actions, 3)))


def test_a_step_may_take_all_actions_of_the_stride():
    envs, told = strided(actions="chunk")
    assert envs.single_action_space.shape == (6,)
    np.testing.assert_array_equal(envs.single_action_space.high[:2], envs.single_action_space.high[2:4])
    actions = envs.action_space.sample()
    observation, *_ = envs.step(actions)
    assert torch.equal(told[0], torch.from_numpy(actions))
    assert observation["observation.state"].shape == (2, 2)
