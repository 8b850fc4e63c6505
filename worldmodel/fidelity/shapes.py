"""Whether a dreamed object has kept its shape, wherever it lies and however it is turned.

A position error says nothing of a block whose bar bends or whose corners become round. Both masks are
therefore moved to a common centre, and the dreamed one is turned until it covers the recorded one best.
"""

from collections.abc import Mapping

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from worldmodel.fidelity.scores import MISSING_AREA, OCCLUDED_AREA

SCALE = 64
"""Lengths are given as if the picture were this wide."""
SIDE = 32
"""Side of the window around the centre in which masks are compared, in pixels of that picture."""
TURNS = 72
"""Angles that are tried, evenly spaced over a whole turn."""


def shape_overlap(truth: Bool[Tensor, "n H W"], dreamed: Bool[Tensor, "n H W"]) -> Float[Tensor, "n"]:
    """Overlap of two masks (intersection over union, 0..1) after both are aligned by position and angle.

    The centroids are laid on each other, and the best of 72 angles counts. Masks are read between pixels by bilinear
    interpolation, and intersection and union are sums of minima and maxima. An empty mask gives 0.
    """
    still = _centred(truth, torch.zeros(1))
    best = torch.zeros(len(truth))
    for angles in torch.arange(TURNS).mul(2 * torch.pi / TURNS).split(TURNS // 6):
        turned = _centred(dreamed, angles)
        shared, joined = (torch.minimum(still, turned).sum((2, 3)), torch.maximum(still, turned).sum((2, 3)))
        best = torch.maximum(best, (shared / joined.clamp_min(1e-9)).amax(1))
    return best


def principal_spreads(mask: Bool[Tensor, "n H W"]) -> Float[Tensor, "n 2"]:
    """Standard deviations of a mask's pixels along its two principal axes, the shorter one first; px of 64.

    They are the square roots of the eigenvalues of the second central moments: neither the place nor the angle of the
    object changes them. An empty mask has none, so that both are 0.
    """
    weight, places, centre = _moments(mask)
    offset = places - centre[:, None]
    covariance = torch.einsum("np,npi,npj->nij", weight, offset, offset)
    return torch.linalg.eigvalsh(covariance).clamp_min(0).sqrt()


def shape_scores(
    truth: Bool[Tensor, "b t H W"], dreamed: Bool[Tensor, "b t H W"], usual_area: Float[Tensor, "b"]
) -> Mapping[str, Float[Tensor, "b t"]]:
    """How well the shape of one object is kept.

    Args:
        truth: Masks in the recorded frames.
        dreamed: Masks in the dreamed frames of the same moments.
        usual_area: Median area of the recorded object over its window, in pixels of these pictures.

    Returns:
        `overlap` of `shape_overlap`, where a missing object counts as 0, and `spread_error_px`, the mean absolute
        error of `principal_spreads`; NaN where the object is occluded in truth.
    """
    seen, found = truth.sum((2, 3)), dreamed.sum((2, 3))
    visible = (seen >= OCCLUDED_AREA * usual_area[:, None]) & (seen > 0)
    flat = [rearrange(mask, "b t h w -> (b t) h w") for mask in (truth, dreamed)]
    overlap = shape_overlap(*flat).view(seen.shape)
    overlap = torch.where(found < MISSING_AREA * seen, 0.0, overlap)
    spreads = [principal_spreads(mask) for mask in flat]
    error = (spreads[0] - spreads[1]).abs().mean(1).view(seen.shape)
    return {name: torch.where(visible, x, torch.nan) for name, x in (("overlap", overlap), ("spread_error_px", error))}


def _moments(mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Share of each pixel in the mask's area, its place (x, y), and the centroid; lengths in px of 64."""
    height, width = mask.shape[-2:]
    rows, columns = ((torch.arange(side) + 0.5) * SCALE / side for side in (height, width))
    places = torch.stack(torch.meshgrid(rows, columns, indexing="ij")[::-1], dim=-1).flatten(0, 1)
    weight = mask.flatten(1).float()
    weight = weight / weight.sum(1, keepdim=True).clamp_min(1)
    return weight, places, weight @ places


def _centred(mask: Bool[Tensor, "n H W"], angles: Float[Tensor, "k"]) -> Float[Tensor, "n k s s"]:
    """The window around the centroid of each mask, turned by each angle."""
    centre = _moments(mask)[2]
    line = torch.arange(SIDE) + 0.5 - SIDE / 2
    y, x = torch.meshgrid(line, line, indexing="ij")
    cosine, sine = (rearrange(f(angles), "k -> k 1 1") for f in (torch.cos, torch.sin))
    turned = torch.stack([cosine * x - sine * y, sine * x + cosine * y], dim=-1)
    grid = rearrange(centre, "n c -> n 1 1 1 c") + turned
    grid = rearrange(grid * 2 / SCALE - 1, "n k h w c -> n (k h) w c")
    picture = rearrange(mask, "n h w -> n 1 h w").float()
    found = torch.nn.functional.grid_sample(picture, grid, align_corners=False)
    return rearrange(found, "n 1 (k h) w -> n k h w", k=len(angles))
