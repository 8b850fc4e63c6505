"""A run of the pathwise objective: the discriminator has its own learning rate, and the world model the default one."""

from dataclasses import replace

import pytest
import torch
from places import LEROBOT_V30
from safetensors.torch import load_file
from tiny import tiny_world

from rl_posttrain.posttraining.config import PosttrainConfig
from rl_posttrain.posttraining.pathwise.config import PathwiseConfig
from rl_posttrain.posttraining.train import posttrain

PARTS = ("model.world.", "model.realism.")


def largest_change(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor], part: str) -> float:
    return max(float((after[name] - value).abs().max()) for name, value in before.items() if name.startswith(part))


def test_discriminator_and_world_move_at_their_own_rates(tmp_path):
    tiny_world().save(tmp_path / "world", dtype=torch.float32)
    config = PosttrainConfig(
        world=tmp_path / "world",
        data=LEROBOT_V30,
        out=tmp_path / "out",
        objective="pathwise",
        groups=1,
        steps=1,
        warmup=1,
        muon=False,
        validation_episodes=1,
        validation_horizon=2,
        patience=0,
        log="none",
        pathwise=PathwiseConfig(perceptual=0.0, frames=4, realism_rate=1e-3, realism_warmup=2, pictures=4),
    )
    states, discriminator = [], tmp_path / "out" / "discriminator.jsonl"
    for steps in (1, 2):
        posttrain(replace(config, steps=steps, resume=steps > 1))
        (file,) = (tmp_path / "out" / "state").glob("*.safetensors")
        states.append(load_file(file))
        assert len(discriminator.read_text().splitlines()) == 2, "it learns before the first update, and once"
    base = {f"model.world.{name}": weight.detach() for name, weight in tiny_world().named_parameters()}
    trained = {name: weight for name, weight in base.items() if name in states[0]}
    assert largest_change(trained, states[0], "model.world.") < 3e-5, "it does not move while the discriminator learns"
    moved = {part: largest_change(*states, part) for part in PARTS}
    assert moved["model.world."] == pytest.approx(2e-5, rel=0.5)
    assert 0.5e-3 < moved["model.realism."] < 3e-3


def test_the_default_learning_rate_is_that_of_the_objective():
    config = PosttrainConfig(world="world", data=LEROBOT_V30, out=LEROBOT_V30, objective="pathwise")
    assert config.rate == 2e-5
    assert replace(config, objective="nft").rate == replace(config, objective="self-rollout").rate == 3e-6
    assert replace(config, learning_rate=1e-3).rate == 1e-3
