"""Drawn steps of a striped square over a smooth floor, and four ways to predict the next frame."""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from rl_posttrain.rewards.predictions import Predictions
from worldmodel.data import Clip

SIDE = 64
WAYS = ("right", "blurred", "erased", "frozen")
"""From best to worst."""


def floor() -> Tensor:
    """A smooth slope of grey, 3 x 64 x 64."""
    return (0.4 * torch.linspace(0, 1, SIDE) - 0.6).expand(3, SIDE, SIDE)


def frame_of(row: int, column: int) -> Tensor:
    """The floor with the square on it."""
    frame = floor().clone()
    frame[:, row : row + 16, column : column + 16] = 0.9
    frame[1:, row : row + 16 : 4, column : column + 16] = -0.9
    return frame


def drawn(way: str, *, batch: int = 4, seed: int = 0) -> Predictions:
    """Steps in which the square moves by 12 pixels, with next frames that are predicted in one of `WAYS`."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.randint(4, SIDE - 32, (batch, 2), generator=generator).tolist()
    before = torch.stack([frame_of(row, column) for row, column in corners])
    after = torch.stack([frame_of(row + 12, column + 12) for row, column in corners])
    guess = {
        "right": after + 0.002 * torch.randn(after.shape, generator=generator),
        "blurred": avg_pool2d(after, 3, stride=1, padding=1, count_include_pad=False),
        "erased": floor().expand_as(after).clone(),
        "frozen": before,
    }[way]
    return predictions(guess, after, before)


def predictions(guess: Tensor, after: Tensor, before: Tensor, clip: Clip | None = None) -> Predictions:
    """One predicted frame of one camera for each row; all of them are picked."""
    stacked = [part[:, None, None].clone() for part in (guess, after, before)]
    clip = Clip(torch.zeros(len(after), 2, 1, SIDE, SIDE, 3, dtype=torch.uint8)) if clip is None else clip
    return Predictions(stacked[0].requires_grad_(), *stacked[1:], None, torch.arange(len(after)), clip)
