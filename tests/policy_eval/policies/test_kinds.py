"""Policies of every kind in `evaluate`: without a memory, with one, with chunks, with tasks; none states its needs."""

import pytest
import torch
from places import ROOT
from run_page import blocks
from square_world import SquareEnv, write_episodes

from policy_eval.evaluation import evaluate
from policy_eval.policies.needs import check_fits
from policy_eval.policies.policy import Policy
from policy_eval.real_envs import RealEnvs
from worldmodel.data import open_episodes
from worldmodel.dreams.starts import Starts


@pytest.fixture(scope="module")
def envs(tmp_path_factory) -> RealEnvs:
    """Squares at x = 0 to 5, 2 at a time, whose task is `right`; x = 10 after 3 to 5 moves is a success."""
    starts = Starts(open_episodes(write_episodes(tmp_path_factory.mktemp("square") / "data", 5)))
    return RealEnvs(SquareEnv, starts, num_envs=2)


class Chunked:
    """Plans two moves at once; of the second one it says where it leads from the state at the first one."""

    chunk = 2

    def reset(self, seeds):
        self.queue = []
        self.plans = 0

    def act(self, observation):
        if not self.queue:
            self.queue = list(self.plan(observation).unbind(1))
            self.plans += 1
        return self.queue.pop(0)

    def plan(self, observation):
        state, move = observation["observation.state"], torch.tensor([2.0, 0.0])
        return torch.stack([state + move, state + 2 * move], 1)


class Stateful:
    """Rests in every second step of an episode."""

    def reset(self, seeds):
        self.step = 0

    def act(self, observation):
        self.step += 1
        return observation["observation.state"] + torch.tensor([2.0 * (self.step % 2), 0.0])


class Obedient:
    """Goes where the task of each episode says."""

    def reset(self, seeds):
        self.ways = torch.zeros(len(seeds), 2)

    def instruct(self, tasks):
        self.ways[:, 0] = torch.tensor([{"right": 2.0, "left": -2.0}[task] for task in tasks])

    def act(self, observation):
        return observation["observation.state"] + self.ways


def needed(envs: RealEnvs) -> list[int]:
    """Moves of 2 pixels from each start to x = 10."""
    return [int(-(-(10 - x) // 2)) for x in envs.starts.states[:, 0].tolist()]


@pytest.mark.parametrize("policy", [Chunked(), Stateful(), Obedient()], ids=lambda policy: type(policy).__name__)
def test_policies_of_every_kind_have_the_steps_that_their_moves_need(envs, policy):
    assert isinstance(policy, Policy)
    check_fits(policy, envs.single_observation_space, envs.single_action_space, "mine")
    moves = needed(envs)
    scores = evaluate(policy, envs, horizon=12)
    rests = isinstance(policy, Stateful)
    assert scores.outcomes.tolist() == [1.0] * 5
    assert scores.steps.tolist() == [2 * number - 1 if rests else number for number in moves]


def test_a_chunk_is_planned_once_for_two_steps(envs):
    policy = Chunked()
    evaluate(policy, envs, starts=[0], horizon=12)
    assert policy.plans == -(-needed(envs)[0] // 2)


def test_a_policy_that_is_told_another_task_does_something_else(envs, monkeypatch):
    monkeypatch.setattr(envs.starts, "tasks", ("right", "left", "right", "left", "left"))
    assert evaluate(Obedient(), envs, horizon=12).outcomes.tolist() == [1.0, 0.0, 1.0, 0.0, 0.0]


def test_the_planner_of_the_page_plans_three_actions_the_way_the_task_says():
    (text,) = [text for _, text in blocks(ROOT / "docs/extend/policy.md") if text.startswith("# my_planner.py")]
    names: dict = {}
    exec(text, names)
    policy = names["Planner"]()
    policy.reset([0, 1])
    policy.instruct(["to the left", "to the right"])
    actions = torch.stack([policy.act({}) for _ in range(4)], 1)
    torch.testing.assert_close(actions[:, :, 0], torch.tensor([[-0.9, -0.6, -0.3, -0.9], [0.9, 0.6, 0.3, 0.9]]))
