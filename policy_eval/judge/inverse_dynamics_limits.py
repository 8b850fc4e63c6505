"""Where frames can show an action: a limit for the predicted error of every action dim, found on held-out episodes.

Some moments cannot be decoded by anyone: a gripper that is closed already does not move when it is
told to close. There the model predicts a large error. The limit of a dim is the largest predicted
error up to which the actions of calibration episodes are explained to the wanted share.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from policy_eval.judge.inverse_dynamics import InverseDynamics, Reading
from worldmodel.data import Clip

LEAST = 0.1
"""A dim of which less than this share of the moments can be decoded is visible at no moment."""
RESAMPLES = 1000
TOLERANCE = 0.25
"""A decoded action is right if each visible dim is off by at most this share of its standard deviation."""


@dataclass(frozen=True)
class Decoded:
    """Decoded and commanded actions of one episode, in standard deviations of the commands.

    Attributes:
        decoded: Read from the frames.
        commanded: What was commanded.
        deviation: Predicted size of the error.
        seen: Where the actions count as visible.
    """

    decoded: Float[Tensor, "m a"]
    commanded: Float[Tensor, "m a"]
    deviation: Float[Tensor, "m a"]
    seen: Bool[Tensor, "m a"]


def decoded(dynamics: InverseDynamics, clip: Clip, reading: Reading, seen: Bool[Tensor, "1 m a"]) -> Decoded:
    """What was read from the one clip of a batch.

    Args:
        dynamics: The model that read it.
        clip: Its states and commands.
        reading: What was read.
        seen: Where it counts as visible, which the clip itself need not decide.
    """
    pair = [(actions - dynamics.mean) / dynamics.std for actions in (reading.actions, dynamics.commanded(clip))]
    return Decoded(*(tensor[0].cpu() for tensor in (*pair, reading.deviation, seen)))


def explained(
    error: Float64[np.ndarray, "*n"], command: Float64[np.ndarray, "*n"], seen: Bool[np.ndarray, "*n"]
) -> float:
    """R2 of the moments that are seen: 1 - squared errors / squared distances of the commands from their mean.

    NaN with fewer than two moments, or if the command is always the same.
    """
    commands = command[seen]
    spread = ((commands - commands.mean()) ** 2).sum() if len(commands) else 0.0
    return float(1 - (error[seen] ** 2).sum() / spread) if spread > 1e-9 else float("nan")


def find_limits(episodes: Sequence[Decoded], wanted: float) -> Float[Tensor, "a"]:
    """The limit of every dim.

    The moments are ordered by their predicted error. The limit is that of the last moment up to which
    at least `wanted` of the variance is explained; infinite where that holds for all moments, and 0
    where it holds for less than `LEAST` of them: then the dim is visible at no moment.

    Args:
        episodes: Calibration episodes, held out from the training.
        wanted: Share of the variance, 0 to 1.
    """
    joined = [
        torch.cat([getattr(e, name) for e in episodes]).double() for name in ("decoded", "commanded", "deviation")
    ]
    read, commands, deviation = joined
    order = deviation.argsort(dim=0, stable=True)
    errors, commands, deviation = ((x.gather(0, order)) for x in (read - commands, commands, deviation))
    count = torch.arange(1, len(errors) + 1)[:, None]
    spread = commands.square().cumsum(0) - commands.cumsum(0).square() / count
    good = errors.square().cumsum(0) <= (1 - wanted) * spread
    enough = good & (spread > 1e-9) & (count >= LEAST * len(errors))
    limits = torch.where(enough, deviation, 0.0).amax(0)
    return torch.where(enough[-1], torch.inf, limits).float()


def measure(episodes: Sequence[Decoded]) -> dict:
    """How well actions are decoded.

    Returns:
        Of the moments and dims that are visible: `within` (share of the actions that are off by at most
        `TOLERANCE` in each, of those with any), `explained` (share of the variance of all dims together) and `error`
        (mean square). `n` actions, and `dims`: for each dim `explained` with its `interval` (95%, episodes drawn
        anew), `explained_everywhere` (visible or not) and `visible` (share of the moments). `None` where there is
        nothing to measure.
    """
    errors = [(e.decoded - e.commanded).double().numpy() for e in episodes]
    commands = [e.commanded.double().numpy() for e in episodes]
    seen = [e.seen.numpy() for e in episodes]
    error, command, mask = (np.concatenate(parts) for parts in (errors, commands, seen))
    centred = command - (command * mask).sum(0) / np.maximum(mask.sum(0), 1)
    spread = (centred**2)[mask].sum()
    right = ((np.abs(error) <= TOLERANCE) | ~mask).all(1)[mask.any(1)]
    return {
        "within": float(right.mean()) if len(right) else None,
        "explained": float(1 - (error**2)[mask].sum() / spread) if spread > 1e-9 else None,
        "error": float((error**2)[mask].mean()) if mask.any() else None,
        "n": len(error),
        "dims": [
            _measure_dim(*([part[:, dim] for part in parts] for parts in (errors, commands, seen)))
            for dim in range(error.shape[1])
        ],
    }


def _measure_dim(errors: list, commands: list, seen: list) -> dict:
    error, command, mask = (np.concatenate(parts) for parts in (errors, commands, seen))
    return {
        "explained": _number(explained(error, command, mask)),
        "interval": _interval(errors, commands, seen),
        "explained_everywhere": _number(explained(error, command, np.ones_like(mask))),
        "visible": float(mask.mean()),
    }


def _interval(errors: list, commands: list, seen: list) -> list[float] | None:
    """95% percentile interval of R2 over episodes; `None` with fewer than two episodes that show the dim."""
    rows = [
        (mask.sum(), command[mask].sum(), (command[mask] ** 2).sum(), (error[mask] ** 2).sum())
        for error, command, mask in zip(errors, commands, seen, strict=True)
        if mask.any()
    ]
    if len(rows) < 2:
        return None
    drawn = np.random.default_rng(0).integers(len(rows), size=(RESAMPLES, len(rows)))
    count, total, squares, missed = np.moveaxis(np.array(rows, float)[drawn].sum(1), -1, 0)
    spread = squares - total**2 / count
    found = 1 - missed[spread > 1e-9] / spread[spread > 1e-9]
    return [float(end) for end in np.quantile(found, [0.025, 0.975])] if len(found) else None


def _number(value: float) -> float | None:
    return None if np.isnan(value) else value
