"""Fidelity out of distribution: data sets with one controlled shift each, beside the usual one."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from worldmodel.data import open_episodes
from worldmodel.data.options import DataOptions
from worldmodel.data.source import TableSource
from worldmodel.fidelity.report import CROSS_VIEW, object_metrics, picture_metrics

IN_DISTRIBUTION = "in distribution"
RISING = ("psnr", "ssim", "masked_psnr")
"""Metrics of pictures of which more is better."""


def measure_shifted(
    folders: Sequence[str | Path],
    size: tuple[int, int],
    views: Sequence[str],
    measure: Callable[[TableSource], dict[str, Any]],
    reading: DataOptions | None = None,
) -> dict[str, dict[str, Any]]:
    """The report of every shifted data set, by the shift that its metadata names.

    A data set whose metadata names no shift goes by the name of its folder.

    Args:
        folders: Data sets of held-out episodes, one controlled shift each.
        size: `(H, W)` of the frames to read.
        views: Names of the cameras to read.
        measure: Makes the report of one of them.
        reading: Which episodes and columns to read.

    Raises:
        ValueError: If two data sets have the same shift, or one cannot be measured.
    """
    sources: dict[str, TableSource] = {}
    for folder in folders:
        source = open_episodes(folder, size, views, reading)
        name = source.shift or Path(folder).resolve().name
        if name in sources:
            raise ValueError(
                f"{folder}: shift is {name!r}, and so is that of {sources[name].name}; name every shift once"
            )
        sources[name] = source
    return {name: measure(source) for name, source in sources.items()}


def shifted_table(report: Mapping[str, Any]) -> Table:
    """Table of in- and out-of-distribution rows; in brackets the gain over copying the last frame.

    Args:
        report: That of `measure_fidelity`, with the reports of `measure_shifted` under `shifted`.
    """
    rows = {IN_DISTRIBUTION: report, **report["shifted"]}
    horizons = [str(horizon) for horizon in report["metadata"]["horizons"]]
    table = Table(title="dreams, and (better than copying the last frame)", box=box.SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("data", no_wrap=True)
    for horizon in horizons:
        table.add_column(horizon, justify="right")
    for view in report["cameras"]:
        for metric, (label, pattern) in picture_metrics(report, view).items():
            path = (view, metric)
            sign = 1 if metric in RISING else -1
            _add_rows(table, f"{view}: {label}", rows, path, ("cameras",), pattern, sign, horizons)
        table.add_section()
    for name in report.get("objects", {}):
        for metric, (label, pattern) in object_metrics(report, name).items():
            path, sign = ("objects", name, metric), 1 if metric == "overlap" else -1
            _add_rows(table, f"{name}: {label}", rows, path, (), pattern, sign, horizons)
        table.add_section()
    if "cross_view" in report:
        _add_rows(table, CROSS_VIEW, rows, ("cross_view", "dream", "share"), (), "{:.3f}", 1, horizons)
    return table


def _add_rows(
    table: Table,
    label: str,
    rows: Mapping[str, Any],
    path: tuple[str, ...],
    above: tuple[str, ...],
    pattern: str,
    sign: int,
    horizons: Sequence[str],
) -> None:
    table.add_row(label, style="bold")
    for name, report in rows.items():
        dreamed, copied = _at(report, (*above, *path)), _at(report, ("copy_last", *path))
        cells = [_cell(dreamed.get(h), copied.get(h), pattern, sign) for h in horizons]
        table.add_row(f"  {name}", *cells)


def _cell(value: float | None, baseline: float | None, pattern: str, sign: int) -> str:
    if value is None:
        return "-"
    if baseline is None:
        return pattern.format(value)
    gain = pattern.replace(":", ":+").format(sign * (value - baseline) or 0.0)
    return f"{pattern.format(value)} ({gain})"


def _at(tree: Mapping[str, Any], path: Sequence[str]) -> Mapping[str, Any]:
    """The values at `path`; empty where a shifted data set has no such object."""
    for key in path:
        tree = tree.get(key, {})
    return tree
