"""Rotary position embeddings (RoFormer, 2104.09864) at positions that need not be whole numbers."""

import torch
from jaxtyping import Float, Real
from torch import Tensor

from worldmodel.model.pretrained.family import Turn


def axis_angles(position: Real[Tensor, "*b"], channels: int, base: float = 10000.0) -> Float[Tensor, "*b p"]:
    """The angles `position base^(-2 i / channels)` of the `channels / 2` pairs of one axis, see `precise`."""
    index = precise(torch.arange(0, channels, 2, device=position.device))
    return precise(position)[..., None] * base ** (-index / channels)


def precise(position: Real[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """Positions in fp64, so that those of long streams stay exact; in fp32 on MPS devices, which have no fp64."""
    return position.to(torch.float32 if position.device.type == "mps" else torch.float64)


def picture_angles(
    rows: int, columns: int, channels: tuple[int, int], base: tuple[float, float], device: torch.device
) -> Float[Tensor, "r c p"]:
    """Angles of every place of a picture: those of its row, then those of its column."""
    sides = (torch.arange(side, device=device) for side in (rows, columns))
    down, across = (axis_angles(*each) for each in zip(sides, channels, base, strict=True))
    return torch.cat([down[:, None].expand(-1, columns, -1), across[None].expand(rows, -1, -1)], dim=-1)


def rotate_neighbours(x: Float[Tensor, "b t n h e"], turn: Turn) -> Float[Tensor, "b t n h e"]:
    """Rotate the pairs of channels 0 and 1, 2 and 3, ..., in fp32; the result has the number format of `x`."""
    cosine, sine = (part[..., None, :] for part in turn)
    first, second = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    rotated = torch.stack([first * cosine - second * sine, first * sine + second * cosine], dim=-1)
    return rotated.flatten(-2).type_as(x)


def rotate_halves(x: Float[Tensor, "b t n h e"], turn: Turn) -> Float[Tensor, "b t n h e"]:
    """As `rotate_neighbours`, but channel `i` of the first half is paired with channel `i` of the second."""
    cosine, sine = (part[..., None, :] for part in turn)
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], dim=-1).type_as(x)
