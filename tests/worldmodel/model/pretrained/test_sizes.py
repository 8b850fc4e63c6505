"""What a world model of the real sizes holds, counted on PyTorch's meta device, and a long stream."""

import runpy
from dataclasses import replace

import pytest
import torch
from places import BENCHMARKS
from tiny import random_clip
from tiny_backbone import pretrained_world, write_wan

from worldmodel.bench.timing import long_run
from worldmodel.training.log import CLOCKS
from worldmodel.training.loss import LossConfig, draw, training_loss

SCRIPT = runpy.run_path(str(BENCHMARKS / "backbone.py"))


@pytest.mark.parametrize("name", SCRIPT["REAL"])
def test_the_folder_holds_at_most_a_twentieth_of_the_base_at_rank_32(name):
    base, share = SCRIPT["adapters_share"](name)
    assert base > 1.4
    assert 0.005 < share <= 0.05


@pytest.mark.slow
def test_hundreds_of_steps_are_finite_and_the_last_cost_what_an_early_one_does(tmp_path):
    world = pretrained_world(write_wan(tmp_path / "wan"), lora_rank=2, window=4)
    with torch.no_grad():
        for parameter in world.dit.told.parameters():
            parameter.normal_(std=0.02)
    clip = random_clip(world, batch=1, frames=2)
    run = long_run(world, clip, 2, frames=250, clock=CLOCKS["cpu"])
    assert run.memory_growth == 0
    assert run.late_over_early <= 1.3  # a thousand steps in benchmarks/backbone.py
    stream = world.stream(clip)
    for _ in range(60):
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
