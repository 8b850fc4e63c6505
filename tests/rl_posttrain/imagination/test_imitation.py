from dataclasses import replace

import pytest
import torch
from square_world import square_policy

from rl_posttrain.imagination.imitation import Memory, imitate
from rl_posttrain.imagination.learner import LearnConfig, Learner
from rl_posttrain.imagination.rollouts import Imagined


def imagined(successes: list[list[bool]], width: int) -> Imagined:
    """Dreams of two actions whose features and actions tell stream and step: `10 b + t`."""
    success = torch.tensor(successes)
    b, t = success.shape
    number = 10.0 * torch.arange(b)[:, None] + torch.arange(t + 1)
    actions = number[:, :t, None].expand(b, t, 2)
    return Imagined(
        frames=torch.zeros(b, t + 1, 1, 2, 2, 3, dtype=torch.uint8),
        features=number[..., None].expand(b, t + 1, width),
        actions=actions,
        prior=torch.zeros(b, t, 2),
        potentials=torch.zeros(b, t + 1),
        successes=success,
        running=(success.long().cumsum(1) - success.long()) == 0,
        disagreement=torch.zeros(b, t),
        extra=torch.zeros(b, t),
    )


def learner(config: LearnConfig) -> Learner:
    return Learner(square_policy(), config).eval()


def test_what_led_to_success_is_remembered_and_nothing_else(tmp_path):
    """Stream 0 fails; 1 succeeds at once, so its second action is left out; 2 and 3 at the end.
    Streams 0 and 2 are one start under two noise seeds, and so are 1 and 3."""
    made = learner(LearnConfig())
    ends = [[False, False], [True, False], [False, True], [False, True]]
    dreams = imagined(ends, made.actor.num_features)
    memory = Memory.empty(made).add(dreams, noise_seeds=2)
    assert memory.weights.tolist() == [1, 0.5, 0.5, 1, 1]
    assert memory.actions[:, 0].tolist() == memory.features[:, 0].tolist() == [10, 20, 21, 30, 31]
    twice = memory.add(dreams, noise_seeds=1)
    assert twice.weights.tolist()[5:] == [1] * 5
    assert twice.actions[:, 0].tolist() == 2 * [10, 20, 21, 30, 31]
    twice.save(tmp_path)
    assert torch.equal(Memory.load(tmp_path, 5, torch.device("cpu")).features, memory.features)


def test_extra_rewards_up_to_the_success_weigh_what_is_remembered():
    """Of the first dream 0.5 counts, of the second -0.5 + 1.5, of the last one e^5 is the most; what follows a
    success does not count."""
    made = learner(LearnConfig())
    dreams = imagined([[True, False], [False, True], [False, True]], made.actor.num_features)
    dreams = replace(dreams, extra=torch.tensor([[0.5, 9.0], [-0.5, 1.5], [7.0, 7.0]]))
    memory = Memory.empty(made).add(dreams, noise_seeds=1)
    expected = torch.tensor([0.5, 1.0, 1.0, 5.0, 5.0]).exp()
    torch.testing.assert_close(memory.weights, expected)
    fewer = Memory.empty(made).add(replace(dreams, extra=-dreams.extra), noise_seeds=1)
    torch.testing.assert_close(fewer.weights, 1 / expected)


def test_the_actor_comes_to_do_what_succeeded_and_the_prior_holds_it():
    """One remembered action: without a prior the actor learns it; the optimum with `beta` = 3 lies
    at a quarter of the way from the prior, since both terms are squares over the same spread."""
    for beta, share in ((0.0, 1.0), (3.0, 0.25)):
        config = LearnConfig(actor_rate=2e-2, beta=beta, imitation_steps=150, minibatch=4)
        made = learner(config)
        features = torch.zeros(1, made.actor.num_features)
        start = made.prior(features)
        memory = Memory(features, start + 0.4, torch.ones(1))
        shown = imitate(made, made.optimizers(config)[0], memory, config, step=0)
        torch.testing.assert_close(made.actor(features), start + 0.4 * share, atol=0.02, rtol=0)
        assert shown["remembered"] == 1
        assert shown["kl"] == pytest.approx((0.4 * share / config.std) ** 2, rel=0.3)


def test_what_succeeded_under_more_noise_seeds_counts_more():
    """Of two actions taken at one frame the second one weighs three times as much: the mean lies nearer to it."""
    config = LearnConfig(actor_rate=2e-2, beta=0.0, imitation_steps=100, minibatch=32)
    made = learner(config)
    features = torch.zeros(2, made.actor.num_features)
    start = made.prior(features)
    memory = Memory(features, start + torch.tensor([[0.0], [0.4]]), torch.tensor([0.25, 0.75]))
    imitate(made, made.optimizers(config)[0], memory, config, step=0)
    torch.testing.assert_close(made.actor(features)[0], start[0] + 0.3, atol=0.05, rtol=0)


def test_without_a_success_nothing_moves():
    config = LearnConfig()
    made = learner(config)
    before = [p.clone() for p in made.parameters()]
    shown = imitate(made, made.optimizers(config)[0], Memory.empty(made), config, step=0)
    assert shown == {"actor_loss": 0.0, "kl": 0.0, "remembered": 0.0}
    assert all(torch.equal(a, b) for a, b in zip(before, made.parameters(), strict=True))
