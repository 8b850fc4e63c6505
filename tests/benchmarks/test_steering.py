"""The rows of the steering benchmark: other proposals, and other ways to choose."""

import pytest
import torch
from places import BENCHMARKS
from tiny import tiny_world

from policy_eval.policies.cloned import ClonedPolicy, PolicyConfig
from worldmodel.data import Clip

SEEDS = [3, 4, 5]


class Still:
    """Plans to stay where it is for two steps."""

    def __init__(self, length=2, shift=0.0):
        self.length, self.shift = length, shift

    def plan(self, observation):
        return observation["observation.state"][:, None].repeat(1, self.length, 1) + self.shift


def seen(number=3):
    pictures = torch.zeros(number, 16, 16, 3, dtype=torch.uint8)
    states = torch.arange(2.0 * number).reshape(number, 2)
    return {f"observation.images.{view}": pictures for view in ("top", "wrist")} | {"observation.state": states}


@pytest.fixture
def rows(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import steering_rows

    return steering_rows


def rightmost(candidates):
    return candidates.plans[..., -1, 0]


def test_other_policies_propose_too(rows):
    """The own plan, one of another policy that holds its only action, and one near the own plan."""
    propose = rows.side_by_side([Still(length=1, shift=5.0)])
    plans = propose(Still(), seen(1), 3, 0.5, torch.tensor([3]), 0)
    assert plans[0, 0].tolist() == [[0.0, 1.0]] * 2 and plans[0, 1].tolist() == [[5.0, 6.0]] * 2
    assert 0 < (plans[0, 2] - plans[0, 0]).abs().max() < 3 and plans.shape == (1, 3, 2, 2)


@pytest.mark.parametrize("name", ["Certain", "KeepsTheOffset", "PastConsistent", "TwoRounds"])
def test_every_way_to_choose_acts(rows, name):
    """In a dream, for two decisions; the first plan of a policy without a past is its own."""
    steered = getattr(rows, name)(Still(), rightmost, tiny_world(size=(16, 16)), k=3, sigma=1.0, lookahead=4)
    steered.reset(SEEDS[:1])
    actions = [steered.act(seen(1)) for _ in range(3)]
    assert all(action.shape == (1, 2) for action in actions)
    if name == "PastConsistent":
        assert actions[0].tolist() == [[0.0, 1.0]]
    else:
        assert actions[0][0, 0] > 0, "the rightmost of the plans"


class Remembered:
    """One episode with a success and one without; a source of recorded episodes."""

    views, lengths = ("top", "wrist"), (5, 5)

    def __len__(self):
        return 2

    def read(self, episode, start, stop):
        solved = torch.zeros(4, dtype=torch.bool)
        solved[-1] = episode == 0
        states = torch.arange(10.0).reshape(5, 2)
        frames = torch.zeros(5, 2, 16, 16, 3, dtype=torch.uint8)
        return Clip(frames, actions=states[:4] + 7 + 50 * episode, states=states, successes=solved)


def test_segments_of_successes_are_remembered(rows):
    """The actions were seven beyond the state: they are again, from the present state; the failure is forgotten."""
    torch.manual_seed(0)
    policy = ClonedPolicy(PolicyConfig(("top",), (16, 16), 2, 2, relative_to={0: 0, 1: 1}, chunk=2, width=8)).eval()
    propose = rows.memory(policy, Remembered())
    with torch.no_grad():
        plans = propose(policy, seen(1), 3, 0.5, torch.tensor([3]), 0)
        own = policy.plan(seen(1))
    torch.testing.assert_close(plans[:, 0], own)
    assert plans[0, 1].tolist() == [[7.0, 8.0], [9.0, 10.0]] and plans.shape == (1, 3, 2, 2)
