"""The border between frames (uint8, channels last) and latents (float, channels first)."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn


@runtime_checkable
class LatentCodec(Protocol):
    """Encode frames to latents and back."""

    channels: int
    downsampling: int

    def encode(self, frames: UInt8[Tensor, "*b H W 3"]) -> Float[Tensor, "*b c h w"]:
        """Frames to latents, about unit range."""
        ...

    def decode(self, latents: Float[Tensor, "*b c h w"]) -> UInt8[Tensor, "*b H W 3"]:
        """Latents to frames."""
        ...


def to_signed(frames: UInt8[Tensor, "*b H W 3"]) -> Float[Tensor, "*b 3 H W"]:
    """uint8 channels last to float channels first in [-1, 1]."""
    return frames.movedim(-1, -3).float() / 127.5 - 1


def to_frames(pixels: Float[Tensor, "*b 3 H W"]) -> UInt8[Tensor, "*b H W 3"]:
    """Float channels first in [-1, 1] to uint8 channels last; clamps."""
    levels = ((pixels.float() + 1) * 127.5).round().clamp(0, 255)
    return levels.to(torch.uint8).movedim(-3, -1).contiguous()


class PixelCodec(nn.Module):
    """The codec without an autoencoder: latents are pixels in [-1, 1]."""

    channels = 3
    downsampling = 1

    def encode(self, frames: UInt8[Tensor, "*b H W 3"]) -> Float[Tensor, "*b 3 H W"]:
        """Rescale to [-1, 1]."""
        return to_signed(frames)

    def decode(self, latents: Float[Tensor, "*b 3 H W"]) -> UInt8[Tensor, "*b H W 3"]:
        """Rescale to 0..255."""
        return to_frames(latents)
