"""The streaming step of a world model, made fast: fixed weights, fixed noise levels, one frame.

`WorldModel.step` runs here for the separable architecture with convolutional stem and head whose
actions are tokens or AdaLN. The modules themselves stay the reference: they train, they serve the
other architectures, and a test compares the two.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from conditioning.conditioner import Conditioning
from worldmodel.model.dit import VideoDiT
from worldmodel.model.precision import compute_dtype
from worldmodel.model.stem_head import ConvStem
from worldmodel.streaming.folded_blocks import FoldedBlock
from worldmodel.streaming.folded_pixels import FoldedHead, FoldedStem
from worldmodel.streaming.onednn import Convolution
from worldmodel.streaming.state import RolloutState


def foldable(dit: VideoDiT) -> bool:
    """Whether the engine knows this architecture."""
    plain = all(block.cross is None for block in [*dit.encoder, *dit.decoder])
    return plain and not dit.monolithic and isinstance(dit.stem, ConvStem)


def fingerprint(dit: VideoDiT) -> int:
    """Changes when the weights are replaced, moved or written to in place.

    Writes that PyTorch's version counters miss are missed here, too: those of fused optimisers and
    those through `.data`. `WorldModel.train` and `eval` therefore drop the engine.
    """
    return hash(tuple((p.data_ptr(), p._version) for p in dit.parameters()))


@dataclass(frozen=True)
class Thought:
    """What is computed once per frame.

    Attributes:
        tokens: Conditioning tokens first, then those of the views.
        skips: What the head joins of the current frame.
        current: The current frame, views as rows.
    """

    tokens: Float[Tensor, "b n d"]
    skips: list[Float[Tensor, "f ..."]]
    current: Float[Tensor, "f c h w"]


@dataclass(frozen=True)
class NoiseLevel:
    """The decoder at one noise level and step size.

    Attributes:
        tau: 0 is noise; what the network is told of the noisy frame is multiplied by it.
        blocks: The decoder's blocks.
    """

    tau: float
    blocks: list[FoldedBlock]


class Engine:
    """The transformer of a world model, folded for streaming.

    Args:
        dit: Whose weights are folded, as they are now; `foldable`.
    """

    @torch.no_grad()
    def __init__(self, dit: VideoDiT):
        assert foldable(dit)
        self.dit, self.fingerprint = dit, fingerprint(dit)
        self.dtype = dtype = compute_dtype(dit.condition_embedding.device)
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
        self.samplers: dict[int, list[NoiseLevel]] = {}

    def think(self, state: RolloutState, conditioning: Conditioning) -> Thought:
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
        return Thought(x, skips, state.latent.flatten(0, 1))

    def denoise(
        self, state: RolloutState, thought: Thought, num_steps: int, noise: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """The next latent, and the displacement of the state where there is one.

        `noise` is that of both, which `num_steps` Euler steps start from. At tau = 0 the network is
        told nothing of it and the last step ends at the prediction: one step needs none.
        """
        mask, levels = self._mask(state), self.sampler(num_steps)
        z: tuple[Tensor, ...] = ()
        if num_steps > 1:
            z = noise[0].flatten(0, 1), *noise[1:]
        for level in levels:
            predicted = self._predict(thought, mask, level, z)
            if level is levels[-1]:
                z = predicted
            else:
                share = 1 / (num_steps * (1 - level.tau))
                z = tuple(p.lerp(x, share) for p, x in zip(z, predicted, strict=True))
        return z[0].view_as(state.latent), *z[1:]

    def sampler(self, num_steps: int) -> list[NoiseLevel]:
        """The decoder at the noise levels of `num_steps` Euler steps, folded at the first call."""
        if num_steps not in self.samplers:
            levels = [index / num_steps for index in range(num_steps)]
            self.samplers[num_steps] = [self._fold(tau, 1 / num_steps) for tau in levels]
        return self.samplers[num_steps]

    @torch.no_grad()
    def _fold(self, tau: float, step_size: float) -> NoiseLevel:
        device = self.embedding.device
        pair = (torch.full((1, 1), value, device=device) for value in (tau, step_size))
        modulation = self.dit.noise_modulation(self.dit.noise_level(*pair))[0, 0]
        blocks = [FoldedBlock(block, self.dtype, modulation) for block in self.dit.decoder]
        return NoiseLevel(tau, blocks)

    def _predict(
        self, thought: Thought, mask: Tensor | None, level: NoiseLevel, noisy: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...]:
        """The clean latents, and state displacements where there is a state."""
        x = thought.tokens + self.entry
        condition, width, told = self.num_condition, (x.shape[-1],), None
        if level.tau > 0:
            told = self._picture(noisy[0] * level.tau)
            x[:, condition:] += self.noisy(told).reshape(len(x), -1, *width)
            if self.dit.noisy_state is not None:
                matrix = self.dit.noisy_state.weight.t()
                x[:, condition - 1] += ((noisy[1] * level.tau) @ matrix).to(self.dtype)
        for block in level.blocks:
            x = block(x, mask)
        tokens = F.layer_norm(x[:, condition:], width, *self.norm).view(-1, *self.grid, *width)
        latent = self.head(tokens, thought.skips, thought.current, told)
        if self.dit.state_out is None:
            return (latent,)
        last = F.layer_norm(x[:, condition - 1], width, *self.norm)
        return latent, self.dit.state_out(last.float())

    def _picture(self, latent: Float[Tensor, "*f c h w"]) -> Float[Tensor, "f h w c"]:
        """Latents as convolutions read them; views and streams are rows."""
        flat = latent.flatten(0, -4)
        return flat.to(self.dtype, memory_format=torch.channels_last).permute(0, 2, 3, 1)

    def _mask(self, state: RolloutState) -> Tensor | None:
        return None if state.view_mask is None else self.dit._token_mask(state.view_mask)
