import math

import numpy as np
import pytest
import torch

from rl_posttrain.imagination.estimators import (
    expected_value,
    gaussian_kl,
    gaussian_log_prob,
    importance_weights,
    lambda_returns,
    pmpo_loss,
    priority_probabilities,
    shaped_rewards,
    symexp,
    symlog,
    trust,
    two_hot,
)
from rl_posttrain.imagination.starts import StartPool


def test_symlog_is_a_logarithm_on_both_sides():
    x = torch.tensor([-(math.e - 1), 0.0, math.e**2 - 1])
    torch.testing.assert_close(symlog(x), torch.tensor([-1.0, 0.0, 2.0]))
    torch.testing.assert_close(symexp(symlog(x)), x)


def test_two_hot_splits_between_neighbours_and_clamps():
    bins = torch.tensor([-1.0, 0.0, 2.0])
    mass = two_hot(torch.tensor([0.5, 0.0, -0.25, 9.0, -9.0, 2.0]), bins)
    expected = [[0, 0.75, 0.25], [0, 1, 0], [0.25, 0.75, 0], [0, 0, 1], [1, 0, 0], [0, 0, 1]]
    torch.testing.assert_close(mass, torch.tensor(expected))
    torch.testing.assert_close(mass[:3] @ bins, torch.tensor([0.5, 0.0, -0.25]))


def test_the_expected_value_is_a_mean_of_returns_not_of_logarithms():
    bins = torch.tensor([0.0, math.log(3)])  # returns 0 and 2
    torch.testing.assert_close(expected_value(torch.zeros(1, 2), bins), torch.tensor([1.0]))
    assert expected_value(torch.zeros(51), torch.linspace(-2, 2, 51)).abs() < 1e-5


def test_lambda_returns_by_hand():
    rewards, values = torch.tensor([[1.0, 2.0]]), torch.tensor([[7.0, 4.0, 8.0]])
    alive = torch.ones(1, 2)
    options = {"discount": 0.5, "decay": 0.5}
    # G_1 = 2 + 0.5 * 8 = 6; G_0 = 1 + 0.5 * (0.5 * 4 + 0.5 * 6) = 3.5
    assert lambda_returns(rewards, values, alive, **options).tolist() == [[3.5, 6.0]]
    # The second action ends the episode: G_1 = 2, G_0 = 1 + 0.5 * (2 + 1) = 2.5
    ended = torch.tensor([[1.0, 0.0]])
    assert lambda_returns(rewards, values, ended, **options).tolist() == [[2.5, 2.0]]
    one_step = lambda_returns(rewards, values, alive, discount=0.5, decay=0.0)
    assert one_step.tolist() == [[3.0, 6.0]]
    whole = lambda_returns(rewards, values, alive, discount=1.0, decay=1.0)
    assert whole.tolist() == [[11.0, 10.0]]


def test_priorities_by_hand():
    errors = torch.tensor([1.0, -4.0, 4.0])
    torch.testing.assert_close(priority_probabilities(errors, 0.5), torch.tensor([0.2, 0.4, 0.4]))
    torch.testing.assert_close(priority_probabilities(errors, 0.0), torch.full((3,), 1 / 3))
    chances = torch.tensor([0.2, 0.4, 0.4])
    whole = importance_weights(chances, chances[[0, 1]], 1.0)
    torch.testing.assert_close(whole, torch.tensor([1.0, 0.5]))
    half = importance_weights(chances, chances[[0, 1]], 0.5)
    torch.testing.assert_close(half, torch.tensor([1.0, 0.5**0.5]))
    assert importance_weights(chances, chances, 0.0).tolist() == [1.0, 1.0, 1.0]


def test_full_correction_makes_the_weighted_mean_that_of_uniform_draws():
    values = torch.tensor([1.0, 2.0, 6.0])
    chances = priority_probabilities(values, 1.0)
    weights = importance_weights(chances, chances, 1.0)
    mean = (chances * weights * values).sum() / (chances * weights).sum()
    assert float(mean) == pytest.approx(3.0)


def test_shaped_rewards_by_hand():
    successes = torch.tensor([[False, True]])
    potentials = torch.tensor([[0.5, 0.6, 1.0]])
    certain = torch.tensor([[1.0, 0.5]])
    rewards = shaped_rewards(successes, potentials, certain, shaping=2.0, discount=0.5)
    # 2 (0.3 - 0.5) = -0.4; 0.5 (1 + 2 (0.5 - 0.6)) = 0.4
    torch.testing.assert_close(rewards, torch.tensor([[-0.4, 0.4]]))


def test_trust_falls_to_one_over_e_at_the_scale():
    values = trust(torch.tensor([0.0, 0.2, 0.4]), 0.2)
    torch.testing.assert_close(values, torch.tensor([1.0, math.exp(-1), math.exp(-2)]))


def test_gaussians_by_hand():
    std = torch.tensor([2.0, 1.0])
    log_prob = gaussian_log_prob(torch.tensor([[2.0, 0.0]]), torch.zeros(1, 2), std)
    assert float(log_prob) == pytest.approx(-0.5 - math.log(2) - math.log(2 * math.pi))
    mean, prior = torch.tensor([[1.0, 0.0]]), torch.zeros(1, 2)
    same = torch.ones(2)
    assert float(gaussian_kl(mean, same, prior, same)) == pytest.approx(0.5)
    wide = gaussian_kl(prior, torch.tensor([2.0, 1.0]), prior, same)
    assert float(wide) == pytest.approx(0.5 * (4 - 1) - math.log(2))


def test_pmpo_uses_the_sign_of_the_advantage_alone():
    log_probs = torch.tensor([-1.0, -3.0, -2.0, -4.0], requires_grad=True)
    kl = torch.tensor([0.1, 0.1, 0.1, 0.5])
    advantages = torch.tensor([0.01, 50.0, -0.01, -9.0])
    ones = torch.ones(4)
    loss = pmpo_loss(log_probs, advantages, kl, ones, alpha=0.5, beta=0.3)
    # 0.5 * (-3) - 0.5 * (-2) + 0.3 * 0.2
    assert loss.item() == pytest.approx(-0.44)
    loss.backward()
    assert log_probs.grad.tolist() == [-0.25, -0.25, 0.25, 0.25]
    only_good = pmpo_loss(log_probs, ones, kl, torch.tensor([1.0, 3.0, 0, 0]), beta=0.0)
    assert only_good.item() == pytest.approx(0.5 * (1 + 9) / 4)


def test_a_pool_draws_where_the_critic_errs_and_renews_itself():
    rng = np.random.default_rng(0)
    pool = StartPool.uniform(100, 4, rng)
    assert len(set(pool.index.tolist())) == 4 and pool.errors.tolist() == [1.0] * 4
    pool = pool.update(np.array([0, 1]), torch.tensor([3.0, -9.0]))
    # Those that were not visited count as much as the worst.
    assert pool.errors.tolist() == [3.0, 9.0, 9.0, 9.0] and pool.visited.tolist() == [1, 1, 0, 0]
    places, weights = pool.draw(4000, rng, alpha=1.0, beta=1.0)
    assert (places == 0).mean() == pytest.approx(0.1, abs=0.02)
    assert weights[torch.from_numpy(places == 0)].unique().tolist() == [1.0]
    places, weights = pool.draw(4000, rng, alpha=0.0, beta=1.0)
    assert (places == 0).mean() == pytest.approx(0.25, abs=0.03)
    assert weights.unique().tolist() == [1.0]
    fresh = pool.refresh(0.25, 100, rng)
    kept = [1, 2, 3]
    assert fresh.index[kept].tolist() == pool.index[kept].tolist()
    assert fresh.index[0] not in pool.index and fresh.errors[0] == 9.0 and fresh.visited[0] == 0
    again = StartPool.from_json(fresh.to_json())
    assert again.to_json() == fresh.to_json() and torch.equal(again.errors, fresh.errors)
