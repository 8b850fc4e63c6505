"""Choose what a run trains on: episodes, random clips that depend on a seed and an index only, and what they hide."""

from collections.abc import Sequence
from dataclasses import fields

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool
from torch import Tensor

from worldmodel.data.clip import Clip, EpisodeSource, stack_clips

HELD_OUT = 8
"""Episodes that are held out by default; of a small data set a fifth, but at least one."""


def split_episodes(source: EpisodeSource, num_held_out: int | None) -> tuple[range, range]:
    """Episodes to train on, and the last ones, held out for validation; `None`: as many as `HELD_OUT` says.

    Raises:
        ValueError: If nothing is left to train on.
    """
    if num_held_out is None:
        num_held_out = min(HELD_OUT, max(len(source) // 5, 1), len(source) - 1)
    num_train = len(source) - num_held_out
    if num_train < 1:
        raise ValueError(
            f"{source.name}: {len(source)} episodes, of which --validation-episodes "
            f"{num_held_out} are held out: none left to train on"
        )
    return range(num_train), range(num_train, len(source))


def sample_clips(
    source: EpisodeSource,
    *,
    batch: int,
    length: int,
    stride: int,
    seed: int,
    index: int,
    episodes: Sequence[int],
    gap: int = 1,
    rows: slice = slice(None),
) -> Clip:
    """Batch `index` of random clips: a pure function of `seed` and `index`.

    Every window of the given episodes is equally likely. The second frame of a clip lies `gap`
    strides after the first, the others follow one another. Only the clips `rows` of the batch are read and returned.

    Raises:
        ValueError: If no episode is long enough.
    """
    span = (length + gap - 2) * stride + 1
    windows = np.array([max(source.lengths[e] - span + 1, 0) for e in episodes])
    if windows.sum() == 0:
        longest = max((source.lengths[e] for e in episodes), default=0)
        raise ValueError(f"{source.name}: the longest episode has {longest} frames, need {span}")
    ends = np.cumsum(windows)
    picks = np.random.default_rng((seed, index)).integers(ends[-1], size=batch)[rows]
    clips = []
    for pick in picks:
        which = int(np.searchsorted(ends, pick, side="right"))
        start = int(pick - ends[which] + windows[which])
        first = source.read(episodes[which], start, start + stride + 1, stride)
        rest = source.read(episodes[which], start + gap * stride, start + span, stride)
        clips.append(_join(first, rest))
    return stack_clips(clips)


def _join(first: Clip, rest: Clip) -> Clip:
    """The first frame of `first`, with the action there, before the frames of `rest`."""
    timeless = {"view_mask": rest.view_mask, "pixel_mask": rest.pixel_mask, "task": rest.task}
    columns = {f.name: (getattr(first, f.name), getattr(rest, f.name)) for f in fields(Clip)}
    joined = {
        name: None if late is None else torch.cat([early[:1], late])
        for name, (early, late) in columns.items()
        if name not in timeless
    }
    return Clip(**joined, **timeless)


def erased_patches(latent: tuple[int, ...], share: float, generator: torch.Generator) -> Bool[Tensor, "b t v 1 h w"]:
    """Draw a rectangle for a share of the clips' cameras, from some frame after the first to the last.

    Where a dream has lost an object, the frames that it reads show the background instead. The
    network can learn to draw the object again, from the state and older frames, only if this happens
    in training. The sides are an eighth to a half of the picture's.
    """
    batch, frames, views, _, *sides = latent
    cameras = (batch, views)
    chosen = torch.rand(*cameras, generator=generator) < share
    begin = torch.rand(*cameras, generator=generator) * (frames - 1)
    erased = chosen[:, None] & (torch.arange(frames)[:, None] > begin[:, None])
    inside = []
    for side in sides:
        width = 0.125 + 0.375 * torch.rand(*cameras, generator=generator)
        low = torch.rand(*cameras, generator=generator) * (1 - width)
        place = (torch.arange(side) + 0.5) / side - low[..., None]
        inside.append((place >= 0) & (place < width[..., None]))
    patch = rearrange(inside[0], "b v h -> b 1 v 1 h 1") & rearrange(inside[1], "b v w -> b 1 v 1 1 w")
    return rearrange(erased, "b t v -> b t v 1 1 1") & patch
