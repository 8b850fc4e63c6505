"""Attention of the two passes over frames and space: over whole clips, and over the ring of a stream.

The first frame stays visible for ever, but at most `window` frames behind the frame that is read: its keys are
rotated again by what lies beyond. The noisy frame sees itself and the clean frames that the frame before it sees.
"""

from collections.abc import Callable

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from worldmodel.model.layers import TimeCache, TimeStep

Keys = Float[Tensor, "b _ n h e"]
Late = Callable[[Keys], Keys]
"""Rotates keys of the first frame, one copy for each frame that reads them."""
SPARE = 2
"""Slots of the cache after the ring: one for the noisy frame, one for the first frame's keys at position 0."""


def clip_mask(visible: Bool[Tensor, "q t"], *, copies: bool, own: bool) -> Bool[Tensor, "q k"]:
    """Which frames' keys each frame reads, in the order of `attend_to_clip`.

    Args:
        visible: Which clean frames it sees.
        copies: Whether there is a copy of the first frame for each frame that reads it.
        own: Whether the frames are noisy, and see themselves, too.
    """
    itself = torch.eye(len(visible), dtype=torch.bool, device=visible.device)
    first = visible[:, :1] & itself if copies else visible[:, :1]
    return torch.cat([first, visible[:, 1:], *([itself] if own else [])], dim=1)


def token_mask(frames: Bool[Tensor, "q k"], cells: Bool[Tensor, "b n"] | None, tokens: int) -> Bool[Tensor, "..."]:
    """The mask of frames as one of tokens, without the tokens where `cells` is false: `b 1 q k`, or `1 1 q k`."""
    mask = frames.repeat_interleave(tokens, 0).repeat_interleave(tokens, 1)[None, None]
    return mask if cells is None else mask & cells.repeat(1, frames.shape[1])[:, None, None]


def attend_to_clip(
    q: Keys, past: tuple[Keys, Keys], own: tuple[Keys, Keys] | None, late: Late | None, mask: Bool[Tensor, "..."]
) -> Keys:
    """Attend to the clean frames, and to noisy frames of one's own.

    Args:
        q: Queries of the frames that read.
        past: Keys and values of the clean frames.
        own: Those of the noisy frames.
        late: Makes the copies of the first frame, where one of the frames is more than a window behind.
        mask: From `token_mask`.
    """
    parts = []
    for index, all_frames in enumerate(past):
        first, rest = all_frames[:, :1], all_frames[:, 1:]
        if late is not None:
            first = first.expand(-1, q.shape[1], -1, -1, -1)
            first = first if index else late(first)
        parts.append(torch.cat([first, rest, *([] if own is None else [own[index]])], dim=1))
    return _attend(q, *parts, mask)


def show_first_frame(cache: TimeCache, late: Late) -> None:
    """Rotate the first frame's keys in the ring from the copy at position 0, once per frame."""
    whole = rearrange(cache.keys[:, :, -1:], "l b t n h e -> (l b) t n h e")
    cache.keys[:, :, :1] = rearrange(late(whole), "(l b) t n h e -> l b t n h e", l=len(cache.keys))


def write_clean(step: TimeStep, layer: int, k: Keys, v: Keys) -> None:
    """Write a clean frame to its slot; the first frame also to the slot that is never rotated."""
    cache = step.cache
    cache.write(layer, step.slot, k[:, 0], v[:, 0])
    keys = cache.keys[layer]
    first = (step.frame == 0)[:, None, None, None]
    keys[:, -1] = torch.where(first, k[:, 0].to(keys.dtype), keys[:, -1])


def attend_to_ring(
    q: Keys, layer: int, step: TimeStep, own: tuple[Keys, Keys] | None, cells: Bool[Tensor, "b n"] | None
) -> Keys:
    """Attend to the ring of a stream, and to a noisy frame of one's own, which is written behind the ring."""
    cache, slots = step.cache, step.cache.window + 1
    seen = cache.frame_index[:, :slots] >= 0
    if own is not None:
        for kept, fresh in zip((cache.keys, cache.values), own, strict=True):
            kept[layer][:, slots] = fresh[:, 0].to(kept.dtype)
        slots += 1
        seen = torch.cat([seen, seen.new_ones(len(seen), 1)], dim=1)
    mask = seen.repeat_interleave(q.shape[2], dim=1)
    if cells is not None:
        mask = mask & cells.repeat(1, slots)
    keys, values = (kept[layer][:, :slots].to(q.dtype) for kept in (cache.keys, cache.values))
    return _attend(q, keys, values, mask[:, None, None])


def _attend(q: Keys, k: Keys, v: Keys, mask: Bool[Tensor, "..."]) -> Keys:
    flat = (rearrange(part, "b t n h e -> b h (t n) e") for part in (q, k, v))
    y = F.scaled_dot_product_attention(*flat, attn_mask=mask)
    return rearrange(y, "b h (t n) e -> b t n h e", t=q.shape[1])


def attend_to_text(
    q: Float[Tensor, "b t n h e"], k: Float[Tensor, "l h e"], v: Float[Tensor, "l h e"], bias: Float[Tensor, " l"]
) -> Float[Tensor, "b t n d"]:
    """Attend to the tokens of the prompt, the same for all frames, whose scores get `bias`; heads side by side."""
    flat = rearrange(q.type_as(v), "b t n h e -> b h (t n) e")
    k, v = (rearrange(part.type_as(v), "l h e -> 1 h l e").expand(len(q), -1, -1, -1) for part in (k, v))
    y = F.scaled_dot_product_attention(flat, k, v, attn_mask=bias.to(v.dtype)[None, None, None])
    return rearrange(y, "b h (t n) e -> b t n (h e)", t=q.shape[1])


def frames_late(frame: Int[Tensor, "f q"], window: int) -> Int[Tensor, "f q"]:
    """How far beyond the window the first frame lies behind each frame."""
    return (frame - window).clamp(min=0)
