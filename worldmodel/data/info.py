"""What is in a data set, in a few lines."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from worldmodel.data.lerobot import LeRobotSource, open_episodes


@dataclass(frozen=True)
class InfoConfig:
    """Which data set to describe."""

    data: tyro.conf.Positional[Path]
    """LeRobot folder, v2.1 or v3.0."""


def info(config: InfoConfig) -> None:
    """Print episodes, cameras, tasks, and the ranges of actions and states."""
    source = open_episodes(config.data)
    console = Console()
    for name, value in describe(source).items():
        console.print(f"{name:9} {value}", highlight=False, soft_wrap=True)
    if source.action_dim or source.state_dim:
        console.print(range_table(source))


def describe(source: LeRobotSource) -> dict[str, str]:
    """The facts of a data set that fit on a line each."""
    lengths = source.lengths
    frames, fps = sum(lengths), source.fps
    height, width = source.size
    tasks = Counter(source.task(episode) for episode in range(len(source)))
    cameras = [
        f"{view} {box.source[1]} x {box.source[0]}"
        for view, box in zip(source.views, source.boxes, strict=True)
    ]
    return {
        "folder": source.name,
        "robot": source.robot_type or "not named",
        "episodes": f"{len(source)} of {min(lengths)} to {max(lengths)} frames",
        "frames": f"{frames} at {fps:g} per second, {frames / fps / 60:.1f} minutes",
        "cameras": f"{', '.join(cameras)} pixels, read at {width} x {height}",
        "tasks": "; ".join(f"{task or 'not named'} ({count})" for task, count in tasks.items()),
    }


def range_table(source: LeRobotSource) -> Table:
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
