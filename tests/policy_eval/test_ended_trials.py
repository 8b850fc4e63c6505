"""A policy that can forget streams is not asked about trials that have ended."""

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from square_world import SquareEnv, write_episodes
from tiny import tiny_world

from policy_eval.evaluation import evaluate
from policy_eval.real_envs import RealEnvs
from worldmodel.data import open_episodes
from worldmodel.dreams.env import DreamEnv
from worldmodel.dreams.starts import Starts
from worldmodel.dreams.verdict import Verdict


@pytest.fixture(scope="module")
def starts(tmp_path_factory) -> Starts:
    return Starts(open_episodes(write_episodes(tmp_path_factory.mktemp("square") / "data", 5)))


class Walker:
    """Walks as fast as its seed says, so that the first trials end first; notes how many streams it is asked about."""

    keep = None

    def __init__(self):
        self.asked = []

    def reset(self, seeds):
        self.speeds = torch.tensor([[0.4 * (105 - seed), 0.0] for seed in seeds])

    def act(self, observation):
        self.asked.append(len(observation["observation.state"]))
        return observation["observation.state"] + self.speeds


class Keeping(Walker):
    """The same, but it can forget streams."""

    def keep(self, streams):
        self.speeds = self.speeds[streams]


@pytest.mark.parametrize("place", ["real", pytest.param("dream", marks=pytest.mark.slow)])
def test_a_policy_that_keeps_streams_is_asked_about_running_trials_alone(starts, place):
    """Batches of three and of two trials: one question for each step of each, and the trials are the same."""
    if place == "real":
        envs = RealEnvs(SquareEnv, starts, num_envs=3)
    else:
        judge = lambda seen: Verdict(seen.states[:, 0], seen.states[:, 0] > 4.0)  # noqa: E731
        envs = DreamEnv(
            tiny_world(size=(16, 16)), starts, judge, num_envs=3, horizon=9, autoreset_mode=AutoresetMode.DISABLED
        )
    walked, kept = [], []
    walker, keeping = Walker(), Keeping()
    expected = evaluate(walker, envs, horizon=9, record=walked.append)
    found = evaluate(keeping, envs, horizon=9, record=kept.append)
    for name in ("seeds", "outcomes", "returns", "steps"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    for one, other in zip(kept, walked, strict=True):
        np.testing.assert_array_equal(one.actions, other.actions)
        np.testing.assert_array_equal(one.frames, other.frames)
    assert len(set(found.steps.tolist())) > 1, "trials end one after the other"
    assert sum(keeping.asked) == found.steps.sum() < sum(walker.asked)


def test_a_fault_is_that_of_the_stream_which_was_asked(starts):
    """Others have ended before 102 loses its way."""

    class Lost(Keeping):
        def reset(self, seeds):
            super().reset(seeds)
            self.seeds, self.step = list(seeds), 0

        def keep(self, streams):
            super().keep(streams)
            self.seeds = [self.seeds[stream] for stream in streams]

        def act(self, observation):
            self.step += 1
            actions = super().act(observation)
            actions[[seed == 102 and len(self.seeds) < 5 for seed in self.seeds]] = torch.nan
            return actions

    faults = []
    found = evaluate(Lost(), RealEnvs(SquareEnv, starts, num_envs=5), horizon=30, faults=faults)
    assert [(fault.seed, fault.kind) for fault in faults] == [(102, "policy")]
    assert found.outcomes.tolist() == [1, 1, 0, 1, 1]
