"""Ranges of actions and states over the episodes of a data set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float32
from torch import Tensor

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
) -> Statistics:
    """Statistics over episodes, as the model sees them.

    Main arguments: `source` and its `episodes` (all by default).
    Other arguments: action dims in `relative_to` have the state at the frame subtracted, in every
    element of a chunk of `stride` actions.

    Raises:
        ValueError: If no episode is long enough for one stride.
    """
    actions, states, displacements = [], [], []
    for episode in range(len(source)) if episodes is None else episodes:
        clip = source.columns(episode, stride)
        if clip.states is not None:
            states.append(clip.states)
            displacements.append(clip.states.diff(dim=0))
        if clip.actions is not None:
            chunks = rearrange(clip.actions, "t (k a) -> t k a", k=stride)
            if relative_to:
                chunks = relative_actions(chunks, clip.states[:-1, None], relative_to)
            actions.append(rearrange(chunks, "t k a -> t (k a)"))
    parts = [torch.cat(rows) if rows else None for rows in (actions, states, displacements)]
    if any(rows is not None and len(rows) == 0 for rows in parts):
        raise ValueError(
            f"{source.name}: no episode has {stride + 1} frames, the least for a stride of "
            f"{stride}; the longest has {max(source.lengths)}"
        )
    return Statistics(*(None if rows is None else Range.of(rows) for rows in parts))
