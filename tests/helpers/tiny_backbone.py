"""A tiny random Wan: a module, a diffusers pipeline folder, a world model on it."""

from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel

from conditioning.conditioner import ConditionerConfig
from worldmodel.model.pretrained.config import PretrainedConfig
from worldmodel.world_model import WorldModel, WorldModelConfig

CHANNELS = 4
TEXT = 32


def tiny_wan(channels: int = CHANNELS, layers: int = 2) -> WanTransformer3DModel:
    """A transformer of 2 heads of 24 channels; its weights are random, and those of the output not small."""
    torch.manual_seed(0)
    return WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=24,
        in_channels=channels,
        out_channels=channels,
        text_dim=TEXT,
        freq_dim=32,
        ffn_dim=64,
        num_layers=layers,
    ).eval()


def tiny_vae(channels: int = CHANNELS, halvings: int = 1) -> AutoencoderKLWan:
    """An autoencoder whose latents are `2^halvings` pixels wide and high."""
    torch.manual_seed(0)
    return AutoencoderKLWan(
        base_dim=4,
        z_dim=channels,
        dim_mult=[1] * (halvings + 1),
        num_res_blocks=1,
        temperal_downsample=[False] * halvings,
        latents_mean=[0.0] * channels,
        latents_std=[1.0] * channels,
    )


def write_wan(folder: Path, *, vae: bool = True, channels: int = CHANNELS, halvings: int = 1) -> Path:
    """A pipeline folder with `transformer`, and `vae` unless it works on pixels, which are 3 channels."""
    tiny_wan(channels if vae else 3).save_pretrained(folder / "transformer")
    if vae:
        tiny_vae(channels, halvings).save_pretrained(folder / "vae")
    return folder


BACKBONES = {"wan": write_wan}
"""Pipeline folders of all families, for tests of whole commands."""


def pretrained_world(
    folder: Path, *, size=(16, 24), views=("top", "wrist"), injection="adaln", **settings
) -> WorldModel:
    """A world model on the pipeline in `folder`, with two actions and two states."""
    torch.manual_seed(0)
    told = ConditionerConfig(action_dim=2, state_dim=2, injection=injection)
    dit = PretrainedConfig(str(folder), **{"width": 16, **settings})
    return WorldModel(WorldModelConfig(views=views, size=size, fps=10.0, conditioner=told, dit=dit)).eval()
