"""Mix gradients in picture space: pure functions."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.training.share import mean_over_all, over_processes


def mixed_gradient(
    regression: Float[Tensor, "b t v c h w"],
    rewards: Mapping[str, Float[Tensor, "b t v c h w"]],
    weights: Mapping[str, float],
) -> Float[Tensor, "b t v c h w"]:
    """`g - sum_i w_i |g| / |r_i| r_i` in every camera: descend the regression and climb the rewards.

    Every reward pulls `w_i` times as hard as the regression, whatever its scale, so the weights need no tuning when
    the errors change, nor for cameras with large errors. A reward without a gradient counts nothing.

    Args:
        regression: `g`, the gradient of the regression with respect to the predicted pictures.
        rewards: `r_i`, the gradient of every reward with respect to them.
        weights: `w_i`.
    """
    length, total = _length(regression), regression
    for name, gradient in rewards.items():
        total = total - weights[name] * length * gradient / _length(gradient).clamp_min(1e-12)
    return total


def _length(gradient: Float[Tensor, "b t v c h w"]) -> Float[Tensor, "1 1 v 1 1 1"]:
    """Length of the gradient in each camera, over the pictures of all processes."""
    return over_processes(gradient.square().sum(dim=(0, 1, 3, 4, 5), keepdim=True), "sum").sqrt()


def with_gradient(
    value: Float[Tensor, ""], at: Float[Tensor, "*b"], gradient: Float[Tensor, "*b"]
) -> Float[Tensor, ""]:
    """A number equal to `value` whose gradient with respect to `at` is `gradient`."""
    return value.detach() + ((at - at.detach()) * gradient.detach()).sum()


def gradient_of(value: Float[Tensor, "..."], at: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """The gradient of the mean of `value` over all processes; weights behind it receive none."""
    return torch.autograd.grad(mean_over_all(value), at)[0]
