"""A recorded episode beside the dream of it, as a video."""

from collections.abc import Mapping, Sequence

import numpy as np
from einops import repeat
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from worldmodel.data import EpisodeSource
from worldmodel.dreams.context import CONTEXT_FRAMES, check_views, context_of
from worldmodel.world_model import WorldModel

LABEL_HEIGHT = 20
PICTURE_HEIGHT = 256
"""A view is enlarged by the whole number that brings it closest to this height, in pixels."""


def dream_episode(
    world: WorldModel,
    source: EpisodeSource,
    episode: int,
    *,
    start: int = 0,
    horizon: int | None = None,
    num_steps: int = 2,
    seed: int = 0,
) -> tuple[UInt8[Tensor, "m v H W 3"], UInt8[Tensor, "m v H W 3"]]:
    """The recorded frames after the context, and the dream of them under the recorded actions.

    Raises:
        ValueError: The data does not fit the world model, or the stretch lies outside the episode.
    """
    check_views(world, source)
    if not 0 <= episode < len(source):
        raise ValueError(f"{source.name}: episode={episode}, the data has {len(source)} episodes")
    frames = len(range(start, source.lengths[episode], world.stride))
    available = frames - CONTEXT_FRAMES
    horizon = available if horizon is None else horizon
    if start < 0 or not 0 < horizon <= available:
        raise ValueError(
            f"{source.name}: episode {episode} has {source.lengths[episode]} frames; start={start} "
            f"and {CONTEXT_FRAMES} context frames leave {max(available, 0)}, horizon={horizon}"
        )
    stop = start + (CONTEXT_FRAMES + horizon - 1) * world.stride + 1
    clip = source.read(episode, start, stop, world.stride).map(lambda tensor: tensor[None])
    dream = world.rollout(context_of(clip), clip.actions[:, CONTEXT_FRAMES - 1 :], num_steps=num_steps, seeds=seed)
    return clip.frames[0, CONTEXT_FRAMES:], dream.frames[0].cpu()


def compare(
    truth: UInt8[Tensor, "m v H W 3"], dream: UInt8[Tensor, "m v H W 3"], views: Sequence[str]
) -> UInt8[np.ndarray, "m height width 3"]:
    """The truth above the dream, views side by side with their names, enlarged without smoothing."""
    return side_by_side({"truth": truth, "dream": dream}, views)


def side_by_side(
    kinds: Mapping[str, UInt8[Tensor, "t v H W 3"]], views: Sequence[str]
) -> UInt8[np.ndarray, "t height width 3"]:
    """One row for each kind of frames, cameras side by side with their names, enlarged."""
    rows = []
    for kind, frames in kinds.items():
        scale = max(1, round(PICTURE_HEIGHT / frames.shape[2]))
        large = repeat(frames.cpu(), "t v H W c -> t (H p) (v W q) c", p=scale, q=scale).numpy()
        label = label_strip([f"{kind} - {view}" for view in views], frames.shape[3] * scale)
        rows += [repeat(label, "h w c -> t h w c", t=len(large)), large]
    return np.concatenate(rows, axis=1)


def label_strip(texts: Sequence[str], width: int) -> UInt8[np.ndarray, "h w 3"]:
    """White words on black, one text per `width` pixels."""
    strip = Image.new("RGB", (width * len(texts), LABEL_HEIGHT))
    draw = ImageDraw.Draw(strip)
    font = ImageFont.load_default(14)
    for index, text in enumerate(texts):
        draw.text((index * width + 6, 2), text, fill="white", font=font)
    return np.array(strip)
