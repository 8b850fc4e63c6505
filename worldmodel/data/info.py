"""Describe a data set in a few lines."""

from collections import Counter

import numpy as np
import torch
from rich.table import Table

from conditioning.angles import found_angles
from worldmodel.data.source import TableSource


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
