"""A tiny random Wan and two tiny random Cosmos: modules, diffusers pipeline folders, a world model on one."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, CosmosTransformer3DModel, WanTransformer3DModel

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


def tiny_cosmos(channels: int = CHANNELS, layers: int = 2, *, newer: bool = False) -> CosmosTransformer3DModel:
    """Cosmos-Predict2, or 2.5 with its projection of the text, at the size of `tiny_wan`."""
    torch.manual_seed(0)
    text = {"crossattn_proj_in_channels": TEXT, "encoder_hidden_states_channels": 20} if newer else {}
    return CosmosTransformer3DModel(
        in_channels=channels + 1,
        out_channels=channels,
        num_attention_heads=2,
        attention_head_dim=24,
        num_layers=layers,
        mlp_ratio=2.0,
        text_embed_dim=20 if newer else TEXT,
        adaln_lora_dim=8,
        max_size=(32, 32, 32),
        rope_scale=(1.5, 3.0, 2.0),
        extra_pos_embed_type=None,
        use_crossattn_projection=newer,
        **text,
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


def write_wan(
    folder: Path, *, vae: bool = True, channels: int = CHANNELS, halvings: int = 1, transformer: Callable = tiny_wan
) -> Path:
    """A pipeline folder with `transformer`, and `vae` unless it works on pixels, which are 3 channels."""
    transformer(channels if vae else 3).save_pretrained(folder / "transformer")
    if vae:
        tiny_vae(channels, halvings).save_pretrained(folder / "vae")
    return folder


BACKBONES = {"wan": write_wan, "cosmos": partial(write_wan, transformer=partial(tiny_cosmos, newer=True))}
"""Pipeline folders of all families, for tests of whole commands."""


def pretrained_world(
    folder: Path, *, size=(16, 24), views=("top", "wrist"), injection="adaln", chunk=1, **settings
) -> WorldModel:
    """A world model on the pipeline in `folder`, with two actions and two states."""
    torch.manual_seed(0)
    told = ConditionerConfig(action_dim=2, state_dim=2, injection=injection, chunk=chunk)
    dit = PretrainedConfig(str(folder), **{"width": 16, **settings})
    return WorldModel(WorldModelConfig(views=views, size=size, fps=10.0, conditioner=told, dit=dit)).eval()
