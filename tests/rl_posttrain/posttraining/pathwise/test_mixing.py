"""Gradients mixed in picture space, by hand."""

import pytest
import torch

from rl_posttrain.posttraining.pathwise.mixing import gradient_of, mixed_gradient, with_gradient


def test_a_reward_pulls_upwards_by_its_weight_times_the_length_of_the_regression():
    regression = torch.tensor([3.0, 4.0])
    rewards = {"one": torch.tensor([0.0, 20.0]), "two": torch.tensor([-7.0, 0.0]), "silent": torch.zeros(2)}
    total = mixed_gradient(regression, rewards, {"one": 0.5, "two": 2.0, "silent": 9.0})
    torch.testing.assert_close(total, torch.tensor([3.0 + 2.0 * 5, 4.0 - 0.5 * 5]))


def test_without_rewards_it_is_the_regression():
    regression = torch.tensor([3.0, 4.0])
    assert torch.equal(mixed_gradient(regression, {}, {"one": 1.0}), regression)


def test_a_value_gets_the_gradient_that_it_is_given():
    at = torch.tensor([1.0, 2.0], requires_grad=True)
    value = with_gradient(torch.tensor(0.7), at, torch.tensor([5.0, -6.0]))
    assert value.item() == pytest.approx(0.7)
    assert torch.autograd.grad(value, at)[0].tolist() == [5.0, -6.0]


def test_the_mean_of_a_reward_counts():
    at = torch.tensor([1.0, 2.0], requires_grad=True)
    assert gradient_of(at**2, at).tolist() == [1.0, 2.0]
