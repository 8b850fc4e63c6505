"""Proposals: plans to choose from."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from worldmodel.streaming.noise import stream_noise


def jitter(
    plans: Float[Tensor, "n h a"], k: int, sigma: float | Float[Tensor, "a"], seeds: Int[Tensor, "n"], step: int
) -> Float[Tensor, "n k h a"]:
    """The plan itself and `k - 1` plans that lie beside it.

    RoboMonkey draws its candidates from a Gaussian about the policy's samples; here each candidate
    has one Gaussian offset for all its steps, since noise that changes with every step averages
    out. A function of the seed of the stream and of the step alone.
    """
    noise = stream_noise(seeds, torch.full_like(seeds, step), [k, 1, plans.shape[-1]])
    noise[:, 0] = 0
    return plans[:, None] + torch.as_tensor(sigma, device=plans.device) * noise.to(plans.device)
