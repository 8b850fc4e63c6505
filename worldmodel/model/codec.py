"""The border between frames (uint8, channels last) and latents (float, channels first)."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from conditioning.trees import tree_map

SMALL_DECODER = "decoder.json"
"""Describes the small decoder in the folder of a world model that has one."""


@runtime_checkable
class LatentCodec(Protocol):
    """Encode frames to latents and back.

    Attributes:
        channels: Channels of a latent.
        downsampling: Pixels along one side of a latent's pixel.
        frames_per_latent: Frames that one latent stands for; if there are several, it also has `encode_clip` and
            `decode_next` of `VideoCodec`.
    """

    channels: int
    downsampling: int
    frames_per_latent: int

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
    frames_per_latent = 1

    def encode(self, frames: UInt8[Tensor, "*b H W 3"]) -> Float[Tensor, "*b 3 H W"]:
        """Rescale to [-1, 1]."""
        return to_signed(frames)

    def decode(self, latents: Float[Tensor, "*b 3 H W"]) -> UInt8[Tensor, "*b H W 3"]:
        """Rescale to 0..255."""
        return to_frames(latents)


@dataclass(frozen=True)
class Features:
    """What the causal convolutions of an encoder or a decoder remember of `b` videos.

    After the first latent, all videos have tensors of the same shapes, however long they are, so videos of different
    length can be coded in one batch.

    Attributes:
        maps: The last two frames of the input of each convolution, `b v c 2 h w`. A video that began one frame ago
            has zeros before it, which is what the convolutions take for the frames before a video.
    """

    maps: tuple[Float[Tensor, "b v _ 2 _ _"], ...]

    def select(self, videos: Int[Tensor, "k"]) -> "Features":
        """Copy of the given videos, in order; an index may occur more than once."""
        return tree_map(lambda x: x[videos.to(x.device)], self)

    def put(self, videos: Int[Tensor, "k"], fresh: "Features") -> "Features":
        """These videos with the given ones replaced by those of `fresh`."""
        return tree_map(lambda mine, new: mine.index_copy(0, videos.to(mine.device), new.to(mine.device)), self, fresh)
