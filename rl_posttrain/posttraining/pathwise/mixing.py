"""Mix gradients in picture space: pure functions."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor


def mixed_gradient(
    regression: Float[Tensor, "*b"], rewards: Mapping[str, Float[Tensor, "*b"]], weights: Mapping[str, float]
) -> Float[Tensor, "*b"]:
    """`g - sum_i w_i |g| / |r_i| r_i`: descend the regression and climb the rewards.

    Every reward pulls `w_i` times as hard as the regression, whatever its scale, so the weights need no tuning when
    the errors change. A reward without a gradient counts nothing.

    Args:
        regression: `g`, the gradient of the regression with respect to the predicted pictures.
        rewards: `r_i`, the gradient of every reward with respect to them.
        weights: `w_i`.
    """
    length, total = regression.norm(), regression
    for name, gradient in rewards.items():
        total = total - weights[name] * length * gradient / gradient.norm().clamp_min(1e-12)
    return total


def with_gradient(
    value: Float[Tensor, ""], at: Float[Tensor, "*b"], gradient: Float[Tensor, "*b"]
) -> Float[Tensor, ""]:
    """A number equal to `value` whose gradient with respect to `at` is `gradient`."""
    return value.detach() + ((at - at.detach()) * gradient.detach()).sum()


def gradient_of(value: Float[Tensor, "..."], at: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """The gradient of the mean of `value`; weights behind it receive none."""
    return torch.autograd.grad(value.mean(), at)[0]
