"""The border between frames (uint8, channels last) and latents (float, channels first)."""

from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
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
    """No autoencoder: latents are pixels in [-1, 1]."""

    channels = 3
    downsampling = 1

    def encode(self, frames: UInt8[Tensor, "*b H W 3"]) -> Float[Tensor, "*b 3 H W"]:
        """Rescale to [-1, 1]."""
        return to_signed(frames)

    def decode(self, latents: Float[Tensor, "*b 3 H W"]) -> UInt8[Tensor, "*b H W 3"]:
        """Rescale to 0..255."""
        return to_frames(latents)


class AutoencoderCodec(nn.Module):
    """A frozen diffusers image autoencoder, frame by frame.

    Args:
        autoencoder: `AutoencoderTiny` or `AutoencoderKL`.
        chunk: Frames coded at once, to bound memory.
    """

    def __init__(self, autoencoder: AutoencoderTiny | AutoencoderKL, chunk: int = 64):
        super().__init__()
        self.autoencoder = autoencoder.eval().requires_grad_(False)
        self.chunk = chunk
        config = autoencoder.config
        self.channels = config.latent_channels
        blocks = (
            config.encoder_block_out_channels
            if isinstance(autoencoder, AutoencoderTiny)
            else config.block_out_channels
        )
        self.downsampling = 2 ** (len(blocks) - 1)
        self.scale = config.scaling_factor
        self.shift = getattr(config, "shift_factor", None) or 0.0

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> "AutoencoderCodec":
        """Load a diffusers autoencoder from a folder or a hub id.

        Raises:
            ValueError: If its `_class_name` is neither `AutoencoderTiny` nor `AutoencoderKL`.
        """
        config = AutoencoderKL.load_config(str(folder))
        classes = {c.__name__: c for c in (AutoencoderTiny, AutoencoderKL)}
        name = config.get("_class_name")
        if name not in classes:
            raise ValueError(f"{folder}: _class_name is {name!r}, expected one of {list(classes)}")
        return cls(classes[name].from_pretrained(str(folder)))

    @torch.no_grad()
    def encode(self, frames: UInt8[Tensor, "*b H W 3"]) -> Float[Tensor, "*b c h w"]:
        """Encode; the mean of the posterior for `AutoencoderKL`."""
        flat = to_signed(frames.reshape(-1, *frames.shape[-3:]))
        parts = [self._encode(part) for part in flat.split(self.chunk)]
        latents = (torch.cat(parts) - self.shift) * self.scale
        return latents.reshape(*frames.shape[:-3], *latents.shape[1:])

    def _encode(self, pixels: Tensor) -> Tensor:
        pixels = pixels.to(self.autoencoder.dtype)
        if isinstance(self.autoencoder, AutoencoderTiny):
            return self.autoencoder.encode(pixels).latents.float()
        return self.autoencoder.encode(pixels).latent_dist.mode().float()

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "*b c h w"]) -> UInt8[Tensor, "*b H W 3"]:
        """Decode and clamp."""
        flat = latents.reshape(-1, *latents.shape[-3:])
        flat = (flat / self.scale + self.shift).to(self.autoencoder.dtype)
        parts = [self.autoencoder.decode(part).sample for part in flat.split(self.chunk)]
        frames = to_frames(torch.cat(parts))
        return frames.reshape(*latents.shape[:-3], *frames.shape[1:])
