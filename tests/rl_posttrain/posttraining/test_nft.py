"""The contrastive objective against values computed by hand, and on a toy distribution."""

import pytest
import torch

from rl_posttrain.posttraining.nft import extremes, kl_penalty, nft_loss, old_policy_decay, optimality
from rl_posttrain.rewards.advantages import group_advantages


def test_advantages_by_hand():
    rewards = torch.tensor([[1.0, 2.0, 3.0, 2.0], [5.0, 5.0, 5.0, 5.0]])
    found = group_advantages(rewards, eps=0.0001)
    std = 0.5**0.5
    expected = torch.tensor([-1, 0, 1, 0]) / (std + 1e-4)
    torch.testing.assert_close(found[0], expected)
    assert torch.equal(found[1], torch.zeros(4))


def test_optimality_clips():
    advantages = torch.tensor([-7.0, -1.0, -0.5, 0.0, 0.5, 3.0])
    expected = torch.tensor([0.0, 0.0, 0.25, 0.5, 0.75, 1.0])
    torch.testing.assert_close(optimality(advantages), expected)
    assert optimality(torch.tensor(1.0), limit=5.0).item() == pytest.approx(0.6)


def test_extremes_keeps_the_best_and_the_worst():
    rewards = torch.tensor([[0.3, 0.9, 0.1, 0.5, 0.7], [1.0, 1.0, 1.0, 1.0, 1.0]])
    kept = extremes(rewards, 1)
    assert kept[0].tolist() == [False, True, True, False, False]
    assert kept.sum(dim=1).tolist() == [2, 2]
    assert extremes(rewards, 0).all()
    with pytest.raises(ValueError, match=r"keep=3 .* 6 candidates, got 5"):
        extremes(rewards, 3)


@pytest.mark.parametrize("beta", [0.1, 0.5, 1.0])
def test_the_loss_is_a_signed_regression_exactly(beta):
    """L = b^2 |x - (x_old + (2r-1)/b (x0 - x_old))|^2 + (1 - (2r-1)^2) |x_old - x0|^2."""
    generator = torch.Generator().manual_seed(0)
    predicted, old, sample = torch.randn(3, 7, 5, generator=generator, dtype=torch.float64)
    good = torch.rand(7, generator=generator, dtype=torch.float64)
    sign = (2 * good - 1)[:, None]
    goal = old + sign / beta * (sample - old)
    expected = beta**2 * (predicted - goal) ** 2 + (1 - sign**2) * (old - sample) ** 2
    torch.testing.assert_close(nft_loss(predicted, old, sample, good, beta), expected)


def test_no_gradient_at_one_half_where_both_policies_agree():
    old, sample = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(1))
    for good, silent in ((0.5, True), (0.8, False)):
        predicted = old.clone().requires_grad_()
        nft_loss(predicted, old, sample, torch.full((4,), good), 0.3).sum().backward()
        assert (predicted.grad.abs().max() < 1e-6) == silent


@pytest.mark.parametrize(("good", "beta"), [(1.0, 1.0), (0.0, 1.0), (0.75, 0.5), (0.4, 0.1)])
def test_the_optimum_lies_two_r_minus_one_over_beta_away(good, beta):
    old, sample = torch.tensor([[0.2, -0.4]]), torch.tensor([[1.0, 0.6]])
    predicted = old.clone().requires_grad_()
    optimizer = torch.optim.SGD([predicted], lr=0.4 / beta**2)
    for _ in range(60):
        optimizer.zero_grad()
        nft_loss(predicted, old, sample, torch.tensor([good]), beta).sum().backward()
        optimizer.step()
    expected = old + (2 * good - 1) / beta * (sample - old)
    torch.testing.assert_close(predicted.detach(), expected, atol=1e-5, rtol=1e-5)


def test_old_policy_schedule_and_penalty():
    assert [old_policy_decay(step) for step in (0, 100, 500, 9000)] == [0.0, 0.1, 0.5, 0.5]
    assert old_policy_decay(3, rate=0.1, largest=0.2) == 0.2
    assert kl_penalty(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 1.0])).tolist() == [0.0, 4.0]


def test_the_reward_rises_on_a_toy_distribution():
    """Samples are a learnt mean plus unit noise; the reward is the closeness to a hidden point.

    The denoiser of a Gaussian around `mean`, seen at tau = 0, is `mean` itself.
    """
    generator = torch.Generator().manual_seed(2)
    hidden = torch.tensor([2.0, -1.0])
    mean = torch.zeros(2, requires_grad=True)
    old = mean.detach().clone()
    optimizer = torch.optim.Adam([mean], lr=0.05)
    curve = []
    for step in range(150):
        samples = old + torch.randn(4, 8, 2, generator=generator)
        rewards = -(samples - hidden).norm(dim=-1)
        curve.append(rewards.mean().item())
        kept = extremes(rewards, 2)
        good = optimality(group_advantages(rewards))[kept]
        drawn = samples[kept]
        loss = nft_loss(mean.expand_as(drawn), old.expand_as(drawn), drawn, good, beta=1.0)
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
        old = torch.lerp(mean.detach(), old, old_policy_decay(step, rate=0.01))
    before, after = sum(curve[:10]) / 10, sum(curve[-10:]) / 10
    assert before < -2.2
    assert after > -1.6
    assert (mean.detach() - hidden).norm() < 0.5
