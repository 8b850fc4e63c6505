"""Proposals: plans to choose from."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from worldmodel.streaming.noise import stream_noise


def jitter(
    plans: Float[Tensor, "n h a"], k: int, sigma: float | Float[Tensor, "a"], seeds: Int[Tensor, "n"], step: int
) -> Float[Tensor, "n k h a"]:
    """The plan itself and `k - 1` plans near it.

    RoboMonkey draws its candidates from a Gaussian about the policy's samples; here each candidate
    has one Gaussian offset for all its steps, because noise that changes with every step averages
    out. The offsets depend only on the seed of the stream and on the step.
    """
    noise = stream_noise(seeds, torch.full_like(seeds, step), [k, 1, plans.shape[-1]])
    noise[:, 0] = 0
    return plans[:, None] + torch.as_tensor(sigma, device=plans.device) * noise.to(plans.device)
