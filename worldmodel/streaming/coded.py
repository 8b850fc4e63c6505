"""Clips as a codec sees them: latents that stand for one frame, or for a chunk of several, and what happens between."""

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from worldmodel.data.clip import Clip
from worldmodel.model.codec import LatentCodec


@dataclass(frozen=True)
class CodedClip:
    """A clip of `l` latents of `k` frames each; the first latent is one frame.

    Attributes:
        latents: The frames, encoded.
        actions: Raw actions that lead from one latent to the next one, side by side; `None` without actions.
        states: Raw state at the last frame of each latent; `None` without states.
        reached: Raw states at all frames of each latent but the first.
    """

    latents: Float[Tensor, "b l v c h w"]
    actions: Float[Tensor, "b l-1 a"] | None
    states: Float[Tensor, "b l s"] | None
    reached: Float[Tensor, "b l-1 k s"] | None


def code_clip(codec: LatentCodec, clip: Clip) -> CodedClip:
    """Encode a clip; frames before those that fill whole chunks are left out."""
    size, skipped = codec.frames_per_latent, skipped_frames(clip.frames.shape[1], codec.frames_per_latent)
    frames, actions, states = clip.frames[:, skipped:], clip.actions, clip.states
    latents = codec.encode(frames) if size == 1 else codec.encode_clip(frames)
    if actions is not None:
        actions = rearrange(actions[:, skipped:], "b (l k) a -> b l (k a)", k=size)
    if states is None:
        return CodedClip(latents, actions, None, None)
    states = states[:, skipped:]
    return CodedClip(latents, actions, states[:, ::size], rearrange(states[:, 1:], "b (l k) s -> b l k s", k=size))


def skipped_frames(frames: int, size: int) -> int:
    """How many frames are before the one of the first latent, when the last chunk of `size` ends at the last frame."""
    return (frames - 1) % size


def latents_of(frames: int, size: int) -> int:
    """Number of latents of a training clip.

    Raises:
        ValueError: The frames do not fill whole chunks.
    """
    latents, rest = divmod(frames - 1, size)
    if rest:
        raise ValueError(f"frames {frames}: latents are 1 frame and then {size} each; the nearest is {frames - rest}")
    return 1 + latents


def held_actions(actions: Float[Tensor, "*b k a"], known: Int[Tensor, "*b"]) -> Float[Tensor, "*b k a"]:
    """The actions of a chunk of `k` frames, with the last of the first `known` ones in the place of later ones."""
    place = torch.arange(actions.shape[-2], device=actions.device).minimum(known[..., None] - 1)
    return actions.gather(-2, place[..., None].expand_as(actions))


def recoded(codec: LatentCodec, frames: UInt8[Tensor, "b t v H W 3"]) -> UInt8[Tensor, "b t v H W 3"]:
    """Frames encoded and decoded; where a latent is a chunk, the first frame is repeated until they fill chunks."""
    size = codec.frames_per_latent
    if size == 1:
        return codec.decode(codec.encode(frames))
    missing = (1 - frames.shape[1]) % size
    full = torch.cat([frames[:, :1].expand(-1, missing, -1, -1, -1, -1), frames], dim=1)
    return codec.decode_clip(codec.encode_clip(full))[:, missing:]


def by_latent(
    codec: LatentCodec, clip: Clip, known: Int[Tensor, "b l"] | None
) -> tuple[Clip, Float[Tensor, "b l k s"] | None]:
    """A clip whose frames are the last ones of its latents, and the states at all frames after the first.

    Args:
        codec: Encodes the clip, if its latents are several frames each; otherwise the clip stays as it is.
        clip: With actions.
        known: How many actions of each chunk are known.
    """
    if codec.frames_per_latent == 1:
        return clip, None if clip.states is None else clip.states[:, 1:, None]
    coded, size = code_clip(codec, clip), codec.frames_per_latent
    actions = rearrange(coded.actions, "b l (k a) -> b l k a", k=size)
    return Clip(
        frames=clip.frames[:, skipped_frames(clip.frames.shape[1], size) :: size],
        actions=rearrange(held_actions(actions, known), "b l k a -> b l (k a)"),
        states=coded.states,
        view_mask=clip.view_mask,
        pixel_mask=clip.pixel_mask,
        task=clip.task,
        latents=coded.latents,
    ), coded.reached


def drawn_known(shape: tuple[int, int], size: int, generator: torch.Generator) -> Int[Tensor, "b l"]:
    """How many actions of each chunk are known in training: all of them in half of the chunks."""
    some = 1 + (torch.rand(shape, generator=generator) * (size - 1)).floor().long()
    return torch.where(torch.rand(shape, generator=generator) < 0.5, size, some)
