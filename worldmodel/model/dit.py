"""Causal space-time diffusion transformer: an encoder runs once per frame, a decoder once per denoising step.

Separable (default; SCD, 2602.10095): a causal encoder reads the clean frame, the action and, by its
time attention, the past. A light decoder without time attention denoises the next frame. With
`encoder_depth = 0` the same module is monolithic: the decoder holds all blocks, time attention
included, and every denoising step runs all of them.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor, nn

from conditioning.action import Modulation
from conditioning.camera import CameraEmbedding
from conditioning.conditioner import Conditioning
from conditioning.noise import NoiseLevelEmbedding
from conditioning.trees import tree_map
from worldmodel.display.ranges import Count, Whole
from worldmodel.model.flow import expand
from worldmodel.model.layers import Block, LayerNorm, TimeCache, TimeStep, Visibility, causal_visibility
from worldmodel.model.stem_head import ConvHead, ConvStem, PatchHead, PatchStem, StemOutput


@dataclass(frozen=True)
class DiTConfig:
    """Size and shape of the transformer."""

    width: Count = 192
    """Width of a token; a multiple of the width of a head."""
    encoder_depth: Whole = 4
    """Number of blocks that run once per frame; with 0 all blocks run once per denoising step."""
    decoder_depth: Count = 2
    """Number of blocks that run once per denoising step."""
    window: Count = 8
    """Number of past frames that time attention sees, besides the first frame, which it always sees."""
    time_interval: Count = 2
    """One block in this many attends over time; with 1 all blocks do."""
    patch: Literal[2, 4, 8, 16] = 8
    """Latent pixels along one side of a token."""
    pixels: Literal["conv", "patch"] = "conv"
    """How pixels become tokens and back: conv has convolutions with skips from the current frame, patch has linear
    patches."""
    reference: bool = False
    """Show the first frame to the convolutional head, too, which keeps a fixed background the same."""
    head_width: Count = 64
    """Width of one attention head."""
    num_registers: Whole = 2
    """Number of learned tokens that join every frame (registers, arXiv 2309.16588)."""


@dataclass(frozen=True)
class Encoded:
    """The encoder's result for a sequence of frames, which the decoder needs; computed once per frame.

    Attributes:
        tokens: Conditioning tokens first, then those of the views.
        current: The frames themselves, for the residual.
        reference: The first frame of the stream.
        stem: Feature maps of the current frames, for the skips.
        conditioning: As given to the encoder.
        mask: False on tokens of missing views.
        visibility: Which frames time attention sees.
        step: Cache position when streaming.
    """

    tokens: Float[Tensor, "b t n d"]
    current: Float[Tensor, "b t v c h w"]
    reference: Float[Tensor, "b v c h w"]
    stem: StemOutput
    conditioning: Conditioning
    mask: Bool[Tensor, "b n"] | None
    visibility: Visibility
    step: TimeStep | None

    def rows(self, rows: Bool[Tensor, "b"]) -> "Encoded":
        """The part for the selected clips of the batch; not while streaming."""
        return replace(
            self,
            tokens=self.tokens[rows],
            current=self.current[rows],
            reference=self.reference[rows],
            stem=self._stem(rows),
            conditioning=self.conditioning.rows(rows),
            mask=None if self.mask is None else self.mask[rows],
        )

    def frames(self, chosen: Bool[Tensor, "b t"]) -> "Encoded":
        """The part for the chosen frames, as clips of one frame; not for a decoder that attends over time."""
        clip = chosen.nonzero()[:, 0]
        return replace(
            self,
            tokens=self.tokens[chosen][:, None],
            current=self.current[chosen][:, None],
            reference=self.reference[clip],
            stem=self._stem(chosen),
            visibility=causal_visibility(1, 1, chosen.device),
            conditioning=self.conditioning.frames(chosen),
            mask=None if self.mask is None else self.mask[clip],
        )

    def tail(self, start: int) -> "Encoded":
        """The part for the frames from `start` on; not for a decoder that attends over time."""
        return replace(
            self,
            tokens=self.tokens[:, start:],
            current=self.current[:, start:],
            stem=self._stem((slice(None), slice(start, None))),
            conditioning=self.conditioning.tail(start),
        )

    def _stem(self, chosen: Tensor | tuple[slice, ...]) -> StemOutput:
        """The stem's output for the chosen clips and frames; its rows are clips, frames and views."""
        leading = self.current.shape[:3]

        def cut(flat: Tensor) -> Tensor:
            part = flat.unflatten(0, leading)[chosen]
            return part.flatten(0, part.ndim - flat.ndim)

        return tree_map(cut, self.stem)


class VideoDiT(nn.Module):
    """Predict the next latent (and state displacement) from frames, actions and a noisy guess.

    Args:
        config: Size and shape.
        num_views: Cameras.
        latent_shape: `(c, h, w)` of one view's latent.
        state_dim: Width of the state; 0 for none.
        num_condition_tokens: Tokens that the conditioner adds to each frame.
        injection: How actions arrive; see `conditioning.action`.

    Raises:
        ValueError: If the latent is not a multiple of the patch, or the width not one of `head_width`.
    """

    def __init__(
        self,
        config: DiTConfig,
        *,
        num_views: int,
        latent_shape: tuple[int, int, int],
        state_dim: int,
        num_condition_tokens: int,
        injection: str,
    ):
        super().__init__()
        channels, height, width = latent_shape
        if height % config.patch or width % config.patch:
            raise ValueError(f"latent {height}x{width} is not a multiple of patch {config.patch}")
        if config.width % config.head_width:
            raise ValueError(f"width {config.width} is not a multiple of head {config.head_width}")
        self.config = config
        num_condition_tokens += config.num_registers
        self.num_condition_tokens = num_condition_tokens
        self.grid = (height // config.patch, width // config.patch)
        self.num_tokens = num_condition_tokens + num_views * self.grid[0] * self.grid[1]
        self.num_time_layers = 0
        stages = config.patch.bit_length() - 1
        stem, head = {"conv": (ConvStem, ConvHead), "patch": (PatchStem, PatchHead)}[config.pixels]
        self.stem = stem(channels, config.width, stages)
        self.head = head(channels, config.width, stages, reference=config.reference)
        self.noisy_stem = PatchStem(channels, config.width, stages)
        self.camera = CameraEmbedding(num_views, self.grid, config.width)
        self.condition_embedding = nn.Parameter(0.02 * torch.randn(num_condition_tokens, config.width))
        self.noise_level = NoiseLevelEmbedding(config.width)
        self.noise_modulation = Modulation(config.width)
        adaln = injection == "adaln"
        self.action_modulation = Modulation(config.width) if adaln and config.encoder_depth else None
        self.noisy_state = nn.Linear(state_dim, config.width) if state_dim else None
        self.state_out = nn.Linear(config.width, state_dim) if state_dim else None
        cross = injection == "cross"
        self.encoder = self._blocks(config.encoder_depth, True, adaln, cross)
        decoder_time = config.encoder_depth == 0
        self.decoder = self._blocks(config.decoder_depth, decoder_time, True, cross)
        self.decoder_norm = LayerNorm(config.width)
        self._initialise()

    def _blocks(self, depth: int, time: bool, modulated: bool, cross: bool) -> nn.ModuleList:
        config, blocks = self.config, []
        for index in range(depth):
            temporal = time and index % config.time_interval == config.time_interval - 1
            self.num_time_layers += int(temporal)
            blocks.append(
                Block(
                    config.width,
                    config.width // config.head_width,
                    window=config.window if temporal else None,
                    modulated=modulated,
                    cross=cross,
                )
            )
        return nn.ModuleList(blocks)

    def _initialise(self) -> None:
        for block in [*self.encoder, *self.decoder]:
            outs = [block.space.out, block.mlp[-1], *([block.time.out] if block.time else [])]
            for out in outs:
                nn.init.zeros_(out.weight)
        if self.state_out is not None:
            nn.init.zeros_(self.state_out.weight)
            nn.init.zeros_(self.state_out.bias)

    reads_noise = False
    """Noisy frames enter multiplied by tau; see `decode`."""
    borrowed: frozenset[str] = frozenset()
    """All its weights are its own."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.condition_embedding.device

    @property
    def window(self) -> int:
        """Frames of history that time attention sees, besides the pinned first frame."""
        return self.config.window

    @property
    def separable(self) -> bool:
        """Whether there is an encoder; otherwise every denoising step runs all blocks."""
        return self.config.encoder_depth > 0

    @property
    def rewrites(self) -> bool:
        """Whether the decoder holds the time attention, so that it has to read every finished frame."""
        return not self.separable

    def new_cache(self, num_streams: int, dtype: torch.dtype) -> TimeCache:
        """An empty cache of `num_streams` streams, on the device of the weights."""
        config = self.config
        return TimeCache(
            self.num_time_layers,
            num_streams,
            self.num_tokens,
            config.width // config.head_width,
            config.head_width,
            config.window,
            self.device,
            dtype,
        )

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
    ) -> Encoded:
        """Read clean frames and their conditioning; runs once per frame.

        Main arguments: `latents` and their `conditioning`.
        Other arguments: `view_mask` is false where a camera is missing; `history` limits the
        frames that time attention sees (default: the window); the second frame was recorded `gap`
        frames after the first; `reference` is the first frame of the stream (default: the first of
        `latents`); `visibility` replaces `history` and `gap` and says which frames each frame sees,
        e.g. those of its own branch; `step` streams one frame.
        """
        batch, frames, views = latents.shape[:3]
        stem = self.stem(rearrange(latents, "b t v c h w -> (b t v) c h w"))
        tokens = rearrange(stem.tokens, "(b t v) l d -> b t (v l) d", b=batch, v=views)
        registers = conditioning.tokens.new_zeros(batch, frames, self.config.num_registers, self.config.width)
        condition = torch.cat([registers, conditioning.tokens], dim=2) + self.condition_embedding
        x = torch.cat([condition, tokens + self.camera()], dim=2).to(tokens.dtype)
        encoded = Encoded(
            tokens=x,
            current=latents,
            reference=latents[:, 0] if reference is None else reference,
            stem=stem,
            conditioning=conditioning,
            mask=None if view_mask is None else self._token_mask(view_mask),
            visibility=visibility or causal_visibility(frames, history or self.window, latents.device, gap=gap),
            step=step,
        )
        modulation = None
        if self.action_modulation is not None:
            modulation = self.action_modulation(conditioning.vector)
        return replace(encoded, tokens=self._run(self.encoder, encoded, x, modulation))

    def decode(
        self,
        encoded: Encoded,
        noisy: Float[Tensor, "b t v c h w"],
        noisy_state: Float[Tensor, "b t s"] | None,
        tau: Float[Tensor, "b t"],
        step_size: Float[Tensor, "b t"],
    ) -> tuple[Float[Tensor, "b t v c h w"], Float[Tensor, "b t s"] | None]:
        """Predict the clean next latents and state displacements; runs once per denoising step.

        `noisy[:, i]` is the noisy version, at level `tau[:, i]`, of the frame after frame `i`. It is
        multiplied by tau first: at tau = 0 it is pure noise, and the network need not learn to ignore it.
        """
        batch, _, views = noisy.shape[:3]
        flat_noisy = rearrange(expand(tau, noisy) * noisy, "b t v c h w -> (b t v) c h w")
        guess = self.noisy_stem(flat_noisy).tokens
        guess = rearrange(guess, "(b t v) l d -> b t (v l) d", b=batch, v=views)
        condition, pixels = self._split(encoded.tokens)
        if self.noisy_state is not None:
            noisy_state = expand(tau, noisy_state) * noisy_state
            state_token = condition[:, :, -1:] + self.noisy_state(noisy_state)[:, :, None]
            condition = torch.cat([condition[:, :, :-1], state_token], dim=2)
        x = torch.cat([condition, pixels + guess], dim=2).to(pixels.dtype)
        vector = self.noise_level(tau, step_size)
        if self.rewrites and encoded.conditioning.vector is not None:
            vector = vector + encoded.conditioning.vector
        x = self.decoder_norm(self._run(self.decoder, encoded, x, self.noise_modulation(vector)))
        condition, pixels = self._split(x)
        flat_tokens = rearrange(pixels, "b t (v l) d -> (b t v) l d", v=views)
        flat_current = rearrange(encoded.current, "b t v c h w -> (b t v) c h w")
        flat_reference = repeat(encoded.reference, "b v c h w -> (b t v) c h w", t=noisy.shape[1])
        latent = self.head(flat_tokens, encoded.stem, flat_current, flat_noisy, flat_reference)
        latent = rearrange(latent, "(b t v) c h w -> b t v c h w", b=batch, v=views)
        state = None if self.state_out is None else self.state_out(condition[:, :, -1])
        return latent, state

    def _run(self, blocks: nn.ModuleList, encoded: Encoded, x: Tensor, modulation: Tensor | None) -> Tensor:
        layer = 0
        for block in blocks:
            x = block(
                x,
                mask=encoded.mask,
                modulation=modulation,
                action_tokens=encoded.conditioning.action_tokens,
                visibility=encoded.visibility,
                layer=layer,
                step=encoded.step,
            )
            layer += int(block.time is not None)
        return x

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x[:, :, : self.num_condition_tokens], x[:, :, self.num_condition_tokens :]

    def _token_mask(self, view_mask: Bool[Tensor, "b v"]) -> Bool[Tensor, "b n"]:
        cells = repeat(view_mask, "b v -> b (v l)", l=self.grid[0] * self.grid[1])
        condition = cells.new_ones(len(cells), self.num_condition_tokens)
        return torch.cat([condition, cells], dim=1)
