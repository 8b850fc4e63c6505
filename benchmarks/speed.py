"""Frames per second of a streaming rollout, everything included, and its cost over 1,000 steps.

    python benchmarks/speed.py --world checkpoints/pusht --data DATA [--json F]

One core, batch 1: raw action in, uint8 frames of every camera out. The bar: 25 frames/s at 2 steps
and step 1,000 costing at most 1.10 of step 20.
"""

import json
import platform
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from worldmodel.data import Clip, open_episodes, stack_clips
from worldmodel.world_model import WorldModel


@dataclass(frozen=True)
class SpeedConfig:
    """What to time."""

    world: Path = Path("checkpoints/pusht")
    """Folder of the world model."""
    data: Path = Path("data/heldout")
    """Episodes that give the first frames and the actions."""
    steps: int = 1000
    """Frames to stream."""
    num_steps: tuple[int, ...] = (1, 2, 4)
    """Denoising steps per frame."""
    json: Path | None = None
    """Where to write the figures."""


def stream(world: WorldModel, context: Clip, actions: torch.Tensor, num_steps: int, steps: int):
    """Seconds of each of `steps` streamed frames."""
    state, seconds = world.start(context), []
    for index in range(steps):
        begin = time.perf_counter()
        _, state = world.step(state, actions[:, index % actions.shape[1]], num_steps=num_steps)
        seconds.append(time.perf_counter() - begin)
    return seconds


def main(config: SpeedConfig) -> dict:
    torch.set_num_threads(1)
    world = WorldModel.load(config.world)
    source = open_episodes(config.data)
    clip = stack_clips([source.read(0, 0, source.lengths[0], world.stride)])
    results: dict = {"machine": platform.processor() or platform.machine(), "threads": 1}
    for num_steps in config.num_steps:
        stream(world, clip.head(8), clip.actions, num_steps, 20)
        seconds = stream(world, clip.head(8), clip.actions, num_steps, config.steps)
        early, late = seconds[10:60], seconds[-50:]
        results[f"{num_steps}_steps"] = {
            "frames_per_second": 1 / statistics.median(seconds),
            "latency_ms_median": 1000 * statistics.median(seconds),
            "latency_ms_p99": 1000 * statistics.quantiles(seconds, n=100)[98],
            "last_over_step_20": statistics.median(late) / statistics.median(early),
        }
    print(json.dumps(results, indent=2))
    if config.json:
        config.json.write_text(json.dumps(results, indent=2) + "\n")
    return results


if __name__ == "__main__":
    main(tyro.cli(SpeedConfig))
