"""Ranges of actions and states over the episodes of a data set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float32
from torch import Tensor

from conditioning.angles import Angles, found_angles, shortest
from conditioning.relative import relative_actions
from worldmodel.data.clip import EpisodeSource


@dataclass(frozen=True)
class Range:
    """Per-dimension statistics of a table of rows."""

    low: Float32[Tensor, "d"]
    high: Float32[Tensor, "d"]
    mean: Float32[Tensor, "d"]
    std: Float32[Tensor, "d"]
    q01: Float32[Tensor, "d"]
    q99: Float32[Tensor, "d"]

    @property
    def root_mean_square(self) -> Float32[Tensor, "d"]:
        """The size of the values, which is not 0 even if they hardly differ from one another."""
        return (self.mean.square() + self.std.square()).sqrt()

    @classmethod
    def of(cls, rows: Float32[Tensor, "n d"]) -> "Range":
        """Statistics of the rows."""
        quantiles = np.quantile(rows.numpy(), [0.01, 0.99], axis=0).astype(np.float32)
        return cls(
            low=rows.amin(0),
            high=rows.amax(0),
            mean=rows.mean(0),
            std=rows.std(0, correction=0),
            q01=torch.from_numpy(quantiles[0]),
            q99=torch.from_numpy(quantiles[1]),
        )


@dataclass(frozen=True)
class Statistics:
    """Ranges of actions and states and the spread of the change of state between frames.

    Each is `None` when the data has no actions or states.
    """

    action: Range | None
    state: Range | None
    displacement: Range | None


def action_state_statistics(
    source: EpisodeSource,
    *,
    episodes: Sequence[int] | None = None,
    relative_to: Mapping[int, int] | None = None,
    stride: int = 1,
    angles: Angles | None = None,
) -> Statistics:
    """Statistics over episodes, as the model sees them.

    Main arguments: `source` and its `episodes` (all by default).
    Other arguments: action dims in `relative_to` have the state at the frame subtracted, in every
    element of a chunk of `stride` actions; changes of the state dims in `angles` are taken the short way round.

    Raises:
        ValueError: If no episode is long enough for one stride.
    """
    actions, states, displacements = [], [], []
    for episode in range(len(source)) if episodes is None else episodes:
        clip = source.columns(episode, stride)
        if clip.states is not None:
            states.append(clip.states)
            displacements.append(shortest(clip.states.diff(dim=0), angles or {}))
        if clip.actions is not None:
            chunks = rearrange(clip.actions, "t (k a) -> t k a", k=stride)
            if relative_to:
                chunks = relative_actions(chunks, clip.states[:-1, None], relative_to, angles=angles)
            actions.append(rearrange(chunks, "t k a -> t (k a)"))
    parts = [torch.cat(rows) if rows else None for rows in (actions, states, displacements)]
    if any(rows is not None and len(rows) == 0 for rows in parts):
        raise ValueError(
            f"{source.name}: no episode has {stride + 1} frames, the least for a stride of "
            f"{stride}; the longest has {max(source.lengths)}"
        )
    return Statistics(*(None if rows is None else Range.of(rows) for rows in parts))


def state_angles(
    source: EpisodeSource, chosen: Sequence[int] | Literal["auto", "none"]
) -> dict[int, tuple[float, float]]:
    """The state dims that are angles, each with the interval at whose ends it wraps.

    Args:
        source: The data.
        chosen: The dims; or `auto`: those that jump by a whole turn somewhere in the data; or `none`.

    Raises:
        ValueError: There is no such dim, or its values span more than a turn of 360.
    """
    if chosen == "none" or not source.state_dim:
        return {}
    states = [source.columns(episode).states for episode in range(len(source))]
    found = found_angles(states)
    if chosen == "auto":
        return found
    wrong = [dim for dim in chosen if not 0 <= dim < source.state_dim]
    if wrong:
        raise ValueError(f"{source.name}: --angles {wrong[0]} is not one of {source.state_dim} state dims")
    values = torch.cat(states)
    return {dim: found.get(dim) or _interval(source.name, dim, values[:, dim]) for dim in chosen}


def _interval(name: str, dim: int, values: Float32[Tensor, "n"]) -> tuple[float, float]:
    """The interval, of one turn in radians or degrees, that holds all values of an angle."""
    for turn in (2 * torch.pi, 360.0):
        for low in (-turn / 2, 0.0):
            if values.min() >= low - 0.01 * turn and values.max() <= low + 1.01 * turn:
                return low, low + turn
    raise ValueError(f"{name}: state dim {dim} is {values.min():.4g} to {values.max():.4g}, more than one turn")
