"""Policies that plan say what they will do, and dreams of several frames per latent use it."""

import numpy as np
import pytest
import torch
from drawn_episodes import SEEDS, DrawnEpisodes
from gymnasium.vector import AutoresetMode
from tiny_chunks import chunk_world

from policy_eval.evaluation import evaluate
from policy_eval.policies.cloned import ClonedPolicy, PolicyConfig
from worldmodel.dreams.env import DreamEnv
from worldmodel.dreams.starts import Starts
from worldmodel.dreams.verdict import Verdict
from worldmodel.model.precision import full_precision


class Planner:
    """Plans four actions at once, from its seeds."""

    def reset(self, seeds):
        self.rows, self.number, self.queue = list(range(len(seeds))), 0, []

    def keep(self, streams):
        self.rows = [self.rows[stream] for stream in streams]
        self.queue = [actions[streams] for actions in self.queue]

    def act(self, observation):
        if not self.queue:
            plan = torch.rand(4, 3, 2, generator=torch.Generator().manual_seed(self.number)) + 0.5
            self.queue, self.number = list(plan[:, self.rows]), self.number + 1
        return self.queue.pop(0)

    def ahead(self):
        return list(self.queue)


class Silent(Planner):
    """The same, but it does not say what it will do."""

    ahead = None


class Wrong(Planner):
    """The same, but it does something else than what it says."""

    def ahead(self):
        return [action + 0.1 for action in self.queue]


class Broken(Planner):
    """It says something that is no action."""

    def ahead(self):
        return [torch.zeros(1)]


def trials(policy, **settings):
    """Three trials of eight steps, of which the first one ends after the second step, and how often was denoised."""
    world = chunk_world(relative_to={})
    calls, sampler, looks = [], world.sampler, []
    world.sampler = lambda *given: calls.append(1) or sampler(*given)

    def judge(seen):
        looks.append(1)
        return Verdict(seen.states[:, 0], torch.tensor([len(looks) > 1, False, False]))

    data = DrawnEpisodes([15, 16, 17], reset_seeds=SEEDS, views=("top",), size=(32, 32))
    settings = {"num_envs": 3, "horizon": 8, "autoreset_mode": AutoresetMode.DISABLED, **settings}
    found, faults = [], []
    with full_precision():
        evaluate(
            policy, DreamEnv(world, Starts(data), judge, **settings), horizon=8, record=found.append, faults=faults
        )
    return found, len(calls), faults


def test_a_dream_denoises_a_latent_once_for_the_actions_that_a_policy_plans():
    """The trial that ends in the middle of a plan does not disturb the others."""
    told, few, _ = trials(Planner())
    silent, many, _ = trials(Silent())
    assert (few, many) == (2, 8)
    assert [len(trial.actions) for trial in told] == [2, 8, 8]
    for one, other in zip(told, silent, strict=True):
        np.testing.assert_array_equal(one.actions, other.actions)
        assert len(np.unique(one.actions)) > 2
    for one, other in zip(told[1:], silent[1:], strict=True):
        for step in (4, 8):  # where all actions of a latent are known
            assert np.abs(one.frames[step].astype(int) - other.frames[step]).max() <= 1
        assert (one.frames[2] != other.frames[2]).any()


def test_what_counts_is_what_a_policy_does():
    wrong, calls, _ = trials(Wrong())
    silent, _, _ = trials(Silent())
    assert calls == 8
    assert np.abs(wrong[1].frames[8].astype(int) - silent[1].frames[8]).max() <= 1


def test_a_plan_of_another_shape_is_a_fault_of_the_policy():
    found, _, faults = trials(Broken())
    assert found == [] and len(faults) == 3
    assert "the policy's actions have the shape (1,), the environment expects (3, 2)" in faults[0].reason


@pytest.mark.parametrize("noise", [0.0, 2.0])
def test_a_cloned_policy_does_what_it_says(noise):
    config = PolicyConfig(("top",), (16, 16), action_dim=2, state_dim=0, chunk=3, width=8, action_noise=noise)
    policy = ClonedPolicy(config).eval()
    policy.reset([3, 4])
    seen = {"observation.images.top": torch.zeros(2, 16, 16, 3, dtype=torch.uint8)}
    policy.act(seen)
    said = policy.ahead()
    done = [policy.act(seen) for _ in range(2)]
    assert torch.equal(torch.stack(said), torch.stack(done)) and policy.ahead() == []
