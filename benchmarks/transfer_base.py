"""A small Wan pipeline of our own: its autoencoder, its transformer, and what a trained world model leaves of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from worldmodel.data import EpisodeSource
from worldmodel.model.codec import to_signed
from worldmodel.model.precision import autocast
from worldmodel.model.pretrained.wan import TIMESTEPS
from worldmodel.training.fit import fit
from worldmodel.world_model import WorldModel

MOVING, CHANGE, NOISE = 8.0, 0.1, 0.05
"""Weight of a pixel that differs from the first frame by more than `CHANGE` of [-1, 1]; noise on unit latents."""


@dataclass(frozen=True)
class BaseConfig:
    """Sizes and training of the autoencoder, and sizes of the transformer."""

    codec_width: int = 48
    """Channels of the autoencoder."""
    channels: int = 16
    """Channels of a latent, which is a quarter of the picture high and wide."""
    codec_steps: int = 8000
    """Optimiser steps of the autoencoder."""
    codec_batch: int = 32
    """Frames per step."""
    codec_learning_rate: float = 1e-3
    """Learning rate at the first step."""
    heads: int = 3
    """Attention heads, of 64 channels each."""
    layers: int = 5
    """Blocks of the transformer."""


def new_codec(config: BaseConfig, mean: list[float] | None = None, std: list[float] | None = None) -> AutoencoderKLWan:
    """A random autoencoder of Wan's class, whose latents have this mean and standard deviation (0 and 1)."""
    folded = 3 * 4**2
    return AutoencoderKLWan(
        base_dim=config.codec_width,
        z_dim=config.channels,
        dim_mult=[1],
        num_res_blocks=1,
        temperal_downsample=[],
        in_channels=folded,
        out_channels=folded,
        patch_size=4,
        latents_mean=mean or [0.0] * config.channels,
        latents_std=std or [1.0] * config.channels,
    )


def new_transformer(config: BaseConfig) -> WanTransformer3DModel:
    """A random transformer of Wan's class, which takes next to no text."""
    return WanTransformer3DModel(
        num_attention_heads=config.heads,
        attention_head_dim=64,
        in_channels=config.channels,
        out_channels=config.channels,
        text_dim=32,
        freq_dim=256,
        ffn_dim=4 * 64 * config.heads,
        num_layers=config.layers,
    )


# The autoencoder


def train_codec(config: BaseConfig, source: EpisodeSource, out: Path, seed: int) -> None:
    """Train an autoencoder on single frames of all episodes, and write it to `out` in bf16.

    The loss is the squared error, in which pixels that differ from the first frame of their episode count more. The
    latents get some noise, in proportion to their size, so that neighbours in latent space look alike.
    """
    torch.manual_seed(seed)
    frames, first = whole(source)
    generator = torch.Generator().manual_seed(seed)
    vae = new_codec(config)

    def loss_of(step: int) -> Float[Tensor, ""]:
        rows = torch.randint(len(frames), (config.codec_batch,), generator=generator)
        pixels = to_signed(frames[rows])
        changed = (pixels - to_signed(frames[first[rows]])).abs().amax(1, keepdim=True) > CHANGE
        weight = 1 + (MOVING - 1) * changed.float()
        with autocast("cpu"):
            latents = vae.encode(pixels[:, :, None]).latent_dist.mode()
            noise = torch.randn(latents.shape, generator=generator) * latents.detach().std()
            decoded = vae.decode(latents + NOISE * noise).sample[:, :, 0]
        return (weight / weight.mean() * (decoded.float() - pixels) ** 2).mean()

    with single_frames():
        fit(vae, loss_of, steps=config.codec_steps, learning_rate=config.codec_learning_rate, name="autoencoder")
        with torch.no_grad():
            some = frames[torch.randperm(len(frames), generator=generator)[:512]]
            latents = torch.cat([vae.encode(to_signed(part)[:, :, None]).latent_dist.mode() for part in some.split(64)])
    mean, std = (part.flatten().tolist() for part in (latents.mean((0, 2, 3, 4)), latents.std((0, 2, 3, 4))))
    vae.register_to_config(latents_mean=mean, latents_std=std)
    vae.to(torch.bfloat16).save_pretrained(out)


def whole(source: EpisodeSource) -> tuple[UInt8[Tensor, "n H W 3"], Tensor]:
    """All frames of the first camera, and for each the number of the first one of its episode."""
    parts, first = [], []
    for episode, length in enumerate(source.lengths):
        first += [sum(map(len, parts))] * length
        parts.append(source.read(episode, 0, length).frames[:, 0])
    return torch.cat(parts), torch.tensor(first)


@contextmanager
def single_frames() -> Iterator[None]:
    """Let Wan's convolutions skip the part of their kernels that sees the frames before a first one, which are zeros.

    The numbers are the same; with gradients it takes half the time.
    """
    usual = WanCausalConv3d.forward

    def forward(self: nn.Conv3d, x: Tensor, cache_x: Tensor | None = None) -> Tensor:
        if x.shape[2] > 1 or cache_x is not None or self.stride[0] > 1:
            return usual(self, x, cache_x)
        padded = F.pad(x[:, :, 0], self._padding[:4])
        return F.conv2d(padded, self.weight[:, :, -1], self.bias, self.stride[1:])[:, :, None]

    WanCausalConv3d.forward = forward
    try:
        yield
    finally:
        WanCausalConv3d.forward = usual


# The transformer


@torch.no_grad()
def self_contained(world: WorldModel) -> WanTransformer3DModel:
    """The transformer of a world model that was trained on video, all weights, without the layers that we added to it.

    Beside the transformer such a world model has layers that tell it noise level and step size, and an embedding of its
    one camera. The camera's is added to the bias of the patches. The layers' output is added to that of Wan's own
    embedding of the noise level, exactly at the levels of the sampler, by the smallest change of two matrices; of the
    step sizes of a level the mean is taken. So at first a new world model on the result predicts what this one does,
    but for the step size.

    Raises:
        ValueError: It has actions, a state or several cameras.
    """
    dit = world.dit
    if world.action_dim or world.state_dim or len(world.views) > 1:
        raise ValueError(f"{world.views}, {world.action_dim} actions, {world.state_dim} states: expected one video")
    wan, embed = dit.transformer, dit.transformer.condition_embedder
    wan.patch_embedding.bias += dit.view_embedding[0, 0]
    steps = [2**k for k in range(world.config.max_steps.bit_length())]
    pairs = [(1.0, 1.0)] + [(k / n, 1 / n) for n in steps for k in range(n)]
    levels = sorted({tau for tau, _ in pairs})
    told = [told_at(world, tau, [d for t, d in pairs if t == tau]) for tau in levels]
    time_told, six_told = (torch.stack(part) for part in zip(*told, strict=True))
    time, six = (part[0] for part in dit.family.levels(torch.tensor([levels])))
    features = embed.time_embedder.act(
        embed.time_embedder.linear_1(embed.timesteps_proj(TIMESTEPS * (1 - torch.tensor(levels))))
    )
    moved = embed.act_fn(time + time_told)
    add_to(embed.time_embedder.linear_2, features, time_told)
    add_to(embed.time_proj, moved, six + six_told - embed.time_proj(moved))
    return wan


def told_at(world: WorldModel, tau: float, step_sizes: list[float]) -> list[Float[Tensor, "d"]]:
    """What the added layers add to each of Wan's embeddings at a noise level, as the mean over step sizes."""
    size = torch.tensor([step_sizes])
    level = torch.full_like(size, tau)
    vector = world.dit.noise_level(level, size) + world.conditioner(None, None, tuple(size.shape)).vector
    return [layer(F.silu(vector)).mean((0, 1)) for layer in world.dit.told]


def add_to(layer: nn.Linear, inputs: Float[Tensor, "n i"], wanted: Float[Tensor, "n o"]) -> None:
    """Change the matrix of a layer as little as possible so that `wanted` is added to its outputs at `inputs`."""
    layer.weight += (torch.linalg.pinv(inputs.double()) @ wanted.double()).T.float()
