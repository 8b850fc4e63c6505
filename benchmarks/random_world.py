"""A world model of a preset with random weights, to time what nobody has trained yet.

```
python benchmarks/random_world.py --preset base --size 64 --out runs/base
worldmodel bench --world runs/base --device cuda --batch 1 8 32 --num-steps 2 --context 8
```
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro

from conditioning.conditioner import ConditionerConfig
from worldmodel.training.config import BaseConfig, PretrainConfig
from worldmodel.world_model import WorldModel, WorldModelConfig

PRESETS = {"tiny": PretrainConfig, "base": BaseConfig}


@dataclass(frozen=True)
class RandomWorld:
    """What to make up."""

    out: Path
    """Folder of the world model."""
    preset: Literal["tiny", "base"] = "base"
    """Whose transformer."""
    size: int = 64
    """Side of the square pictures in pixels."""
    views: int = 2
    """Cameras."""
    action_dim: int = 7
    """Width of the actions, and of the states."""


def main(config: RandomWorld) -> None:
    """Build it and write it."""
    torch.manual_seed(0)
    preset = PRESETS[config.preset](data=Path(), out=config.out)
    told = ConditionerConfig(action_dim=config.action_dim, state_dim=config.action_dim)
    views = tuple(f"camera-{index}" for index in range(config.views))
    size = (config.size, config.size)
    world = WorldModel(WorldModelConfig(views, size, 10.0, conditioner=told, dit=preset.dit, temperature=0.0))
    with torch.no_grad():
        for parameter in world.dit.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    world.save(config.out, dtype=torch.bfloat16)


if __name__ == "__main__":
    main(tyro.cli(RandomWorld))
