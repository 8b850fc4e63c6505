"""A tiny world model whose latents are four frames each."""

import torch
from diffusers import AutoencoderKLWan

from conditioning.conditioner import ConditionerConfig
from worldmodel.model.dit import DiTConfig
from worldmodel.model.pretrained.video_codec import VideoCodec
from worldmodel.world_model import WorldModel, WorldModelConfig

WAN_21 = {
    "base_dim": 4,
    "z_dim": 4,
    "dim_mult": [1, 1, 2, 2],
    "num_res_blocks": 1,
    "temperal_downsample": [False, True, True],
    "latents_mean": [0.0, 0.0, 0.0, 0.0],
    "latents_std": [2.0, 1.0, 1.0, 0.5],  # powers of two, so that nothing is rounded
}
WAN_22 = {**WAN_21, "is_residual": True, "in_channels": 12, "out_channels": 12, "patch_size": 2, "decoder_base_dim": 4}


def tiny_video_codec(settings: dict = WAN_21) -> VideoCodec:
    """A codec with random weights."""
    torch.manual_seed(0)
    return VideoCodec(AutoencoderKLWan(**settings))


def chunk_world(*, views=("top",), depth=2, **conditioner) -> WorldModel:
    """A world model with random weights; pictures of 32 x 32 are latents of 4 x 4."""
    codec = tiny_video_codec()
    torch.manual_seed(0)
    settings = {"action_dim": 2, "state_dim": 2, "relative_to": {0: 0, 1: 1}, "chunk": 4, **conditioner}
    dit = DiTConfig(width=32, patch=2, encoder_depth=depth, decoder_depth=1 if depth else 2, window=4, head_width=16)
    config = WorldModelConfig(views, (32, 32), fps=10.0, conditioner=ConditionerConfig(**settings), dit=dit)
    world = WorldModel(config, codec).eval()
    with torch.no_grad():
        for parameter in world.dit.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return world
