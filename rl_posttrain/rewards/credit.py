"""Credit: how finely a reward tells what was good about a candidate.

A reward is one number for each candidate, or a map over frames, cameras and cells. With one number, a candidate that
is better in one place and worse in another counts as equal everywhere, and nearly all of the gradient is noise. With a
map, every cell is compared with the same cell of the other candidates.
"""

from typing import Literal

from einops import reduce, repeat
from jaxtyping import Bool, Float
from torch import Tensor

from worldmodel.data.clip import Clip

Credit = Literal["clip", "frame", "view", "cell"]
"""One number for each candidate, frame, camera of a frame, or cell of a camera's frame."""

Map = Float[Tensor, "b t v h w"]
"""A reward map: of every dreamed frame, camera and cell; `t`, `v`, `h` and `w` may be 1."""
Values = Float[Tensor, "b"] | Map
"""What a reward returns: one number for each candidate, or a map."""
Credited = Float[Tensor, "b"] | Float[Tensor, "b frames views rows columns"]
"""Values as fine as the credit."""


def credited(values: Values, clip: Clip, credit: Credit, grid: tuple[int, int]) -> Credited:
    """Values as fine as the credit: finer ones become means, coarser ones hold for all that they cover.

    Missing cameras and letterbox padding take no part in a mean.

    Args:
        values: What a reward returned.
        clip: The clips that it scored, for their masks.
        credit: How fine.
        grid: Cells of a frame, rows and columns, for the credit `cell`.

    Returns:
        `b` for the credit `clip`. Otherwise `b t 1 1 1`, `b t v 1 1` or `b t v h w`, where an axis along which the
        reward does not vary may be 1.

    Raises:
        ValueError: The map does not fit the grid.
    """
    if values.ndim == 1:
        return values if credit == "clip" else values[:, None, None, None, None]
    if credit == "cell":
        return regrid(values, grid)
    cells = over_cells(values, clip.pixel_mask)
    if credit == "view":
        return cells
    views = over_views(cells, clip.view_mask)
    return views if credit == "frame" else views.mean(dim=(1, 2, 3, 4))


def numbers(values: Values, clip: Clip) -> Float[Tensor, "b"]:
    """One number for each candidate: its own, or the mean of its map over cells, cameras and frames."""
    return credited(values, clip, "clip", (1, 1))


def over_cells(values: Map, pixel_mask: Bool[Tensor, "b views H W"] | None) -> Float[Tensor, "b t v 1 1"]:
    """The mean over the cells, each weighted by its share of pixels that are not padding."""
    if pixel_mask is None or values.shape[-2:] == (1, 1):
        return values.mean(dim=(3, 4), keepdim=True)
    shares = regrid(pixel_mask.float()[:, None], tuple(values.shape[-2:]))
    if values.shape[2] == 1:
        shares = shares.mean(dim=2, keepdim=True)
    return (values * shares).sum(dim=(3, 4), keepdim=True) / shares.sum(dim=(3, 4), keepdim=True).clamp_min(1e-6)


def over_views(values: Map, view_mask: Bool[Tensor, "b views"] | None) -> Float[Tensor, "b t 1 h w"]:
    """The mean over the cameras that are there."""
    if view_mask is None or values.shape[2] == 1:
        return values.mean(dim=2, keepdim=True)
    there = view_mask[:, None, :, None, None]
    return (values * there).sum(dim=2, keepdim=True) / there.sum(dim=2, keepdim=True).clamp(min=1)


def regrid(values: Map, grid: tuple[int, int]) -> Float[Tensor, "b t v rows columns"]:
    """A map on another grid: means of finer cells, or each coarser cell repeated.

    Raises:
        ValueError: Along an axis neither number of cells divides the other one.
    """
    for axis, cells in zip("hw", grid, strict=True):
        have = values.shape[-2 if axis == "h" else -1]
        if have % cells == 0:
            pattern = f"b t v ({axis} p) w" if axis == "h" else f"b t v h ({axis} p)"
            values = reduce(values, f"{pattern} -> b t v h w", "mean", **{axis: cells})
        elif cells % have == 0:
            pattern = f"b t v ({axis} p) w" if axis == "h" else f"b t v h ({axis} p)"
            values = repeat(values, f"b t v h w -> {pattern}", p=cells // have)
        else:
            rows_or_columns = "rows" if axis == "h" else "columns"
            raise ValueError(
                f"a map of {have} {rows_or_columns} does not fit {cells}: neither number divides the other"
            )
    return values
