"""The contrastive objective on generated samples: pure functions.

DiffusionNFT (2509.16117) in the x0 form of PersistWorld (2603.25685). A group is `k` samples drawn
from the same state under the same actions; the reward says which of them to move towards and which to move away from.
No gradient passes through the sampler, so you can use any sampler.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def optimality(advantages: Float[Tensor, "*b"], limit: float = 1.0) -> Float[Tensor, "*b"]:
    """Share in [0, 1] that counts as good: `r = (clip(A, -limit, limit) / limit + 1) / 2`.

    PersistWorld clips at 1, DiffusionNFT at 5.
    """
    return (advantages.clamp(-limit, limit) / limit + 1) / 2


def extremes(rewards: Float[Tensor, "b k"], count: int) -> Bool[Tensor, "b k"]:
    """True for the `count` best and the `count` worst of each group; for all if `count` is 0.

    Raises:
        ValueError: If a group has fewer samples.
    """
    size = rewards.shape[1]
    if 2 * count > size:
        raise ValueError(f"keep={count} best and worst need {2 * count} candidates, got {size}")
    rank = rewards.argsort(dim=1).argsort(dim=1)
    return (rank < count) | (rank >= size - count) if count else torch.ones_like(rank).bool()


def nft_loss(
    predicted: Float[Tensor, "n ..."],
    old: Float[Tensor, "n ..."],
    sample: Float[Tensor, "n ..."],
    good: Float[Tensor, "n ..."],
    beta: float,
) -> Float[Tensor, "n ..."]:
    """Contrastive loss of every element (2603.25685, equation 2).

    `L = r |x+ - x0|^2 + (1 - r) |x- - x0|^2` with `x+- = (1 -+ b) x_old +- b x_theta`. For a single
    sample this is a regression towards `x_old + (2 r - 1) / b (x0 - x_old)` with weight `b^2`, plus
    what does not depend on theta: towards the sample where r > 1/2, away from it where r < 1/2.

    Args:
        predicted: x_theta, the model's prediction of the clean sample from its noised version.
        old: x_old, that of the policy which drew the sample, at the same noise level and step size;
            without gradient.
        sample: x0, the drawn sample.
        good: r, from `optimality`: one for each sample, or more axes of the samples, each of their size or 1.
        beta: b, above 0; the smaller, the longer the move and the weaker the gradient.
    """
    share = good.reshape(*good.shape, *[1] * (sample.ndim - good.ndim))
    towards = (1 - beta) * old + beta * predicted
    away = (1 + beta) * old - beta * predicted
    return share * (towards - sample) ** 2 + (1 - share) * (away - sample) ** 2


def kl_penalty(predicted: Float[Tensor, "*n"], reference: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Squared distance of the predictions: the KL divergence of two Gaussians of one variance.

    Up to the factor `1 / (2 variance)`, which depends on the noise level only (2509.16117, in the
    velocity form `|v - v_ref|^2`).
    """
    return (predicted - reference) ** 2


def old_policy_decay(step: int, rate: float = 0.001, largest: float = 0.5) -> float:
    """How much of the old policy stays after update `step`: `min(rate step, largest)`.

    The schedule of DiffusionNFT and PersistWorld. At decay 0 the old policy is the trained one: the
    samples are on-policy and the gap of both predictions is 0 before every update.
    """
    return min(rate * step, largest)
