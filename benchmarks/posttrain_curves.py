"""The curve of `posttrain.py`: what changes over updates, for every arm and learning rate."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from posttrain_tables import LABELS, Rows, cell, compare

KINDS = (
    "missing",
    "error_px",
    "overlap",
    "action_error",
    "distance",
    "sharpness",
    "sharpness_moved",
    "psnr",
    "masked_psnr",
)
"""Kinds of measures that are followed over updates; of those taken at horizons, the one at the last horizon."""


@dataclass(frozen=True)
class Point:
    """A world model that is measured.

    Attributes:
        name: Its name in the tables.
        folder: Where it is.
        arm: What trained it.
        rate: Learning rate.
        minutes: Time of its training, or the limit of it.
        reference: Whether others are held against it, as against a control.
        final: Whether its training is over; a point of the curve before the end is not.
    """

    name: str
    folder: Path
    arm: str
    rate: float
    minutes: float
    reference: bool = False
    final: bool = True

    @property
    def updates(self) -> int:
        """Number of updates that it was trained."""
        return json.loads((self.folder / "evaluations.jsonl").read_text().splitlines()[-1])["step"]


def curve(rows: Rows, points: Sequence[Point]) -> list[dict[str, Any]]:
    """Every point of the curve with its `updates` and its `changes` against the world model before.

    The points of several seeds that have one name are one point; its number of updates is their mean.

    Args:
        rows: A row for every arm, run and window.
        points: The world models, apart from the one before.
    """
    found = compare(rows, "before")
    kept = followed(found["before"])
    return [
        {
            "name": name,
            "arm": same[0].arm,
            "rate": same[0].rate,
            "minutes": same[0].minutes,
            "updates": float(np.mean([point.updates for point in same])),
            "changes": {measure: found[name][measure] for measure in kept if measure in found[name]},
        }
        for name in dict.fromkeys(point.name for point in points)
        if (same := [point for point in points if point.name == name])
    ]


def followed(measures: Mapping[str, Any]) -> list[str]:
    """The measures that the curve shows, in the order of `KINDS`."""
    last = max(int(name.rsplit(".", 1)[1]) for name in measures if name.rsplit(".", 1)[-1].isdigit())
    at_last = [n for n in measures if not n.rsplit(".", 1)[-1].isdigit() or n.endswith(f".{last}")]
    useful = [n for n in at_last if n not in ("action_error.early", "action_error.recorded")]
    return sorted((n for n in useful if n.split(".")[0] in KINDS), key=lambda n: KINDS.index(n.split(".")[0]))


def curve_table(points: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: for each learning rate a table with a row for each measure and a column for each point."""
    tables = []
    for rate in dict.fromkeys(point["rate"] for point in points):
        mine = [point for point in points if point["rate"] == rate]
        heads = [f"{p['arm']}, {p['updates']:.0f} updates" for p in mine]
        title = f"## learning rate {rate:g}, over updates: changes against before [95%]\n"
        lines = [title, f"| measure | {' | '.join(heads)} |", "|---" * (len(mine) + 1) + "|"]
        for name in mine[0]["changes"]:
            kind, *where = name.split(".")
            cells = [cell(kind, point["changes"].get(name), is_reference=False) for point in mine]
            lines.append(f"| {LABELS[kind]}: {' '.join(where)} | {' | '.join(cells)} |")
        tables.append("\n".join(lines))
    return "\n\n".join(tables)


def plot_curve(points: Sequence[Mapping[str, Any]], file: Path) -> None:
    """The change of every measure against the world model before, with its interval, over updates."""
    names = list(points[0]["changes"])
    height = -(-len(names) // 4)
    figure = Figure(figsize=(13, 2.6 * height + 0.8), layout="constrained")
    FigureCanvasAgg(figure)
    grid = list(figure.subplots(height, 4, squeeze=False).flat)
    for axes in grid[len(names) :]:
        axes.set_axis_off()
    for axes, name in zip(grid, names, strict=False):
        for arm, rate in dict.fromkeys((point["arm"], point["rate"]) for point in points):
            mine = [p for p in points if (p["arm"], p["rate"]) == (arm, rate) and name in p["changes"]]
            mine.sort(key=lambda point: point["updates"])
            steps, values = [0.0, *(p["updates"] for p in mine)], [0.0, *(p["changes"][name]["change"] for p in mine)]
            bounds = [(0.0, 0.0), *(p["changes"][name]["interval"] or (np.nan, np.nan) for p in mine)]
            (line,) = axes.plot(steps, values, "o-", markersize=3, label=f"{arm}, {rate:g}")
            axes.fill_between(steps, *zip(*bounds, strict=True), color=line.get_color(), alpha=0.12)
        axes.axhline(0, color="grey", linewidth=0.6)
        axes.set_title(name, fontsize=9)
    for axes in grid[max(len(names) - 4, 0) : len(names)]:
        axes.set_xlabel("updates")
    lines, labels = grid[0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=4, fontsize=9)
    figure.savefig(file, dpi=90)
