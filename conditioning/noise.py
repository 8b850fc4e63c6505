"""Embedding of scalars: Fourier features, and the noise level and step size of the sampler."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn


def fourier_features(x: Float[Tensor, "*b s"], num_octaves: int) -> Float[Tensor, "*b f"]:
    """`x` with the sines and cosines of `pi 2^k x`, k = 0..num_octaves-1; `f = s (1 + 2 k)`."""
    octaves = math.pi * 2.0 ** torch.arange(num_octaves, device=x.device, dtype=x.dtype)
    angles = (x[..., None] * octaves).flatten(-2)
    return torch.cat([x, angles.sin(), angles.cos()], dim=-1)


class FourierMLP(nn.Module):
    """Two-layer perceptron on Fourier features of a few scalars, roughly in [-1, 1]."""

    def __init__(self, num_scalars: int, width: int, num_octaves: int = 6):
        super().__init__()
        self.num_octaves = num_octaves
        num_features = num_scalars * (1 + 2 * num_octaves)
        self.layers = nn.Sequential(nn.Linear(num_features, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, x: Float[Tensor, "*b s"]) -> Float[Tensor, "*b d"]:
        """Embed the last axis."""
        return self.layers(fourier_features(x.float(), self.num_octaves))


class NoiseLevelEmbedding(nn.Module):
    """Embed the noise level tau and the step size of shortcut forcing (Dreamer 4, 2509.24527).

    tau = 1 is data, tau = 0 is noise. The step size enters as its base-2 logarithm.
    """

    def __init__(self, width: int):
        super().__init__()
        self.mlp = FourierMLP(2, width, num_octaves=4)

    def forward(self, tau: Float[Tensor, "*b"], step_size: Float[Tensor, "*b"]) -> Float[Tensor, "*b d"]:
        """Embed pairs of noise level in [0, 1] and step size in (0, 1]."""
        return self.mlp(torch.stack([tau, step_size.log2() / 4], dim=-1))
