"""How well the cameras of a window fit together, compared with the cameras of other windows."""

from itertools import permutations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def pair_fits(first: Float[Tensor, "n m c"], second: Float[Tensor, "n m c"]) -> Float[Tensor, "m n n"]:
    """Similarity of the first camera of window `i` and the second one of window `j`; NaN where one is missing.

    At each frame it is the mean over the frames up to it: single moments of two episodes may truly be alike.
    """
    fits = torch.einsum("i m c, j m c -> m i j", first, second)
    return fits.cumsum(dim=0) / torch.arange(1, len(fits) + 1)[:, None, None]


def others(episodes: Int[Tensor, "n"]) -> Bool[Tensor, "n n"]:
    """Pairs of windows of different episodes."""
    return episodes[:, None] != episodes


def agreement(codes: Float[Tensor, "n m v c"], episodes: Int[Tensor, "n"]) -> Float[Tensor, "n m"]:
    """Of each window, the share of foreign rollouts up to a frame that fit worse than its own one.

    The rollout of one camera is held, and that of another camera is swapped for what this camera shows in every window
    of another episode at the same frames. 1: every swap is noticed. 0.5: swaps are like what is there. It is the mean
    over all ordered pairs of cameras.

    Args:
        codes: Vectors of the pictures, as `CrossViewMatcher.codes` gives them.
        episodes: The episode of each window.

    Returns:
        NaN where a camera is missing, or no window is of another episode.
    """
    swapped = others(episodes)
    found = []
    for first, second in permutations(range(codes.shape[2]), 2):
        fits = pair_fits(codes[:, :, first], codes[:, :, second])
        own = torch.diagonal(fits, dim1=1, dim2=2)[:, :, None]
        known = swapped & fits.isfinite()
        share = (_won(own, fits) * known).sum(2) / known.sum(2)
        found.append(share.where(own[:, :, 0].isfinite(), torch.nan).T)
    return torch.stack(found).nanmean(dim=0)


def auroc(codes: Float[Tensor, "n m v c"], episodes: Int[Tensor, "n"]) -> Float[Tensor, "m"]:
    """How well one threshold for all windows tells the cameras of one window from those of two (0.5 is chance).

    It is stricter than the mean of `agreement`, in which each camera is only compared with swaps of its own partner.
    NaN where there is nothing to compare.
    """
    swapped = others(episodes)
    found = []
    for first, second in permutations(range(codes.shape[2]), 2):
        fits = pair_fits(codes[:, :, first], codes[:, :, second])
        found.append(torch.stack([_area(table.diagonal(), table[swapped]) for table in fits]))
    return torch.stack(found).nanmean(dim=0)


def _won(own: Float[Tensor, "*#b"], foreign: Float[Tensor, "*#b"]) -> Float[Tensor, "*b"]:
    """1 where the own pair fits better, 0.5 where they are equal, else 0."""
    return (own > foreign).double() + 0.5 * (own == foreign).double()


def _area(own: Float[Tensor, "n"], foreign: Float[Tensor, "k"]) -> Float[Tensor, ""]:
    """Share of pairs in which the own value is larger; equal ones count half."""
    own, foreign = (values[values.isfinite()].contiguous() for values in (own, foreign))
    foreign = foreign.sort().values
    beaten, reached = (torch.searchsorted(foreign, own, right=right) for right in (False, True))
    return (beaten + reached).double().mean() / (2 * len(foreign))
