"""Peak signal-to-noise ratio of pictures."""

import torch
from einops import reduce
from jaxtyping import Float32, UInt8
from torch import Tensor

MSE_FLOOR = 1e-5
"""Smallest mean squared error on the [0, 1] scale, so PSNR is at most 50 dB."""


def psnr(prediction: UInt8[Tensor, "*b H W 3"], truth: UInt8[Tensor, "*b H W 3"]) -> Float32[Tensor, "*b"]:
    """Peak signal-to-noise ratio of each frame, `-10 log10(max(MSE, 1e-5))`, in dB."""
    return decibel(reduce(squared_error(prediction, truth), "... H W c -> ...", "mean"))


def unit(frames: UInt8[Tensor, "*b 3"]) -> Float32[Tensor, "*b 3"]:
    """Pictures on the scale 0..1."""
    return frames.float() / 255


def squared_error(prediction: UInt8[Tensor, "*b 3"], truth: UInt8[Tensor, "*b 3"]) -> Float32[Tensor, "*b 3"]:
    """Squared difference of every channel, on the scale 0..1."""
    return (unit(prediction) - unit(truth)).square()


def decibel(mean_squared_error: Float32[Tensor, "*b"]) -> Float32[Tensor, "*b"]:
    """`-10 log10` of an error, at most 50 dB; NaN stays NaN."""
    return -10 * torch.log10(mean_squared_error.clamp_min(MSE_FLOOR))
