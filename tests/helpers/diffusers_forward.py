"""Diffusers' own forward of the transformers of `tiny_backbone`, over frames that each see only some of the others."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from diffusers import WanTransformer3DModel
from diffusers.models.transformers.transformer_cosmos import CosmosAttnProcessor2_0
from diffusers.models.transformers.transformer_wan import WanAttnProcessor
from einops import rearrange, repeat
from torch import Tensor


class MaskedWan(WanAttnProcessor):
    """Wan's attention under a mask."""

    def __init__(self, mask):
        super().__init__()
        self.mask = mask

    def __call__(self, attn, hidden, text=None, mask=None, turn=None):
        return super().__call__(attn, hidden, text, self.mask, turn)


class MaskedCosmos(CosmosAttnProcessor2_0):
    """Cosmos's attention under a mask."""

    def __init__(self, mask):
        super().__init__()
        self.mask = mask

    def __call__(self, attn, hidden, encoder_hidden_states=None, attention_mask=None, image_rotary_emb=None):
        return super().__call__(attn, hidden, encoder_hidden_states, self.mask, image_rotary_emb)


def velocities(transformer, frames: Tensor, tau: Tensor, position: Tensor, text: Tensor, seen: Tensor) -> Tensor:
    """The velocity of every frame.

    Args:
        transformer: Wan or Cosmos; it is left with masked attention, and no longer part of a world model.
        frames: `b t v c h w`, those of the clean pass and noisy ones.
        tau: Their noise levels, `b t`; it is 1 in the clean pass.
        position: Their places on the time axis, whole numbers.
        text: Tokens of the prompt with the padding.
        seen: Which frames each frame sees.
    """
    wan, views = isinstance(transformer, WanTransformer3DModel), frames.shape[2]
    tiled = rearrange(frames, "b t v c h w -> b c t h (v w)")
    text = repeat(text, "l d -> b l d", b=len(frames))
    tokens = tiled[0, 0, 0].numel() // 4
    mask = seen.repeat_interleave(tokens, 0).repeat_interleave(tokens, 1)
    for block in transformer.blocks if wan else transformer.transformer_blocks:
        block.attn1.set_processor(MaskedWan(mask) if wan else MaskedCosmos(mask))
        vars(block).pop("forward", None)  # that of `PretrainedDiT`
    forward = _wan if wan else _cosmos
    return rearrange(forward(transformer, tiled, tau, position, text, tokens), "b c t h (v w) -> b t v c h w", v=views)


def _wan(wan, tiled, tau, position, text, tokens):
    with _at(wan.rope, position, lambda part: rearrange(part, "1 (t n) 1 d -> t n d", n=tokens)):
        levels = 1000 * (1 - tau).repeat_interleave(tokens, 1)
        return wan(tiled, levels, text, return_dict=False)[0]


def _cosmos(cosmos, tiled, tau, position, text, tokens):
    """As the pipelines call it: 2 with frames per second and known frames at 1e-4, 2.5 without and at 0.1."""
    newer, (batch, _, frames, *sides) = cosmos.config.use_crossattn_projection, tiled.shape
    levels = torch.where(tau == 1, 0.1 if newer else 1e-4, 1 - tau)[:, None, :, None, None]
    known = (tau == 1).float()[:, None, :, None, None].expand(batch, 1, frames, *sides)
    given = {"condition_mask": known, "padding_mask": torch.zeros(1, 1, *sides), "fps": None if newer else 16}
    with _at(cosmos.rope, position, lambda part: rearrange(part, "(t n) d -> t n d", n=tokens)):
        return cosmos(tiled, levels, text, **given, return_dict=False)[0]


@contextmanager
def _at(rope, position: Tensor, apart: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """The rotary embedding of frames at these positions in place of 0, 1, 2, ..."""
    plain, length = rope.forward, int(position.max()) + 1

    def moved(hidden, **given):
        parts = plain(hidden.new_zeros(1, 1, length, *hidden.shape[-2:]), **given)
        flat = [apart(part)[position].flatten(0, 1) for part in parts]
        return flat if parts[0].dim() == 2 else [part[None, :, None] for part in flat]

    rope.forward = moved
    yield
    rope.forward = plain
