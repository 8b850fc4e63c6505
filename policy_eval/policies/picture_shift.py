"""Pictures moved by a few pixels, so that a small policy does not learn its demonstrations by heart."""

import torch
from einops import rearrange
from jaxtyping import UInt8
from torch import Tensor


def shift_pictures(
    frames: UInt8[Tensor, "n v H W 3"], pixels: int, generator: torch.Generator
) -> UInt8[Tensor, "n v H W 3"]:
    """Every picture moved by -`pixels` to `pixels` rows and columns; the border is repeated.

    This is the random shift of DrQ (Kostrikov et al. 2020, arXiv 2004.13649), drawn for each picture by itself.
    """
    number, _, height, width, _ = frames.shape
    pictures = rearrange(frames, "n v h w c -> (n v) h w c")
    moves = torch.randint(-pixels, pixels + 1, (2, len(pictures), 1), generator=generator)
    rows = (torch.arange(height) + moves[0]).clamp(0, height - 1)
    columns = (torch.arange(width) + moves[1]).clamp(0, width - 1)
    moved = pictures[torch.arange(len(pictures))[:, None, None], rows[:, :, None], columns[:, None, :]]
    return rearrange(moved, "(n v) h w c -> n v h w c", n=number)
