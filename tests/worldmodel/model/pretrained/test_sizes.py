"""What a world model of the real sizes holds, counted on PyTorch's meta device, and a long stream."""

from dataclasses import replace

import pytest
import torch
from diffusers import WanTransformer3DModel
from tiny import random_clip
from tiny_backbone import pretrained_world, write_wan

from worldmodel.bench.timing import long_run
from worldmodel.model.pretrained.adapters import adapters_of, add_adapters, is_adapter
from worldmodel.model.pretrained.config import PretrainedConfig
from worldmodel.model.pretrained.dit import PretrainedDiT
from worldmodel.model.pretrained.wan import Wan
from worldmodel.training.log import CLOCKS
from worldmodel.training.loss import LossConfig, draw, training_loss

WIDE = {"attention_head_dim": 128, "text_dim": 4096, "freq_dim": 256}
REAL = {
    "Wan2.1-T2V-1.3B": (16, {**WIDE, "num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 30}, 4.0),
    "Wan2.2-TI2V-5B": (48, {**WIDE, "num_attention_heads": 24, "ffn_dim": 14336, "num_layers": 30}, 6.0),
    "Wan2.1-T2V-14B": (16, {**WIDE, "num_attention_heads": 40, "ffn_dim": 13824, "num_layers": 40}, 4.0),
}


@pytest.mark.parametrize("name", REAL)
def test_the_folder_holds_at_most_a_twentieth_of_the_base_at_rank_32(name):
    channels, sizes, rate = REAL[name]
    config = PretrainedConfig(name, lora_rank=32)
    with torch.device("meta"):
        family = Wan(WanTransformer3DModel(in_channels=channels, out_channels=channels, **sizes))
        base = sum(p.numel() for p in family.transformer.parameters())
        shape = {"num_views": 3, "latent_shape": (channels, 12, 20), "state_dim": 7, "spacing": 1.0}
        dit = PretrainedDiT(config, family, **shape)
        add_adapters(dit.transformer, family.adapted, adapters_of(config))
    borrowed = dit.borrowed
    kept = {name: value for name, value in dit.state_dict().items() if name not in borrowed}
    assert base > 1.4e9
    assert sum(value.numel() for value in kept.values()) <= 0.05 * base
    assert sum(is_adapter(name) for name in kept) == 2 * 8 * sizes["num_layers"]
    assert family.position_rate == rate


@pytest.mark.slow
def test_a_thousand_steps_are_finite_and_the_last_costs_what_an_early_one_does(tmp_path):
    world = pretrained_world(write_wan(tmp_path / "wan"), lora_rank=2, window=4)
    with torch.no_grad():
        for parameter in world.dit.told.parameters():
            parameter.normal_(std=0.02)
    clip = random_clip(world, batch=1, frames=2)
    run = long_run(world, clip, 2, frames=1000, clock=CLOCKS["cpu"])
    assert run.memory_growth == 0
    assert run.late_over_early <= 1.1
    stream = world.stream(clip)
    for _ in range(200):
        stream.step(torch.rand(1, 2))
        assert stream.latent.isfinite().all() and stream.observation.states.isfinite().all()


@pytest.mark.parametrize("steps", (8, 16))
def test_many_steps_can_be_trained_and_dreamed(tmp_path, steps):
    world = pretrained_world(write_wan(tmp_path / "wan"), lora_rank=2)
    world.config = replace(world.config, max_steps=steps)
    assert world.allowed_steps[-1] == steps
    clip, config = random_clip(world, frames=4), LossConfig(weighting="velocity")
    draws = draw(world, config, batch=2, frames=4, generator=torch.Generator().manual_seed(0))
    loss, _ = training_loss(world.train(), clip, draws, config)
    loss.backward()
    assert world.dit.told[1].weight.grad.abs().max() > 0
    assert world.eval().rollout(clip.head(2), torch.rand(2, 1, 2), num_steps=steps).frames.shape[1] == 1
