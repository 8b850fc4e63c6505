"""Dream every window under several noises: how far the dreams lie apart, and how wrong the first one is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64, UInt8
from torch import Tensor

from worldmodel.data.clip import EpisodeSource
from worldmodel.dreams.context import CONTEXT_FRAMES, context_of
from worldmodel.fidelity.comparison import dream, read_for
from worldmodel.fidelity.windows import Window
from worldmodel.streaming.noise import mix_seed
from worldmodel.world_model import WorldModel

FEWEST_DREAMS = 2
"""Of further dreams per window: one has no variance."""
FULL_NOISE = 1.0
"""Temperature of the further dreams of a world model that dreams without noise, which most do."""


@dataclass(frozen=True)
class Predictions:
    """What is compared, for every window and dreamed frame; all are root mean squares over pixels, on the scale 0..1.

    Attributes:
        error: Of the first dream.
        disagreement: Standard deviation of the further dreams. The first one is not among them: the mean error of
            several dreams contains their variance, so the two would be correlated by arithmetic alone.
        motion: How far the first dream has moved from the last recorded frame: what one knows without further dreams.
        episodes: The episode of every window.
    """

    error: Float64[np.ndarray, "n t"]
    disagreement: Float64[np.ndarray, "n t"]
    motion: Float64[np.ndarray, "n t"]
    episodes: Int64[np.ndarray, "n"]


@torch.no_grad()
def dream_seeds(
    world: WorldModel,
    source: EpisodeSource,
    windows: Sequence[Window],
    *,
    horizon: int,
    dreams: int,
    num_steps: int = 2,
    seed: int = 0,
    batch: int = 16,
    advance: Callable[[int], None] = lambda count: None,
) -> Predictions:
    """Dream the recorded actions of every window `1 + dreams` times.

    The first dream has the temperature of the world model. Where that is 0, the further ones have 1, as in training.

    Args:
        world: The world model.
        source: Held-out episodes.
        windows: Where dreams begin.
        horizon: Frames to dream.
        dreams: Further dreams of every window, at least 2.
        num_steps: Denoising steps per frame.
        seed: The first dream of window i has noise seed `seed + i`, as in `measure_fidelity`.
        batch: Number of windows that are dreamed at a time.
        advance: Called after each frame with the number of dreams.

    Raises:
        ValueError: There are fewer than 2 further dreams, or the world model dreams without noise.
    """
    check_noise(world, dreams, num_steps)
    parts: dict[str, list[Tensor]] = {"error": [], "disagreement": [], "motion": []}
    for first in range(0, len(windows), batch):
        chosen = windows[first : first + batch]
        clip = read_for(world, source, chosen, horizon=horizon)
        actions = None if clip.actions is None else clip.actions[:, CONTEXT_FRAMES - 1 :]
        own = [seed + first + index for index in range(len(chosen))]
        every = [own, *([mix_seed(each, number) for each in own] for number in range(1, dreams + 1))]
        options = {"horizon": horizon, "horizons": range(1, horizon + 1), "num_steps": num_steps, "advance": advance}
        dreamt = [
            dream(world.stream(context_of(clip), seeds=seeds), actions, temperature=scale, **options)
            for seeds, scale in zip(every, [None] + dreams * [world.config.temperature or FULL_NOISE], strict=True)
        ]
        truth, last = clip.frames[:, CONTEXT_FRAMES:], clip.frames[:, CONTEXT_FRAMES - 1 : CONTEXT_FRAMES]
        parts["error"].append(apart(dreamt[0], truth, clip.view_mask))
        parts["motion"].append(apart(dreamt[0], last.expand_as(truth), clip.view_mask))
        parts["disagreement"].append(spread(dreamt[1:], clip.view_mask))
    columns = {name: torch.cat(values).double().numpy() for name, values in parts.items()}
    return Predictions(**columns, episodes=np.array([window.episode for window in windows]))


def check_noise(world: WorldModel, dreams: int, num_steps: int) -> None:
    """Raise a `ValueError` where dreams cannot disagree."""
    if dreams < FEWEST_DREAMS:
        raise ValueError(f"--uncertainty is the number of further dreams, at least {FEWEST_DREAMS}, got {dreams}")
    if num_steps == 1 and not world.dit.reads_noise:
        raise ValueError(
            "--uncertainty compares dreams under other noise, and with --num-steps 1 there is none; pass --num-steps 2"
        )


def apart(
    one: UInt8[Tensor, "b t v H W 3"], other: UInt8[Tensor, "b t v H W 3"], present: Bool[Tensor, "b v"] | None
) -> Float[Tensor, "b t"]:
    """Root mean square difference of two rollouts, frame by frame; cameras that are not `present` do not count."""
    frames = [_squares(one[:, i].float() - other[:, i].float(), present) for i in range(one.shape[1])]
    return torch.stack(frames, dim=1).sqrt() / 255


def spread(dreams: Sequence[UInt8[Tensor, "b t v H W 3"]], present: Bool[Tensor, "b v"] | None) -> Float[Tensor, "b t"]:
    """Standard deviation over dreams, root mean square over pixels; Vista (2405.17398) has the variance."""
    frames = []
    for i in range(dreams[0].shape[1]):
        seen = torch.stack([each[:, i].float() for each in dreams])
        squares = (seen - seen.mean(0)).square().sum(0) / (len(dreams) - 1)
        frames.append(_squares(squares.sqrt(), present))
    return torch.stack(frames, dim=1).sqrt() / 255


def _squares(values: Float[Tensor, "b v H W 3"], present: Bool[Tensor, "b v"] | None) -> Float[Tensor, "b"]:
    """Mean square over the pixels of the cameras that are there."""
    squares = values.square().mean(dim=(2, 3, 4))
    if present is None:
        return squares.mean(dim=1)
    return (squares * present).sum(dim=1) / present.sum(dim=1)
