"""A fast streaming step of `VideoDiT`: one frame at a time, with the noise levels folded into the weights.

It supports the separable architecture with convolutional stem and head whose actions are tokens or
AdaLN. The modules themselves are the reference (`worldmodel.streaming.plain`): they are trained,
they stream every other architecture, and a test compares the two.
"""

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from conditioning.conditioner import Conditioning
from worldmodel.model.backbone import Backbone
from worldmodel.model.dit import VideoDiT
from worldmodel.model.precision import compute_dtype
from worldmodel.model.stem_head import ConvStem
from worldmodel.streaming.folded_blocks import FoldedBlock
from worldmodel.streaming.folded_pixels import FoldedHead, FoldedStem
from worldmodel.streaming.onednn import Convolution
from worldmodel.streaming.state import StreamState


def foldable(dit: Backbone) -> bool:
    """Whether `FoldedEngine` supports this architecture."""
    if not isinstance(dit, VideoDiT):
        return False
    plain = all(block.cross is None for block in [*dit.encoder, *dit.decoder])
    return plain and dit.separable and isinstance(dit.stem, ConvStem)


def fingerprint(dit: VideoDiT) -> int:
    """A number that changes when the weights are replaced, moved or written to in place.

    PyTorch's version counters do not count writes of fused optimisers and writes through `.data`. `WorldModel.train`
    and `eval` therefore drop the engine.
    """
    return hash(tuple((p.data_ptr(), p._version) for p in dit.parameters()))


@dataclass(frozen=True)
class EncodedFrame:
    """The results that are computed once per frame.

    Attributes:
        tokens: Conditioning tokens first, then those of the views.
        skips: The part of every stage of the head that depends on the current frame alone.
        current: The current frame, views as rows.
        mask: False on tokens of missing views.
    """

    tokens: Float[Tensor, "b n d"]
    skips: list[Float[Tensor, "f ..."]]
    current: Float[Tensor, "f c h w"]
    mask: Bool[Tensor, "b n"] | None


class FoldedEngine:
    """The transformer of a world model, folded for streaming.

    Args:
        dit: The transformer whose current weights are folded; it must be `foldable`.
    """

    replays = True

    @torch.no_grad()
    def __init__(self, dit: VideoDiT):
        assert foldable(dit)
        self.dit, self.fingerprint = dit, fingerprint(dit)
        self.dtype = dtype = compute_dtype(dit.device)
        self.num_condition, self.grid = dit.num_condition_tokens, dit.grid
        self.registers = dit.config.num_registers
        embedding = torch.cat([dit.condition_embedding, dit.camera()])
        self.embedding = embedding.to(dtype)
        self.stem = FoldedStem(dit.stem, dtype)
        self.head = FoldedHead(dit.head, dit.config.width, dtype)
        self.encoder = [FoldedBlock(block, dtype) for block in dit.encoder]
        patch, noisy = dit.noisy_stem.patch, dit.noisy_stem.project
        patches = rearrange(noisy.weight, "d (c p q) -> d c p q", p=patch, q=patch)
        self.noisy = Convolution(patches, None, dtype, stride=patch)
        entry = torch.zeros_like(embedding)
        entry[self.num_condition :] += noisy.bias
        if dit.noisy_state is not None:
            entry[self.num_condition - 1] += dit.noisy_state.bias
        self.entry = entry.to(dtype)
        self.norm = dit.decoder_norm.weight.to(dtype), dit.decoder_norm.bias.to(dtype)
        self.decoders: dict[tuple[float, float], list[FoldedBlock]] = {}

    @property
    def is_current(self) -> bool:
        """Whether the weights and the number format are still those of the transformer."""
        return self.fingerprint == fingerprint(self.dit) and self.dtype == compute_dtype(self.dit.device)

    def encode(self, state: StreamState, conditioning: Conditioning) -> EncodedFrame:
        """Read the current frame of every stream and write it to the cache; once per frame."""
        slot = state.cache.reserve(state.frame)
        current = self._picture(state.latent)
        pixels, maps = self.stem(current)
        batch, condition = len(state.frame), self.num_condition
        x = self.embedding.repeat(batch, 1, 1)
        x[:, self.registers : condition] += conditioning.tokens[:, 0].to(self.dtype)
        x[:, condition:] += pixels.reshape(batch, -1, x.shape[-1])
        mask, modulation = self._mask(state), None
        if self.dit.action_modulation is not None:
            modulation = self.dit.action_modulation(conditioning.vector)[:, 0]
        window, held = state.cache.window, state.cache.frame_index
        distance = (state.frame[:, None] - held).clamp_(max=window)
        distance = distance.masked_fill_(held < 0, window + 1)
        layer = 0
        for block in self.encoder:
            if block.time is not None:
                x = block.time(x, state.cache, layer, slot, distance)
                layer += 1
            x = block(x, mask, modulation)
        skips = self.head.skips(maps, current, self._picture(state.reference))
        return EncodedFrame(x, skips, state.latent.flatten(0, 1), mask)

    def decode(
        self, encoded: EncodedFrame, noisy: tuple[Float[Tensor, "b ..."], ...], tau: float, step_size: float
    ) -> tuple[Float[Tensor, "b ..."], ...]:
        """The clean latents, and state displacements where there is a state.

        At tau = 0 the noisy parts are pure noise, and they are not read.
        """
        x = encoded.tokens + self.entry
        condition, width, told = self.num_condition, (x.shape[-1],), None
        if tau > 0:
            told = self._picture(noisy[0] * tau)
            x[:, condition:] += self.noisy(told).reshape(len(x), -1, *width)
            if self.dit.noisy_state is not None:
                matrix = self.dit.noisy_state.weight.t()
                x[:, condition - 1] += ((noisy[1] * tau) @ matrix).to(self.dtype)
        for block in self.decoder(tau, step_size):
            x = block(x, encoded.mask)
        tokens = F.layer_norm(x[:, condition:], width, *self.norm).view(-1, *self.grid, *width)
        latent = self.head(tokens, encoded.skips, encoded.current, told).unflatten(0, (len(x), -1))
        if self.dit.state_out is None:
            return (latent,)
        last = F.layer_norm(x[:, condition - 1], width, *self.norm)
        return latent, self.dit.state_out(last.float())

    def remember(self, encoded: EncodedFrame, clean: tuple[Float[Tensor, "b ..."], ...]) -> None:
        """Do nothing: `encode` writes a frame to the cache when the next one is computed."""

    @torch.no_grad()
    def decoder(self, tau: float, step_size: float) -> list[FoldedBlock]:
        """The decoder's blocks at a noise level and step size, folded at the first call."""
        if (tau, step_size) not in self.decoders:
            device = self.embedding.device
            levels = (torch.full((1, 1), value, device=device) for value in (tau, step_size))
            modulation = self.dit.noise_modulation(self.dit.noise_level(*levels))[0, 0]
            self.decoders[tau, step_size] = [FoldedBlock(b, self.dtype, modulation) for b in self.dit.decoder]
        return self.decoders[tau, step_size]

    def _picture(self, latent: Float[Tensor, "*f c h w"]) -> Float[Tensor, "f h w c"]:
        """Latents in the layout of the convolutions; views and streams are rows."""
        flat = latent.flatten(0, -4)
        return flat.to(self.dtype, memory_format=torch.channels_last).permute(0, 2, 3, 1)

    def _mask(self, state: StreamState) -> Tensor | None:
        return None if state.view_mask is None else self.dit._token_mask(state.view_mask)
