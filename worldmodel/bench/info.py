"""Describe a data set, name what is suspicious about it, and say whether training would wait for it."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.console import Console

from worldmodel.bench.decoding import DecodingSpeed, StepNeed, decoding_speed, in_words, speed_table, step_need
from worldmodel.data.clip import EpisodeSource
from worldmodel.data.formats import open_set
from worldmodel.data.info import describe, range_table
from worldmodel.data.options import DataOptions, ReadOptions, Request
from worldmodel.data.problems import find_problems
from worldmodel.data.source import TableSource
from worldmodel.display.ranges import Count, Positive, Whole, check_ranges
from worldmodel.model.precision import command_device
from worldmodel.training.build import build_world
from worldmodel.training.config import BaseConfig, PretrainConfig
from worldmodel.training.pretrain import frame_size
from worldmodel.world_model import WorldModel

PRESETS = {"tiny": PretrainConfig, "base": BaseConfig}


@dataclass(frozen=True)
class InfoConfig:
    """Which data set to describe."""

    data: tyro.conf.Positional[str | Path]
    """LeRobot folder, folder of videos, HDF5 file(s), hf://USER/SET@REV, or a URL such as s3://BUCKET/SET."""
    views: tuple[str, ...] = ()
    """Cameras to read, in this order; by default all. The other ones may be broken."""
    look_at: Whole = 8
    """Number of episodes whose pictures are decoded to search for problems; 0 for none."""
    speed: bool = False
    """Also measure how fast the pictures are decoded, against what a training step needs."""
    world: str | Path | None = None
    """World model whose training step is timed, a folder or hf://USER/NAME@REV; by default a new one of --preset."""
    preset: Literal["tiny", "base"] = "tiny"
    """Preset of pretrain that gives batch and length of clips, and the network where no --world is given."""
    workers: tuple[Count, ...] = (1, 2, 4)
    """Numbers of threads that decode at the same time."""
    seconds: Positive = 2.0
    """Seconds of each measurement of decoding."""
    device: str = "auto"
    """Where the training step runs: auto is CUDA if there is a GPU, else the CPU; you can also name a device."""
    reading: ReadOptions = field(default_factory=DataOptions)
    """Which episodes and columns of the data to read."""


def info(config: InfoConfig) -> None:
    """Print episodes, cameras, tasks, the ranges of actions and states, problems found, and with `speed` rates.

    Raises:
        ValueError: The data is malformed, or a number of workers or of seconds is not positive.
    """
    check_ranges(config)
    if not config.workers:
        raise ValueError("--workers names no number of threads")
    source = open_set(config.data, Request(**asdict(config.reading), views=config.views or None))
    console = Console()
    for name, value in describe(source).items():
        console.print(f"{name:9} {value}", highlight=False, soft_wrap=True, markup=False)
    if source.action_dim or source.state_dim:
        console.print(range_table(source))
    problems = find_problems(source, look_at=config.look_at)
    for kind, lines in (("note", source.notes), ("problem", problems)):
        for line in lines:
            console.print(f"{kind:9} {line}", highlight=False, soft_wrap=True, markup=False)
    if not problems:
        console.print("problems  none found", highlight=False)
    if config.speed:
        print_speed(source, config, console)


def print_speed(source: TableSource, config: InfoConfig, console: Console) -> None:
    """Measure and print how fast pictures are decoded, what a training step needs, and which waits for which."""
    sized, need, speeds = measure_speed(source, config)
    console.print(speed_table(speeds))
    for line in in_words(need, speeds, frames=sum(sized.lengths), views=len(sized.views), size=sized.size):
        console.print(f"{'speed':9} {line}", highlight=False, soft_wrap=True, markup=False)


def measure_speed(source: TableSource, config: InfoConfig) -> tuple[EpisodeSource, StepNeed, list[DecodingSpeed]]:
    """The source in the size to train in, what a step needs, and the rates for each number of workers."""
    preset = PRESETS[config.preset](data=config.data, out=Path())
    device = command_device(config.device)
    if config.world is None:
        sized: Any = source.select(source.views, frame_size(preset))
        world = build_world(
            sized,
            range(len(sized)),
            dit=preset.dit,
            stride=preset.stride,
            injection=preset.injection,
            relative_to={},
            use_actions=True,
            codec=None,
            init=None,
        )
        name = f"a new world model of the preset {config.preset}"
    else:
        world = WorldModel.load(config.world)
        sized, name = source.select(world.views, world.size), str(config.world)
    need = step_need(world.to(device), sized, name=name, batch=preset.batch, frames=preset.frames)
    speeds = [
        decoding_speed(sized, workers=workers, seconds=config.seconds, frames=preset.frames, stride=world.stride)
        for workers in config.workers
    ]
    return sized, need, speeds
