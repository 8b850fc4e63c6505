"""Fit pictures of one size into a frame of another, with the same aspect ratio and black padding."""

from dataclasses import dataclass
from math import ceil, floor, sqrt

import torch
from einops import rearrange
from jaxtyping import Bool, UInt8
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class FrameBudget:
    """A rule for the size of frames: the cameras' own size, made smaller if it has too many pixels.

    Attributes:
        pixels: Largest number of pixels of a frame.
        multiple: Height and width are multiples of it.
    """

    pixels: int
    multiple: int

    def size(self, own: tuple[int, int]) -> tuple[int, int]:
        """`(H, W)` for cameras of `own` size: with the shape kept as nearly as `multiple` allows.

        Without a change of scale, the sides are rounded up and the rest is padding.
        """
        scale = min(1.0, sqrt(self.pixels / (own[0] * own[1])))
        rounded = ceil if scale == 1 else floor
        height, width = (max(rounded(side * scale / self.multiple), 1) * self.multiple for side in own)
        return height, width


@dataclass(frozen=True)
class Letterbox:
    """Where a picture of size `source` lies inside a frame of size `target`, both `(H, W)`.

    The picture is scaled as a whole until it touches two opposite borders, and centred.

    Raises:
        ValueError: If a height or a width is below 1.
    """

    source: tuple[int, int]
    target: tuple[int, int]

    def __post_init__(self) -> None:
        if min(*self.source, *self.target) < 1:
            raise ValueError(f"picture size {self.source} and frame size {self.target} must be at least 1 x 1")

    @property
    def inner(self) -> tuple[int, int]:
        """`(H, W)` of the scaled picture."""
        (height, width), (frame_height, frame_width) = self.source, self.target
        if frame_height * width <= frame_width * height:
            return frame_height, max(1, round(width * frame_height / height))
        return max(1, round(height * frame_width / width)), frame_width

    @property
    def corner(self) -> tuple[int, int]:
        """Row and column of the picture's upper left pixel in the frame."""
        return (self.target[0] - self.inner[0]) // 2, (self.target[1] - self.inner[1]) // 2

    def fit(self, frames: UInt8[Tensor, "t h w 3"]) -> UInt8[Tensor, "t H W 3"]:
        """Scale (antialiased) and pad; the pixels do not change where the size fits already."""
        if self.source == self.target:
            return frames
        (top, left), (height, width) = self.corner, self.inner
        pictures = rearrange(frames, "t h w c -> t c h w")
        if self.inner != self.source:
            pictures = F.interpolate(pictures, self.inner, mode="bilinear", antialias=True)
        framed = frames.new_zeros(len(frames), *self.target, 3)
        framed[:, top : top + height, left : left + width] = rearrange(pictures, "t c h w -> t h w c")
        return framed

    def mask(self) -> Bool[Tensor, "H W"]:
        """True on the picture, False on the padding."""
        (top, left), (height, width) = self.corner, self.inner
        mask = torch.zeros(self.target, dtype=torch.bool)
        mask[top : top + height, left : left + width] = True
        return mask
