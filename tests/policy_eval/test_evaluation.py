import json
from functools import partial

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from square_world import SquareEnv, write_episodes
from tiny import tiny_world

from policy_eval.evaluation import Fault, evaluate
from policy_eval.policies.policy import AgentPolicy, CallablePolicy, Policy
from policy_eval.policies.remote import Unreachable
from policy_eval.real_envs import RealEnvs, largest_difference
from policy_eval.scores import Scores
from worldmodel.data import open_episodes
from worldmodel.dreams.env import DreamEnv
from worldmodel.dreams.starts import Starts
from worldmodel.dreams.verdict import Verdict


@pytest.fixture(scope="module")
def starts(tmp_path_factory) -> Starts:
    return Starts(open_episodes(write_episodes(tmp_path_factory.mktemp("square") / "data", 5)))


def move(x: float) -> CallablePolicy:
    return CallablePolicy(lambda seen: seen["observation.state"] + torch.tensor([x, 0.0]))


def scores(**change) -> Scores:
    columns = {
        "policy": "one",
        "seeds": np.array([4, 7]),
        "outcomes": np.array([0.0, 1.0]),
        "returns": np.array([0.5, 2.0]),
        "steps": np.array([9, 3]),
    }
    return Scores(**(columns | change))


def test_scores_survive_json():
    one = scores()
    again = Scores.from_json(json.loads(json.dumps(one.to_json())))
    assert again.to_json() == one.to_json()
    assert (again.mean, len(again), again.seeds.dtype) == (0.5, 2, np.int64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": np.array([4])}, "'seeds': 1, 'outcomes': 2"),
        ({"seeds": np.array([4, 4])}, r"seeds \[4\] occur more than once"),
        ({"outcomes": np.array([0.0, 1.5])}, "outcomes are 0 to 1, got 0.0 to 1.5"),
        ({"returns": np.array([0.0, np.inf])}, "returns are not all finite"),
        ({"steps": np.array([0, 1])}, "steps are at least 1, got 0"),
    ],
)
def test_wrong_scores_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        scores(**change)


def test_scores_with_a_missing_field_are_refused():
    values = scores().to_json()
    del values["steps"]
    with pytest.raises(ValueError, match="have the fields"):
        Scores.from_json(values)


def test_real_trials_are_those_of_the_simulator(starts):
    """The square moves 2 a step, so success comes after ceil((10 - x) / 2) steps."""
    envs = RealEnvs(SquareEnv, starts, num_envs=2)
    done, trials = [], []
    result = evaluate(move(2.0), envs, name="right", horizon=6, record=trials.append, progress=done.append)
    first = starts.states[:, 0].numpy()
    expected = np.ceil((10 - first) / 2).astype(int)
    assert result.seeds.tolist() == [100, 101, 102, 103, 104]
    assert result.outcomes.tolist() == [1.0] * 5
    assert result.steps.tolist() == expected.tolist()
    returns = [sum((x + 2 * i) / 10 for i in range(1, n + 1)) for x, n in zip(first, expected)]  # noqa: B905
    np.testing.assert_allclose(result.returns, returns, rtol=1e-5)
    assert done == [2, 2, 1]
    assert [trial.seed for trial in trials] == result.seeds.tolist()
    assert [len(trial.frames) for trial in trials] == (expected + 1).tolist()
    assert trials[0].actions.shape == (expected[0], 2)
    np.testing.assert_allclose(trials[3].frames[0], starts.frames[3], atol=20)


def test_too_slow_a_policy_fails_and_some_starts_can_be_chosen(starts):
    envs = RealEnvs(SquareEnv, starts, num_envs=3)
    result = evaluate(move(0.1), envs, starts=[4, 1], horizon=4)
    assert result.seeds.tolist() == [104, 101]
    assert result.outcomes.tolist() == [0.0, 0.0] and result.steps.tolist() == [4, 4]


def test_the_same_function_evaluates_in_a_dream(starts):
    """In a world where nothing moves, a judge who likes low squares finds the same ones at once."""

    def low(observation):
        return Verdict(observation.states[:, 1], observation.states[:, 1] > 5)

    world = tiny_world(size=(16, 16), relative_to={}, random=False)
    envs = DreamEnv(world, starts, low, num_envs=2, horizon=9, like=SquareEnv(), autoreset_mode=AutoresetMode.DISABLED)
    result = evaluate(move(2.0), envs, horizon=3)
    expected = (starts.states[:, 1] > 5).double().numpy()
    assert 0 < expected.sum() < 5
    assert result.outcomes.tolist() == expected.tolist()
    assert result.steps.tolist() == np.where(expected == 1, 1, 3).tolist()


class Falling(SquareEnv):
    """Falls off, which is a failure, after as many steps as x began with; success has another name."""

    limit = 99

    def reset(self, *, seed=None, options=None):
        observation, info = super().reset(seed=seed, options=options)
        self.left, self.steps = int(self.state[0]) + 1, 0
        return observation, info

    def step(self, action):
        assert self.left, "stepped on after the end"
        observation, reward, solved, _, _ = super().step(action)
        self.left, self.steps = self.left - 1, self.steps + 1
        return observation, reward, not self.left, self.steps >= self.limit, {"is_success": solved}


def test_an_environment_that_terminates_without_success_ends_a_failed_trial(starts):
    """From x = 5 the goal is reached in 3 of 6 steps, from x = 0 one step is not enough."""
    envs = RealEnvs(Falling, starts, num_envs=3)
    trials = []
    result = evaluate(move(2.0), envs, horizon=9, record=trials.append)
    first = starts.states[:, 0].numpy()
    needed, allowed = np.ceil((10 - first) / 2), first + 1
    assert {0.0, 1.0} == set(result.outcomes)
    assert result.outcomes.tolist() == (needed <= allowed).astype(float).tolist()
    assert result.steps.tolist() == np.minimum(needed, allowed).tolist()
    assert [len(trial.actions) for trial in trials] == result.steps.tolist()


def test_a_truncated_trial_counts_no_idle_steps(starts):
    class Short(Falling):
        limit = 1

    result = evaluate(move(2.0), RealEnvs(Short, starts, num_envs=5), horizon=9)
    assert result.outcomes.sum() == 0 and result.steps.tolist() == [1] * 5


def test_a_simulator_without_a_camera_or_the_state_is_named(starts):
    class Less(SquareEnv):
        def __init__(self, missing):
            self.missing = missing
            self.observation_space = gymnasium.spaces.Dict(self.less(SquareEnv.observation_space))

        def observe(self):
            return self.less(super().observe())

        def less(self, values):
            return {key: value for key, value in values.items() if key != self.missing}

    for missing, message in (
        (
            "observation.images.wrist",
            r"episode 0: there is a camera wrist, the simulator shows \['observation.images.top', ",
        ),
        (
            "observation.state",
            r"episode 0: there is an observation.state, the simulator shows \['observation.images.top', ",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            RealEnvs(partial(Less, missing), starts, num_envs=1).reset(options={"starts": [0]})


def test_a_judge_takes_the_place_of_the_environment(starts):
    def never(observation):
        number = len(observation.frames)
        return Verdict(torch.ones(number), torch.zeros(number, dtype=torch.bool))

    envs = RealEnvs(SquareEnv, starts, num_envs=5)
    result = evaluate(move(2.0), envs, horizon=6, judge=never)
    assert result.outcomes.sum() == 0 and result.returns.tolist() == [6.0] * 5


def test_nothing_is_rewarded_after_a_success(starts):
    """Each step is worth 1; the judge calls those a success whose square is low, at once, and never the others."""

    def low(observation):
        return Verdict(torch.ones(len(observation.frames)), observation.states[:, 1] > 5)

    solved = (starts.states[:, 1] > 5).numpy()
    assert 0 < solved.sum() < 5
    result = evaluate(move(0.0), RealEnvs(SquareEnv, starts, num_envs=5), horizon=4, judge=low)
    assert result.returns.tolist() == result.steps.tolist() == np.where(solved, 1, 4).tolist()


def test_actions_are_cut_to_their_space(starts):
    """Squares are told to go to x + 20; the space ends at 12."""
    trials = []
    evaluate(move(20.0), RealEnvs(SquareEnv, starts, num_envs=5), horizon=2, record=trials.append)
    assert all((trial.actions[:, 0] == 12).all() for trial in trials)


def test_another_start_than_the_stored_one_is_refused(starts):
    class Elsewhere(SquareEnv):
        def reset(self, *, seed=None, options=None):
            return super().reset(seed=seed + 1, options=options)

    class Moved(SquareEnv):
        def reset(self, *, seed=None, options=None):
            observation, info = super().reset(seed=seed, options=options)
            return observation | {"observation.state": self.state + 0.01}, info

    for make, message in ((Elsewhere, "does not begin with the stored frame"), (Moved, "state is")):
        with pytest.raises(ValueError, match=f"episode 0.*{message}"):
            RealEnvs(make, starts, num_envs=1).reset(options={"starts": [0]})


def test_pictures_differ_by_their_most_different_part():
    one, two = np.zeros((2, 16, 16, 3), np.uint8)
    two[:2, :2] = 40
    assert largest_difference(one, two) == 40


class Agent:
    """Says the state it sees, and how often it was asked before."""

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        state = 0 if state is None else state
        self.starts = episode_start
        return observation["state"] + state, state + 1


def test_a_gymnasium_agent_is_a_policy():
    agent = Agent()
    policy = AgentPolicy(agent, keys=lambda key: key.removeprefix("observation."))
    assert isinstance(policy, Policy)
    policy.reset([1, 2])
    seen = {"observation.state": torch.tensor([[1.0], [2.0]])}
    assert policy.act(seen).tolist() == [[1.0], [2.0]] and agent.starts.all()
    assert policy.act(seen).tolist() == [[2.0], [3.0]] and not agent.starts.any()


def test_an_agent_may_see_features_and_act_within_one():
    bounds = (np.array([0.0]), np.array([8.0]))
    policy = AgentPolicy(Agent(), features=lambda seen: {"state": seen["observation.state"] / 2}, bounds=bounds)
    policy.reset([1, 2])
    assert policy.act({"observation.state": torch.tensor([[1.0], [9.0]])}).tolist() == [[6.0], [8.0]]


def test_what_does_not_fit_is_named(starts):
    envs = RealEnvs(SquareEnv, starts, num_envs=2)
    narrow = CallablePolicy(lambda seen: seen["observation.state"][:, :1])
    lost = CallablePolicy(lambda seen: seen["observation.state"] * torch.nan)
    listing = CallablePolicy(lambda seen: seen["observation.state"])
    listing.act = lambda seen: [[0.0, 0.0]] * 2
    world = tiny_world(size=(16, 16), relative_to={}, random=False)
    restless = DreamEnv(world, starts, lambda seen: None, num_envs=1, horizon=2)
    for policy, where, horizon, message in (
        (narrow, envs, 2, r"shape \(2, 1\), the environment expects \(2, 2\)"),
        (lost, envs, 2, "not finite"),
        (listing, envs, 2, r"returns its actions as a torch\.Tensor, got list"),
        (lost, envs, 0, "horizon is at least 1, got 0"),
        (lost, restless, 2, "needs autoreset AutoresetMode.DISABLED"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate(policy, where, horizon=horizon)
    with pytest.raises(ValueError, match=r"starts \[5\] are not within 0..4"):
        evaluate(narrow, envs, starts=[5], horizon=1)


def test_a_policy_that_fails_is_named_and_its_other_trials_go_on(starts):
    """The second start of the first batch loses its way in the second step; the second batch raises at once."""

    class Fragile:
        def reset(self, seeds):
            self.seeds, self.step = seeds, 0

        def act(self, observation):
            self.step += 1
            if 104 in self.seeds:
                raise RuntimeError("out of\nmemory")
            actions = observation["observation.state"] + torch.tensor([2.0, 0.0])
            actions[[seed == 101 and self.step == 2 for seed in self.seeds]] = torch.nan
            return actions

    faults, trials = [], []
    envs = RealEnvs(SquareEnv, starts, num_envs=4)
    found = evaluate(Fragile(), envs, horizon=9, faults=faults, record=trials.append)
    assert faults == [
        Fault(101, "policy", "the policy's actions are not finite: [nan, nan]"),
        Fault(104, "policy", "RuntimeError: out of memory"),
    ]
    assert found.seeds.tolist() == [100, 101, 102, 103, 104]
    assert found.outcomes.tolist() == [1, 0, 1, 1, 0]
    assert found.steps[[1, 4]].tolist() == [2, 1]
    assert [trial.seed for trial in trials] == [100, 102, 103]
    with pytest.raises(ValueError, match="RuntimeError: out of memory"):
        evaluate(Fragile(), envs, starts=[4], horizon=9)


def test_a_server_that_does_not_answer_says_nothing_about_its_policy(starts):
    def act(observation):
        raise Unreachable("policy ws://robot:8000: nothing answers")

    with pytest.raises(Unreachable, match="nothing answers"):
        evaluate(CallablePolicy(act), RealEnvs(SquareEnv, starts, num_envs=2), horizon=3, faults=[])


def test_a_policy_that_fails_to_begin_has_no_trials(starts):
    class Broken:
        def reset(self, seeds):
            raise KeyError("weights")

        def act(self, observation):
            raise AssertionError("it never began")

    faults = []
    found = evaluate(Broken(), RealEnvs(SquareEnv, starts, num_envs=2), starts=[0], horizon=9, faults=faults)
    assert faults == [Fault(100, "policy", "KeyError: 'weights'")]
    assert (found.outcomes.tolist(), found.steps.tolist()) == ([0], [1])


def test_a_trial_is_in_doubt_if_the_judge_is_unsure_at_its_end(starts):
    """Right of 4 it is unsure, at 10 it sees a success; below 4 it is sure that there is none."""

    def judge(seen):
        place = seen.states[:, 0]
        return Verdict(place, place >= 10, unsure=(place > 4) & (place < 10))

    envs = RealEnvs(SquareEnv, starts, num_envs=5)
    begins = starts.states[:, 0]
    faults = []
    found = evaluate(move(2.0), envs, horizon=3, judge=judge, faults=faults)
    ends = begins + 6
    assert found.outcomes.tolist() == (ends >= 10).float().tolist()
    doubtful = [seed for seed, end in zip(starts.seeds, ends.tolist(), strict=True) if 4 < end < 10]
    assert doubtful and faults == [Fault(seed, "judge", "the judge was unsure at the end") for seed in doubtful]
    with pytest.raises(ValueError, match="unsure at the end of the trials"):
        evaluate(move(2.0), envs, horizon=3, judge=judge)


def test_a_doubt_lasts_if_the_judge_says_so(starts):
    """It is unsure at 4 to 6, through which every trial passes, and sees a success at 10."""

    class Judge:
        def __init__(self, doubts_last):
            self.doubts_last = doubts_last

        def __call__(self, seen):
            place = seen.states[:, 0]
            return Verdict(place, place >= 10, unsure=(place > 4) & (place <= 6))

    envs = RealEnvs(SquareEnv, starts, num_envs=5)
    ends = starts.states[:, 0] + 6
    passed = (starts.states[:, 0] + 2 <= 6) & (ends > 6) & (ends < 10)
    assert passed.any() and (ends >= 10).any()
    doubtful = []
    for lasts in (False, True):
        faults = []
        found = evaluate(move(2.0), envs, horizon=3, judge=Judge(lasts), faults=faults)
        assert found.outcomes.tolist() == (ends >= 10).float().tolist()
        doubtful.append({fault.seed for fault in faults})
    seeds = np.array(starts.seeds)
    assert doubtful[1] - doubtful[0] == set(seeds[passed.numpy()].tolist())


def test_a_policy_is_told_its_tasks(starts):
    class Told:
        def reset(self, seeds):
            said.append(list(seeds))

        def instruct(self, tasks):
            said.append(list(tasks))

        def act(self, observation):
            return observation["observation.state"]

    said = []
    evaluate(Told(), RealEnvs(SquareEnv, starts, num_envs=2), starts=[3], horizon=1)
    assert said == [[103, 103], [starts.tasks[3]] * 2]


def test_a_real_action_is_held_over_the_stride_of_the_world(starts):
    """The square moves 2 a step, so with a stride of 3 it moves up to 6 towards the held target."""
    envs = RealEnvs(SquareEnv, starts, num_envs=5, stride=3)
    envs.reset(options={"starts": range(5)})
    before = starts.states.numpy()
    target = before + np.float32([5, 0])
    observation, rewards, terminated, truncated, _ = envs.step(target)
    ends = np.minimum(before[:, 0] + 5, 10)
    moving = before[:, 0] + 5 < 10
    np.testing.assert_allclose(observation["observation.state"][moving, 0], ends[moving])
    path = [before[0, 0] + 2, before[0, 0] + 4, before[0, 0] + 5]
    assert rewards[0] == pytest.approx(sum(path) / 10)
    assert terminated.tolist() == (before[:, 0] + 5 >= 10).tolist() and not truncated.any()
