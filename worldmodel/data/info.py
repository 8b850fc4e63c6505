"""Describe a data set in a few lines, and list what is suspicious about it."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table

from conditioning.angles import found_angles
from worldmodel.data.formats import open_set
from worldmodel.data.options import DataOptions, ReadOptions, Request
from worldmodel.data.problems import find_problems
from worldmodel.data.source import TableSource


@dataclass(frozen=True)
class InfoConfig:
    """Which data set to describe."""

    data: tyro.conf.Positional[str | Path]
    """LeRobot folder, folder of videos, HDF5 file(s), or hf://USER/SET@REV."""
    views: tuple[str, ...] = ()
    """Cameras to read, in this order; by default all. The other ones may be broken."""
    look_at: int = 8
    """Number of episodes whose pictures are decoded to search for problems; 0 for none."""
    reading: ReadOptions = field(default_factory=DataOptions)
    """Which episodes and columns of the data to read."""


def info(config: InfoConfig) -> None:
    """Print episodes, cameras, tasks, the ranges of actions and states, and problems found."""
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


def describe(source: TableSource) -> dict[str, str]:
    """The facts of a data set, each in one line."""
    lengths = source.lengths
    frames, fps = sum(lengths), source.fps
    height, width = source.size
    tasks = Counter(source.task(episode) for episode in range(len(source)))
    cameras = [
        f"{view} {box.source[1]} x {box.source[0]}" for view, box in zip(source.views, source.boxes, strict=True)
    ]
    return {
        "folder": source.name,
        "robot": source.robot_type or "not named",
        **({"shift": source.shift} if source.shift else {}),
        "episodes": f"{len(source)} of {min(lengths)} to {max(lengths)} frames",
        "frames": f"{frames} at {fps:g} per second, {frames / fps / 60:.1f} minutes",
        "cameras": f"{', '.join(cameras)} pixels, read at {width} x {height}",
        "codecs": ", ".join(f"{view} {codecs(source, i)}" for i, view in enumerate(source.views)),
        **({} if source.action_dim else {"actions": "none: unlabelled video"}),
        **described_angles(source),
        "tasks": "; ".join(f"{task or 'not named'} ({count})" for task, count in tasks.items()),
    }


def described_angles(source: TableSource) -> dict[str, str]:
    """The states and actions that jump by a whole turn."""
    parts = []
    for name in ("actions", "states"):
        tables = [getattr(rows, name) for rows in source.rows]
        if tables[0] is not None:
            found = found_angles([torch.from_numpy(table) for table in tables])
            parts += [f"{name} dim {dim} wraps from {high:.4g} to {low:.4g}" for dim, (low, high) in found.items()]
    return {"angles": ", ".join(parts)} if parts else {}


def codecs(source: TableSource, camera: int) -> str:
    """How the pictures of a camera are compressed; every file is read once."""
    first = {source.pictures.file(e, camera): e for e in reversed(range(len(source)))}
    found = Counter(source.pictures.codec(episode, camera) for episode in first.values())
    return " and ".join(found)


def range_table(source: TableSource) -> Table:
    """Lowest, mean and highest value of every action and state dim."""
    table = Table("", "dim", "min", "mean", "max", title="ranges")
    for name in ("actions", "states"):
        columns = [getattr(rows, name) for rows in source.rows]
        if columns[0] is None:
            continue
        values = np.concatenate(columns)
        for dim, column in enumerate(values.T):
            cells = [f"{number:.4g}" for number in (column.min(), column.mean(), column.max())]
            table.add_row(name, str(dim), *cells)
    return table
