"""A tiny random Wan and two tiny random Cosmos, as modules and as diffusers pipeline folders."""

from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, CosmosTransformer3DModel, WanTransformer3DModel

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
        rope_scale=(1.0, 3.0, 2.0),
        extra_pos_embed_type=None,
        use_crossattn_projection=newer,
        **text,
    ).eval()


def tiny_vae(channels: int = CHANNELS) -> AutoencoderKLWan:
    """An autoencoder that makes one latent of 2 x 2 pixels."""
    torch.manual_seed(0)
    return AutoencoderKLWan(
        base_dim=4,
        z_dim=channels,
        dim_mult=[1, 1],
        num_res_blocks=1,
        temperal_downsample=[False],
        latents_mean=[0.0] * channels,
        latents_std=[1.0] * channels,
    )


def write_wan(folder: Path, *, vae: bool = True, channels: int = CHANNELS, transformer=tiny_wan) -> Path:
    """A pipeline folder with `transformer`, and `vae` unless it works on pixels, which are 3 channels."""
    transformer(channels if vae else 3).save_pretrained(folder / "transformer")
    if vae:
        tiny_vae(channels).save_pretrained(folder / "vae")
    return folder
