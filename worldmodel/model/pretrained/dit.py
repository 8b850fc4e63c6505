"""A pretrained video transformer as the network of a world model: two passes of the same weights over every frame.

The clean pass (`encode`) reads a finished frame at noise level 0 and leaves its keys and values. The noisy pass
(`decode`) reads a guess of the next frame, attends to those of the past and to itself, and runs once per denoising
step. In training both run over all frames of a clip at once, which is teacher forcing; in a stream the keys and values
are in a ring (Self-Forcing, 2506.08009).

Actions, states and step size are told through vectors that are added to the embedding of the noise level, as in
Cosmos-Predict2 (2501.03575), by layers that start at zero: at first the network computes what the transformer does.
The cameras of a frame lie side by side, like one wide picture.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from conditioning.conditioner import Conditioning
from conditioning.noise import NoiseLevelEmbedding
from worldmodel.model.flow import expand
from worldmodel.model.layers import TimeCache, TimeStep, Visibility, causal_visibility
from worldmodel.model.pretrained.adapters import adapters_of, add_adapters, is_adapter
from worldmodel.model.pretrained.attention import (
    SPARE,
    Keys,
    attend_to_clip,
    attend_to_ring,
    clip_mask,
    frames_late,
    show_first_frame,
    token_mask,
    write_clean,
)
from worldmodel.model.pretrained.config import PretrainedConfig
from worldmodel.model.pretrained.encoded import Clean
from worldmodel.model.pretrained.family import Family, Levels, Turn
from worldmodel.model.pretrained.rotary import precise

Attend = Callable[[int, Keys, Keys, Keys], Keys]
"""(layer, queries, keys, values) -> what the queries read."""
Text = tuple[Float[Tensor, "k s"], Float[Tensor, "k"]]
"""The prompt as the blocks read it, and a bias of the scores of its tokens."""


class PretrainedDiT(nn.Module):
    """A pretrained transformer behind the protocol `Backbone`.

    Args:
        config: Its settings.
        family: The transformer, and how it is called.
        num_views: Cameras.
        latent_shape: `(c, h, w)` of one view's latent.
        state_dim: Width of the state; 0 for none. The state is predicted from the last tokens, without noise.
        spacing: Positions on the time axis from one frame to the next; need not be whole.

    Raises:
        ValueError: If the latent does not fit the transformer.
    """

    separable = False
    rewrites = False
    reads_noise = True

    def __init__(
        self,
        config: PretrainedConfig,
        family: Family,
        *,
        num_views: int,
        latent_shape: tuple[int, int, int],
        state_dim: int,
        spacing: float,
    ):
        super().__init__()
        channels, height, width = latent_shape
        if channels != family.channels:
            raise ValueError(f"{config.backbone}: latents have {channels} channels, the transformer {family.channels}")
        if height % family.patch or width % family.patch:
            raise ValueError(f"latent {height}x{width} is not a multiple of patch {family.patch}")
        self.config, self.family, self.spacing = config, family, spacing
        self.transformer = family.transformer
        self.grid = (num_views, height // family.patch, width // family.patch)
        self.num_tokens = math.prod(self.grid)
        self.register_buffer("prompt", torch.zeros(config.prompt_tokens, family.text_width))
        self.noise_level = NoiseLevelEmbedding(config.width)
        self.view_embedding = nn.Parameter(torch.zeros(num_views, 1, family.width))
        self.told = nn.ModuleList(nn.Linear(config.width, width) for width in family.level_widths)
        self.state_out = _state_head(family.width + config.width, config.width, state_dim) if state_dim else None
        for layer in self.told:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        for block in family.blocks:  # called as modules, so that FSDP gathers the weights of one after another
            block.forward = partial(self._run, block)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.view_embedding.device

    @property
    def borrowed(self) -> frozenset[str]:
        """The pretrained weights, unless they are trained themselves."""
        if not self.config.lora_rank:
            return frozenset()
        return frozenset(f"transformer.{name}" for name in self.transformer.state_dict() if not is_adapter(name))

    @property
    def window(self) -> int:
        """Frames of history that a frame sees, besides the first frame."""
        return self.config.window

    def new_cache(self, num_streams: int, dtype: torch.dtype) -> TimeCache:
        """An empty cache of `num_streams` streams, on the device of the weights."""
        family, layers = self.family, len(self.family.blocks)
        sizes = (layers, num_streams, self.num_tokens, family.heads, family.head_width, self.window)
        return TimeCache(*sizes, self.device, dtype, spare=SPARE)

    def add_adapter(self, rank: int) -> None:
        """Add one more adapter to the transformer, which alone is trained from now on; its effect begins at 0."""
        self.requires_grad_(False)
        self.config = replace(self.config, posttrained=(*self.config.posttrained, rank))
        add_adapters(self.transformer, self.family.adapted, adapters_of(self.config))

    # The two passes

    def encode(
        self,
        latents: Float[Tensor, "b t v c h w"],
        conditioning: Conditioning,
        *,
        view_mask: Bool[Tensor, "b v"] | None = None,
        history: int | None = None,
        gap: int = 1,
        reference: Float[Tensor, "b v c h w"] | None = None,
        visibility: Visibility | None = None,
        step: TimeStep | None = None,
    ) -> Clean:
        """The clean pass; the arguments are those of `VideoDiT.encode`. The `reference` is not used."""
        frames = latents.shape[1]
        cells = None if view_mask is None else view_mask.repeat_interleave(self.grid[1] * self.grid[2], dim=1)
        if step is None:
            seen = visibility or causal_visibility(frames, history or self.window, latents.device, gap=gap)
            clean = Clean((), seen.distance[:, 0][None], seen.visible, conditioning, cells, None)
        else:
            alone = torch.ones(1, 1, dtype=torch.bool, device=latents.device)
            clean = Clean((), step.frame[:, None], alone, conditioning, cells, step)
            show_first_frame(step.cache, self._late(step.frame[:, None], len(self.family.blocks)))
        one = torch.ones(latents.shape[:2], device=latents.device)
        x, levels = self._enter(latents, conditioning, one, one)
        turn = self._turn(clean.frame)
        past, attend, text = [], self._attention(clean, noisy=False), self._text()
        for layer, block in enumerate(self.family.blocks):
            x, k, v = block(layer, x, levels, turn, text, attend)
            if step is None:
                past.append((k, v))
        return Clean(tuple(past), clean.frame, clean.visible, conditioning, cells, step)

    def decode(
        self,
        encoded: Clean,
        noisy: Float[Tensor, "b t v c h w"],
        noisy_state: Float[Tensor, "b t s"] | None,
        tau: Float[Tensor, "b t"],
        step_size: Float[Tensor, "b t"],
    ) -> tuple[Float[Tensor, "b t v c h w"], Float[Tensor, "b t s"] | None]:
        """The noisy pass: predict the clean next latents and state displacements.

        The state is not denoised, so `noisy_state` is not used.
        """
        x, levels = self._enter(noisy, encoded.conditioning, tau, step_size)
        turn = self._turn(encoded.frame + 1)
        attend, text = self._attention(encoded, noisy=True), self._text()
        for layer, block in enumerate(self.family.blocks):
            x, _, _ = block(layer, x, levels, turn, text, attend)
        latent = self.family.leave(x, levels, self.grid).float()
        if self.family.predicts == "velocity":
            latent = noisy - expand(1 - tau, noisy) * latent
        if self.state_out is None:
            return latent, None
        told = self._told(encoded.conditioning, tau, step_size)
        return latent, self.state_out(torch.cat([x.float().mean(dim=2), told], dim=-1))

    # One block

    def _run(self, block: nn.Module, *given: object) -> tuple[Tensor, Tensor, Tensor]:
        """One block, see `_block`; in training it is computed again in the backward pass."""
        if self.config.recompute and torch.is_grad_enabled():
            return checkpoint(self._block, block, *given, use_reentrant=False)
        return self._block(block, *given)

    def _block(
        self, block: nn.Module, layer: int, x: Tensor, levels: Levels, turn: Turn, text: Text, attend: Attend
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One block; returns its tokens, and the keys and values of its attention."""
        q, k, v = self.family.queries(block, x, levels)
        q, k = self.family.rotate(q, turn), self.family.rotate(k, turn)
        attended = attend(layer, q, k, v)
        return self.family.after(block, x, attended, levels, *text), k, v

    def _attention(self, clean: Clean, *, noisy: bool) -> Attend:
        """How the queries of a pass attend, in a clip or in a stream."""
        if clean.step is not None:

            def in_stream(layer: int, q: Keys, k: Keys, v: Keys) -> Keys:
                if not noisy:
                    write_clean(clean.step, layer, k, v)
                return attend_to_ring(q, layer, clean.step, (k, v) if noisy else None, clean.mask)

            return in_stream
        late = self._late(clean.frame) if bool((clean.frame > self.window).any()) else None
        seen = clip_mask(clean.visible, copies=late is not None, own=noisy)
        mask = token_mask(seen, clean.mask, self.num_tokens)

        def in_clip(layer: int, q: Keys, k: Keys, v: Keys) -> Keys:
            past = clean.past[layer] if noisy else (k, v)
            return attend_to_clip(q, past, (k, v) if noisy else None, late, mask)

        return in_clip

    # Into tokens

    def _enter(
        self, latents: Tensor, conditioning: Conditioning, tau: Tensor, step_size: Tensor
    ) -> tuple[Tensor, Levels]:
        x = self.family.enter(latents, tau)
        x = rearrange(x + self.view_embedding.to(x.dtype), "b t v l d -> b t (v l) d")
        told = F.silu(self._told(conditioning, tau, step_size))
        levels = self.family.levels(tau)
        return x, tuple(level + layer(told).float() for level, layer in zip(levels, self.told, strict=True))

    def _told(self, conditioning: Conditioning, tau: Tensor, step_size: Tensor) -> Float[Tensor, "b t w"]:
        """Noise level, step size, action and state of every frame as one vector."""
        told = self.noise_level(tau, step_size) + conditioning.tokens.sum(dim=2)
        return told if conditioning.vector is None else told + conditioning.vector

    def _text(self) -> Text:
        """The prompt as the blocks read it, and the bias of the scores of its tokens.

        The transformers were trained on prompts padded with zeros, without a mask. The tokens of the padding are all
        the same, so one of them with the logarithm of their number as bias has the same effect.
        """
        padding = self.family.text_length - len(self.prompt)
        text = torch.cat([self.prompt, self.prompt.new_zeros(min(padding, 1), self.prompt.shape[1])])
        bias = self.prompt.new_zeros(len(text))
        if padding:
            bias[-1] = math.log(padding)
        return self.family.read_text(text), bias

    # Positions

    def _turn(self, frame: Int[Tensor, "f q"]) -> Turn:
        """Cosine and sine for every token of these frames, counted from the first one of the stream."""
        views, rows, columns = self.grid
        time, places = self.family.rotation(precise(frame) * self.spacing, rows, views * columns)
        places = rearrange(places, "h (v w) p -> (v h w) p", v=views)
        time = time[:, :, None].expand(-1, -1, len(places), -1)
        angles = torch.cat([time, places.to(time.dtype).expand(*time.shape[:2], -1, -1)], dim=-1)
        return angles.cos().float(), angles.sin().float()

    def _late(self, frame: Int[Tensor, "f q"], layers: int = 1) -> Callable[[Keys], Keys]:
        """Rotates keys of the first frame so that it seems at most a window behind each of these frames."""
        position = precise(frames_late(frame, self.window)) * self.spacing
        time, places = self.family.rotation(position, 1, 1)
        still = time.new_zeros(*time.shape[:2], places.shape[-1])
        angles = torch.cat([time, still], dim=-1)[:, :, None].repeat(layers, 1, 1, 1)
        turn = angles.cos().float(), angles.sin().float()
        return lambda keys: self.family.rotate(keys, turn)


def _state_head(wide: int, width: int, state_dim: int) -> nn.Sequential:
    head = nn.Sequential(nn.Linear(wide, width), nn.SiLU(), nn.Linear(width, state_dim))
    nn.init.zeros_(head[-1].weight)
    nn.init.zeros_(head[-1].bias)
    return head
