"""Inverse dynamics that only measure: another network, other episodes and another seed than those which reward.

```
python benchmarks/second_dynamics.py --data data/measuring --world checkpoints/pusht --out runs/second
```

Actions that are decoded by the network whose agreement was rewarded prove nothing: a world model can learn what that
network likes to see. Here a plain convolutional network sees every frame beside the one before it, instead of
keypoints; a shorter window of its codes is read.
"""

from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import torch
import tyro
from jaxtyping import Float
from torch import Tensor, nn

from policy_eval.judge.inverse_dynamics import InverseDynamics, InverseDynamicsDescription, perceptron
from policy_eval.judge.inverse_dynamics_limits import measure
from policy_eval.judge.inverse_dynamics_training import (
    InverseDynamicsTraining,
    build,
    fit_dynamics,
    fit_heads,
    read_clip,
    recorded_clip,
    split,
)
from worldmodel.data import EpisodeCache, open_episodes
from worldmodel.data.options import DataOptions
from worldmodel.files import write_json
from worldmodel.model.folder import load_model
from worldmodel.world_model import WorldModel

FEATURES = 128
"""Numbers that the convolutions make of a frame and camera."""
BEFORE, AFTER, WIDTH = 2, 1, 192
"""Frames of the window before the action and after the next frame, and the width of the perceptrons."""


@dataclass(frozen=True)
class SecondDynamics:
    """What the network is trained on."""

    data: Path
    """Recorded episodes, others than those of the world model's post-training and of its rewards."""
    world: Path
    """World model whose cameras, stride and relative actions are taken."""
    out: Path
    """Folder of `config.json`, `weights.safetensors` and `report.json`."""
    episodes: str = ""
    """Episodes to read, as in 0:100 or 200:; by default all."""
    steps: int = 700
    """Optimiser steps of the whole network; the perceptrons alone get three times as many more."""
    seed: int = 1000
    """Seed of weights and batches."""


class ConvolutionalPair(nn.Module):
    """What a frame and its difference from the one before show: convolutions with strides, and no keypoints."""

    num_features = FEATURES

    def __init__(self, size: tuple[int, int]):
        super().__init__()
        widths = (6, 24, 32, 48, 48)
        layers = [
            layer
            for old, new in pairwise(widths)
            for layer in (nn.Conv2d(old, new, 4, 2, 1), nn.GroupNorm(4, new), nn.SiLU())
        ]
        cells = (size[0] // 16) * (size[1] // 16)
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(cells * widths[-1], FEATURES))

    def forward(self, pictures: Float[Tensor, "b t 3 H W"]) -> Float[Tensor, "b t k"]:
        """Features of every frame, in [-1, 1]; the first one has not changed."""
        changes = torch.cat([torch.zeros_like(pictures[:, :1]), pictures.diff(dim=1)], dim=1)
        return self.layers(torch.cat([pictures, changes], dim=2).flatten(0, 1)).float().unflatten(0, pictures.shape[:2])


def convolutional(dynamics: InverseDynamics) -> InverseDynamics:
    """Give inverse dynamics the other architecture: untrained convolutions, a shorter window, wider perceptrons."""
    config = replace(dynamics.config, before=BEFORE, after=AFTER, width=WIDTH)
    dynamics.config = config
    dynamics.encoders = nn.ModuleList([ConvolutionalPair(config.size) for _ in config.views])
    dynamics.describe = nn.Linear(FEATURES * len(config.views), config.code)
    inputs = dynamics.window * (config.code + 2 * config.state_dim + 1)
    dynamics.head, dynamics.doubt = (perceptron(inputs, WIDTH, config.action_dim) for _ in range(2))
    return dynamics


def load(folder: Path) -> InverseDynamics:
    """Load what `train` wrote."""

    def made(said: InverseDynamicsDescription, _: object) -> InverseDynamics:
        return convolutional(InverseDynamics(said.config))

    return load_model(folder, "config.json", InverseDynamicsDescription, made)[1].eval()


def train(config: SecondDynamics) -> InverseDynamics:
    """Train, and measure on held-out episodes. Every moment counts as visible."""
    world = WorldModel.load(config.world)
    reading = DataOptions(episodes=config.episodes)
    source = EpisodeCache(open_episodes(config.data, tuple(world.size), world.views, reading))
    settings = InverseDynamicsTraining(
        data=config.data,
        out=config.out,
        world=config.world,
        steps=config.steps,
        head_steps=3 * config.steps,
        seed=config.seed,
    )
    learnt, *held_out = split(source, None)
    dynamics = convolutional(build(settings, source, learnt, world))
    config.out.mkdir(parents=True, exist_ok=True)
    fit_dynamics(dynamics, source, learnt, settings)
    fit_heads(dynamics, source, learnt, settings)
    dynamics.eval()
    found = [read_clip(dynamics, recorded_clip(source, e, world.stride)) for part in held_out for e in part]
    report = {"data": str(config.data), "train_episodes": len(learnt), "seed": config.seed, "real": measure(found)}
    dynamics.save(config.out)
    write_json(config.out / "report.json", report)
    return dynamics


if __name__ == "__main__":
    train(tyro.cli(SecondDynamics, description=__doc__))
