"""A pretrained transformer leaves its world model, and nothing is lost; the table of what it is worth."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from places import BENCHMARKS
from tiny_backbone import write_wan

sys.path.insert(0, str(BENCHMARKS))

import transfer
from transfer_base import BaseConfig, new_codec, self_contained, single_frames

from conditioning.conditioner import ConditionerConfig
from worldmodel.model.pretrained.config import PretrainedConfig
from worldmodel.world_model import WorldModel, WorldModelConfig


def video_world(folder, max_steps: int = 1) -> WorldModel:
    """A world model of one camera without actions, all weights of its transformer trained."""
    dit = PretrainedConfig(str(folder), lora_rank=0, width=16, recompute=False)
    told = ConditionerConfig(action_dim=0, state_dim=0, injection="adaln")
    config = WorldModelConfig(("camera",), (16, 16), 10.0, told, dit, max_steps=max_steps)
    return WorldModel(config).eval()


def predictions(world: WorldModel, tau: float, step_size: float) -> torch.Tensor:
    """What the noisy pass predicts for a clip of three frames at a noise level."""
    generator = torch.Generator().manual_seed(3)
    latents, noisy = torch.randn(2, 1, 3, 1, *world.latent_shape, generator=generator)
    encoded = world.dit.encode(latents, world.conditioner(None, None, (1, 3)))
    level = torch.full((1, 3), tau)
    return world.dit.decode(encoded, noisy, None, level, torch.full_like(level, step_size))[0]


@torch.no_grad()
def test_the_transformer_alone_predicts_what_its_world_model_did(tmp_path):
    world = video_world(write_wan(tmp_path / "random", vae=False))
    for parameter in (world.dit.view_embedding, *world.dit.told.parameters()):
        torch.nn.init.normal_(parameter, std=0.2)
    wanted = predictions(world, 0.0, 1.0)
    untold = predictions(video_world(tmp_path / "random"), 0.0, 1.0)
    self_contained(world).save_pretrained(tmp_path / "base" / "transformer")
    assert (wanted - untold).abs().max() > 0.1
    torch.testing.assert_close(predictions(video_world(tmp_path / "base"), 0.0, 1.0), wanted, atol=1e-4, rtol=0)


def test_a_world_model_with_actions_does_not_leave_its_transformer(tmp_path):
    world = video_world(write_wan(tmp_path, vae=False))
    world.config = replace(world.config, conditioner=replace(world.config.conditioner, action_dim=2))
    with pytest.raises(ValueError, match="2 actions"):
        self_contained(world)


@torch.no_grad()
def test_single_frames_skip_only_zeros():
    torch.manual_seed(0)
    vae = new_codec(BaseConfig(codec_width=8, channels=4)).eval()
    pixels = torch.rand(2, 3, 1, 16, 16)
    usual = vae.decode(vae.encode(pixels).latent_dist.mode()).sample
    with single_frames():
        skipped = vae.decode(vae.encode(pixels).latent_dist.mode()).sample
    torch.testing.assert_close(skipped, usual, atol=1e-5, rtol=0)


def test_the_first_arm_leads_where_it_is_nearer_and_shuffled_actions_cost_it():
    truth = torch.full((4, 1, 8, 8, 3), 100, dtype=torch.uint8)
    shown = {"copying": 0, "pretrained": 90, "random": 80, "pretrained, shuffled": 60, "random, shuffled": 90}
    found = {name: torch.full_like(truth, value) for name, value in shown.items()}
    result = transfer.compare(("pretrained", "random"), truth, found, np.array([0, 0, 1, 1]))
    assert result["random"]["lead"][0]["mean"] == pytest.approx(20 * np.log10(20 / 10), abs=1e-3)
    assert result["pretrained"]["gap"][0]["mean"] == pytest.approx(20 * np.log10(40 / 10), abs=1e-3)
    assert result["random"]["gap"][0]["mean"] < 0 and result["pretrained"]["lead"][0]["mean"] == 0
