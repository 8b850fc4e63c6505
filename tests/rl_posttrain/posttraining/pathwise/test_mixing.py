"""Gradients mixed in picture space, by hand."""

import pytest
import torch

from rl_posttrain.posttraining.pathwise.mixing import gradient_of, mixed_gradient, with_gradient


def picture(*cameras: list[float]) -> torch.Tensor:
    """One gradient of a few pixels for each camera."""
    return torch.tensor(cameras)[None, None, :, None, None]


def test_a_reward_pulls_upwards_by_its_weight_times_the_length_of_the_regression_in_every_camera():
    regression = picture([3.0, 4.0], [0.0, 50.0])
    rewards = {
        "one": picture([0.0, 20.0], [1.0, 0.0]),
        "two": picture([-7.0, 0.0], [0.0, 0.0]),
        "silent": torch.zeros_like(regression),
    }
    total = mixed_gradient(regression, rewards, {"one": 0.5, "two": 2.0, "silent": 9.0})
    expected = picture([3.0 + 2.0 * 5, 4.0 - 0.5 * 5], [-0.5 * 50, 50.0])
    torch.testing.assert_close(total, expected)


def test_without_rewards_it_is_the_regression():
    regression = picture([3.0, 4.0])
    assert torch.equal(mixed_gradient(regression, {}, {"one": 1.0}), regression)


def test_a_value_gets_the_gradient_that_it_is_given():
    at = torch.tensor([1.0, 2.0], requires_grad=True)
    value = with_gradient(torch.tensor(0.7), at, torch.tensor([5.0, -6.0]))
    assert value.item() == pytest.approx(0.7)
    assert torch.autograd.grad(value, at)[0].tolist() == [5.0, -6.0]


def test_the_mean_of_a_reward_counts():
    at = torch.tensor([1.0, 2.0], requires_grad=True)
    assert gradient_of(at**2, at).tolist() == [1.0, 2.0]
