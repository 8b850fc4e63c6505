"""What an update learns from dreams, by hand: a critic that has learnt nothing says 0 of every frame."""

import math
from dataclasses import replace

import pytest
import torch
from square_world import square_policy

from rl_posttrain.imagination.learner import Experience, LearnConfig, Learner, imagined_return, learn_from, losses_of
from rl_posttrain.imagination.learner import update as learn
from rl_posttrain.imagination.rollouts import Imagined
from worldmodel.training.checkpoint import MovingAverage

PLAIN = LearnConfig(discount=0.5, decay=1.0, shaping=2.0)


def learner(config: LearnConfig = PLAIN) -> Learner:
    return Learner(square_policy(), config).eval()


def dreams(made: Learner, *, disagreement: float = 0.0) -> Imagined:
    """Two dreams of two actions: the first succeeds at once, the second never; rewards are 0, 0.5 and 1."""
    success = torch.tensor([[True, False], [False, False]])
    width = made.actor.num_features
    return Imagined(
        frames=torch.zeros(2, 3, 1, 2, 2, 3, dtype=torch.uint8),
        features=torch.arange(6.0).reshape(2, 3, 1).expand(2, 3, width) / 10,
        actions=torch.arange(8.0).reshape(2, 2, 2),
        prior=torch.zeros(2, 2, 2),
        potentials=torch.tensor([[0.0, 0.5, 1.0]] * 2),
        successes=success,
        running=torch.tensor([[True, False], [True, True]]),
        disagreement=torch.full((2, 2), disagreement),
        extra=torch.zeros(2, 2),
    )


def experience(made: Learner, *, trust_scale: float | None = None, **dreamed: float) -> tuple:
    average = MovingAverage(made, 0.5)
    return learn_from(made, average, dreams(made, **dreamed), torch.tensor([1.0, 3.0]), PLAIN, trust_scale)


def test_returns_by_hand():
    """Gains are 2 (0.5 x 0.5 - 0) = 0.5 and 2 (0.5 x 1 - 0.5) = 0; the success adds 1 and ends the dream."""
    found, errors, shown = experience(learner())
    assert found.returns.tolist() == pytest.approx([1.5, 0.5, 0.0], abs=1e-6)
    assert found.advantages.tolist() == pytest.approx([1.5, 0.5, 0.0], abs=1e-6)
    assert errors.tolist() == [1.5, 0.5]
    assert found.weights.tolist() == [1.0, 3.0, 3.0]
    assert found.actions.tolist() == [[0, 1], [4, 5], [6, 7]]
    assert found.features[:, 0].tolist() == pytest.approx([0.0, 0.3, 0.4])
    assert shown["return"] == pytest.approx((1.5 + 0.5) / 2) and shown["solved"] == 0.5 and shown["trust"] == 1.0
    assert shown["value_error"] == pytest.approx(((1.5**2 + 0.5**2) / 3) ** 0.5)


def test_rewards_of_dreams_that_disagree_are_trusted_less():
    """A disagreement as large as the scale counts 1 / e."""
    made = learner()
    trusted, _, _ = experience(made, disagreement=0.2)
    assert trusted.returns.tolist() == pytest.approx([1.5, 0.5, 0.0], abs=1e-6)
    found, _, shown = experience(made, disagreement=0.2, trust_scale=0.2)
    assert found.returns.tolist() == pytest.approx([1.5 / math.e, 0.5 / math.e, 0.0], abs=1e-6)
    assert shown["trust"] == pytest.approx(1 / math.e)


def test_extra_rewards_are_trusted_as_much_as_the_judge():
    """The second dream gains 0.25 with each action: 0.5 + 0.25 + 0.5 x 0.25, and 0 + 0.25; the first one loses 1."""
    made = learner()
    dreamed = replace(dreams(made, disagreement=0.2), extra=torch.tensor([[-1.0, 9.0], [0.25, 0.25]]))
    average = MovingAverage(made, 0.5)
    for scale, share in ((None, 1.0), (0.2, 1 / math.e)):
        found, _, _ = learn_from(made, average, dreamed, torch.ones(2), PLAIN, scale)
        assert found.returns.tolist() == pytest.approx([share * 0.5, share * 0.875, share * 0.25], abs=1e-6)


def test_the_target_critic_is_the_average_and_the_error_is_the_critics_own():
    """The average says `said` of every frame, which is about 1, and the critic itself 0.

    The second dream has no success, so its returns end with the value: 0.5 said, and 0.5 + 0.25 said before.
    """
    made = learner()
    bias = made.critic.head[-1].bias
    with torch.no_grad():
        bias[(made.critic.bins - math.log(2)).abs().argmin()] = 1000.0
        said = made.critic.value(torch.zeros(1, made.actor.num_features)).item()
        average = MovingAverage(made, 0.5)
        bias.zero_()
    assert said == pytest.approx(1, abs=0.1)
    found, errors, _ = learn_from(made, average, dreams(made), torch.ones(2), PLAIN, None)
    returns = [1.5, 0.5 + 0.25 * said, 0.5 * said]
    assert found.returns.tolist() == pytest.approx(returns, abs=1e-5)
    assert found.advantages.tolist() == pytest.approx([each - said for each in returns], abs=1e-5)
    assert errors.tolist() == pytest.approx(returns[:2], abs=1e-5)
    assert bias.abs().max() == 0 and average.shadow[average.names.index("critic.head.4.bias")].max() == 1000


def test_a_start_has_the_mean_error_of_its_noise_seeds():
    """One start, two dreams: 1.5 and 0.5."""
    made = learner()
    found, errors, _ = learn_from(made, MovingAverage(made, 0.5), dreams(made), torch.tensor([2.0]), PLAIN, None)
    assert errors.tolist() == [1.0] and found.weights.tolist() == [2.0, 2.0, 2.0]


def test_only_rewards_before_the_first_success_count():
    rewards, running = torch.ones(1, 3), torch.tensor([[True, True, False]])
    assert imagined_return(rewards, running, 0.5).tolist() == [1.5]


def rows(made: Learner) -> Experience:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(6, made.actor.num_features, generator=generator)
    prior = made.prior(features)
    actions = prior + 0.3
    advantages = torch.tensor([1.0, 2.0, 3.0, 1.0, 2.0, 3.0])
    return Experience(features, actions, prior, torch.zeros(6), advantages, torch.ones(6))


def test_the_actor_moves_towards_good_actions_and_away_from_bad_ones():
    made = learner()
    good = rows(made)
    bad = replace(good, advantages=-good.advantages)
    for taken, sign in ((good, 1), (bad, -1)):
        made.zero_grad()
        losses_of(made, taken, LearnConfig("pmpo", beta=0.0), actor_moves=True)["actor_loss"].backward()
        assert (sign * made.actor.policy.head[-1].bias.grad < 0).all()  # a descent makes actions larger, or smaller
    quiet = losses_of(made, good, LearnConfig("pmpo"), actor_moves=False)
    assert quiet["actor_loss"] == quiet["kl"] == 0 and quiet["critic_loss"] > 0


def test_the_prior_weighs_by_beta():
    """Spreads of 2 and 1, means 0.3 apart: the divergence is (4 + 0.09 - 1) / 2 - ln 2 for each of two action dims."""
    made = learner(LearnConfig("pmpo", std=1.0))
    made.actor.log_std.data.fill_(math.log(2))
    taken = rows(made)
    moved = replace(taken, prior=taken.prior - 0.3)
    loss = {
        beta: losses_of(made, moved, LearnConfig("pmpo", std=1.0, beta=beta), actor_moves=True) for beta in (0.0, 2.0)
    }
    divergence = 4 + 0.09 - 1 - 2 * math.log(2)
    assert loss[2.0]["kl"].item() == pytest.approx(divergence, rel=1e-4)
    assert (loss[2.0]["actor_loss"] - loss[0.0]["actor_loss"]).item() == pytest.approx(2 * divergence, rel=1e-3)


def test_actor_and_critic_have_rates_of_their_own():
    made = learner()
    actor, critic = made.optimizers(LearnConfig(actor_rate=0.1, critic_rate=0.2))
    assert (actor.param_groups[0]["lr"], critic.param_groups[0]["lr"]) == (0.1, 0.2)
    assert {id(p) for p in critic.param_groups[0]["params"]} == {id(p) for p in made.critic.parameters()}
    frozen = {id(p) for p in made.actor.policy.encoders.parameters()}
    assert {id(p) for p in actor.param_groups[0]["params"]} == {id(p) for p in made.actor.parameters()} - frozen


def test_the_critic_comes_to_say_the_returns():
    """Where half of the returns are 0 and half are 4 by weight, it says 2."""
    made = learner()
    features = torch.zeros(3, made.actor.num_features)
    optimizer = torch.optim.Adam([made.critic.head[-1].bias], lr=0.3)
    for _ in range(150):
        optimizer.zero_grad()
        made.critic.loss(features, torch.tensor([0.0, 4.0, 4.0]), torch.tensor([2.0, 1.0, 1.0])).backward()
        optimizer.step()
    assert made.critic.value(features)[0].item() == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize(
    ("objective", "step", "moves"), [("pmpo", 2, True), ("pmpo", 1, False), ("imitation", 9, False)]
)
def test_the_critic_learns_first_and_imitation_leaves_the_actor_alone(objective, step, moves):
    config = LearnConfig(objective, warmup=2, epochs=1, minibatch=3)
    made = learner(config)
    before = [p.detach().clone() for p in made.actor.parameters()]
    critic = made.critic.head[-1].bias.detach().clone()
    prior = [p.detach().clone() for p in made.prior.parameters()]
    learn(made, made.optimizers(config), replace(rows(made), returns=torch.full((6,), 3.0)), config, step=step)
    assert any(not torch.equal(a, b) for a, b in zip(before, made.actor.parameters(), strict=True)) == moves
    assert not torch.equal(critic, made.critic.head[-1].bias)
    assert all(torch.equal(a, b) for a, b in zip(prior, made.prior.parameters(), strict=True))
