"""Plans of several actions: what actor, critic and memory make of them, by hand."""

from dataclasses import replace

import pytest
import torch
from square_world import BOUNDS, SquareWorld, right_edge, square_policy, write_episodes

from policy_eval.policies.cloned import ClonedPolicy
from rl_posttrain.imagination.actor import Actor
from rl_posttrain.imagination.estimators import plan_rewards
from rl_posttrain.imagination.imitation import Memory
from rl_posttrain.imagination.learner import LearnConfig, Learner, learn_from
from rl_posttrain.imagination.rollouts import Imagined, imagine_rollouts, plan_noise
from worldmodel.data import open_episodes
from worldmodel.training.checkpoint import MovingAverage


def planner(chunk: int = 2, **changes) -> ClonedPolicy:
    torch.manual_seed(0)
    plain = square_policy()
    policy = ClonedPolicy(replace(plain.config, chunk=chunk, **changes)).eval()
    for name in ("action_mean", "state_mean", "state_std"):
        getattr(policy, name).copy_(getattr(plain, name))
    return policy


def dreams(width: int) -> Imagined:
    """Two dreams of two plans of two actions: one succeeds with its second action, the other with its third."""
    success = torch.tensor([[False, True, False, True], [False, False, True, False]])
    return Imagined(
        frames=torch.zeros(2, 5, 1, 2, 2, 3, dtype=torch.uint8),
        features=torch.arange(6.0).reshape(2, 3, 1).expand(2, 3, width),
        actions=torch.arange(16.0).reshape(2, 2, 4),
        prior=torch.zeros(2, 2, 4),
        potentials=torch.tensor([[0.0, 1, 2, 3, 4]] * 2),
        successes=success,
        running=(success.long().cumsum(1) - success.long()) == 0,
        disagreement=torch.zeros(2, 4),
        extra=torch.zeros(2, 4),
    )


def test_the_rewards_of_a_plan_are_discounted_and_end_with_its_success():
    """1 + 2 / 2 = 2 and 4 + 8 / 2 = 8; with a success of the third action the fourth reward is lost."""
    rewards = torch.tensor([[1.0, 2, 4, 8]])
    for success, expected, goes_on in (
        ([False, False, False, False], [2.0, 8.0], [1, 1]),
        ([False, False, True, False], [2.0, 4.0], [1, 0]),
        ([False, True, False, True], [2.0, 8.0], [0, 0]),
    ):
        found, continues = plan_rewards(rewards, torch.tensor([success]), 2, discount=0.5)
        assert found.tolist() == [expected] and continues.tolist() == [goes_on]
    alone, continues = plan_rewards(rewards, torch.tensor([[False, True, False, False]]), 1, discount=0.5)
    assert torch.equal(alone, rewards) and continues.tolist() == [[1, 0, 1, 1]]


def test_the_value_after_a_plan_is_discounted_by_its_length():
    """Without shaping only successes count. First dream: 0.5 at its first plan, which ends it. Second dream: the third
    action is the first of the second plan, worth 1; seen from the first plan, two actions earlier, 0.5^2."""
    made = Learner(planner(), LearnConfig()).eval()
    config = LearnConfig(discount=0.5, decay=1.0, shaping=0.0)
    found, errors, shown = learn_from(
        made, MovingAverage(made, 0.5), dreams(made.actor.num_features), torch.tensor([1.0, 3.0]), config, None
    )
    assert found.returns.tolist() == pytest.approx([0.5, 0.25, 1.0])
    assert found.actions[:, 0].tolist() == [0, 8, 12] and found.features[:, 0].tolist() == [0, 3, 4]
    assert found.weights.tolist() == [1, 3, 3] and errors.tolist() == pytest.approx([0.5, 0.25])
    assert shown["return"] == pytest.approx((0.5 + 0.25) / 2)


def test_whole_plans_are_remembered_up_to_the_one_that_succeeds():
    made = Learner(planner(), LearnConfig()).eval()
    memory = Memory.empty(made).add(dreams(made.actor.num_features), noise_seeds=1)
    assert memory.actions.tolist() == [[0, 1, 2, 3], [8, 9, 10, 11], [12, 13, 14, 15]]
    assert memory.features[:, 0].tolist() == [0, 3, 4]


def test_an_actor_carries_out_what_its_policy_does(tmp_path):
    """Plans of four actions of which three are carried out, in a dream of five actions: two whole plans."""
    policy = planner(4, replan_after=3)
    policy.action_std.fill_(2.0)
    source = open_episodes(write_episodes(tmp_path / "data", 2))
    clips = [source.read(episode, 0, 1) for episode in (0, 1)]
    actor, world = Actor(policy, 0.5), SquareWorld()
    imagined = imagine_rollouts(
        world, right_edge, actor, actor, clips, horizon=5, bounds=BOUNDS, seed=0, noise_seeds=1, explore=False
    )
    assert imagined.actions.shape == (2, 2, 6) and imagined.features.shape[1] == 3 and imagined.chunk == 3
    assert imagined.frames.shape[1] == 7 and len(world.told) == 6
    for plan in (0, 1):
        frames = imagined.frames[:, 3 * plan]
        states = torch.stack([source.read(e, 0, 1).states[0] for e in (0, 1)]) if plan == 0 else None
        if states is not None:
            seen = {"observation.images.top": frames[:, 0], "observation.state": states}
            expected = policy.plan(seen).clamp(*BOUNDS)
            torch.testing.assert_close(torch.stack(world.told[:3], 1), expected)
    assert imagined.planning.shape == (2, 2)


def test_the_noise_of_a_plan_goes_on_in_the_next_one():
    """With persistence 1 one number serves all actions of a dream; five actions are two plans of three."""
    noise = plan_noise(4, 5, Actor(planner(3), 0.5), 1.0, torch.Generator().manual_seed(0))
    assert noise.shape == (4, 2, 6)
    torch.testing.assert_close(noise[:, 0, :2], noise[:, 1, 4:])
    assert not torch.allclose(noise[:, 0, 0], noise[:, 0, 1])
