"""The fidelity report for people: a table in the terminal and a plot."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from worldmodel.files import write_atomically

METRICS = {
    "psnr": ("PSNR, dB", "{:.2f}"),
    "ssim": ("SSIM", "{:.3f}"),
    "lpips": ("LPIPS", "{:.3f}"),
    "masked_psnr": ("masked PSNR, dB", "{:.2f}"),
}
OBJECT_METRICS = {
    "error_px": ("error, px", "{:.2f}"),
    "moving_error_px": ("error when moving, px", "{:.2f}"),
    "missing": ("missing", "{:.1%}"),
}


def print_fidelity(report: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the report as one table, a column for each horizon, and why LPIPS is missing."""
    console = Console() if console is None else console
    console.print(fidelity_table(report))
    reason = report["metadata"]["lpips"]
    if reason is not None:
        console.print(reason, markup=False, soft_wrap=True)


def fidelity_table(report: Mapping[str, Any]) -> Table:
    """The report as a table, a column for each horizon; a dash where nothing was measured."""
    about = report["metadata"]
    horizons = [str(horizon) for horizon in about["horizons"]]
    title = (
        f"{about['data']}: {about['windows']} windows of {about['episodes']} episodes, "
        f"{about['num_steps']} steps per frame"
    )
    table = Table(title=title)
    for heading in ("", "metric", "model"):
        table.add_column(heading)
    for horizon in horizons:
        table.add_column(horizon, justify="right")
    for view in report["cameras"]:
        _add_camera(table, report, view, horizons)
    for name in report.get("objects", {}):
        _add_object(table, report, name, horizons)
    for alteration, gaps in report.get("action_following", {}).items():
        cells = [_cell(gaps["psnr_gap"][h], "{:.2f}") for h in horizons]
        table.add_row("action following", "PSNR gap, dB", alteration, *cells)
    return table


def _add_camera(table: Table, report: Mapping[str, Any], view: str, horizons: list[str]) -> None:
    for metric, (label, pattern) in METRICS.items():
        for key, model in (("cameras", "dream"), ("copy_last", "copy last")):
            values = report[key][view][metric]
            table.add_row(view, label, model, *(_cell(values[h], pattern) for h in horizons))
        codec = _cell(report["codec"][view][metric], pattern)
        table.add_row(view, label, "codec, any horizon", codec, *[""] * (len(horizons) - 1))
    table.add_section()


def _add_object(table: Table, report: Mapping[str, Any], name: str, horizons: list[str]) -> None:
    for metric, (label, pattern) in OBJECT_METRICS.items():
        for part, model in ((report, "dream"), (report["copy_last"], "copy last")):
            values = part["objects"][name][metric]
            table.add_row(name, label, model, *(_cell(values[h], pattern) for h in horizons))
    table.add_section()


def _cell(value: float | None, pattern: str) -> str:
    return "-" if value is None else pattern.format(value)


def plot_fidelity(report: Mapping[str, Any], file: Path) -> None:
    """Write a PNG of every metric against the horizon, with the bootstrap intervals as bands."""
    panels: list[tuple[str, dict[str, tuple[str, ...]]]] = []
    for view in report["cameras"]:
        for metric, (label, _) in METRICS.items():
            lines = {"dream": ("cameras", view, metric), "copy last": ("copy_last", view, metric)}
            panels.append((f"{view}: {label}", lines))
    for name in report.get("objects", {}):
        for metric, (label, _) in OBJECT_METRICS.items():
            path = ("objects", name, metric)
            panels.append((f"{name}: {label}", {"dream": path, "copy last": ("copy_last", *path)}))
    if "action_following" in report:
        kinds = report["action_following"]
        lines = {kind: ("action_following", kind, "psnr_gap") for kind in kinds}
        panels.append(("action following: PSNR gap, dB", lines))
    figure = _draw(report, panels)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, lambda path: figure.savefig(path, format="png", dpi=100))


def _draw(
    report: Mapping[str, Any], panels: list[tuple[str, dict[str, tuple[str, ...]]]]
) -> Figure:
    columns = 4
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(3.4 * columns, 2.6 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for number, (title, lines) in enumerate(panels):
        axes = figure.add_subplot(rows, columns, number + 1)
        for label, path in lines.items():
            _draw_line(axes, report, path, label)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("horizon, frames", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.set_ylim(bottom=0 if "px" in title or "missing" in title else None)
        if axes.lines:
            axes.legend(fontsize=7)
        else:
            axes.text(0.5, 0.5, "not measured", ha="center", transform=axes.transAxes)
    return figure


def _draw_line(axes: Axes, report: Mapping[str, Any], path: tuple[str, ...], label: str) -> None:
    values = _at(report, path)
    known = [horizon for horizon, value in values.items() if value is not None]
    if not known:
        return
    (line,) = axes.plot([int(h) for h in known], [values[h] for h in known], "o-", ms=3)
    line.set_label(label)
    intervals = _at(report["intervals"], path)
    banded = [horizon for horizon in known if intervals[horizon] is not None]
    low, high = ([intervals[horizon][end] for horizon in banded] for end in (0, 1))
    axes.fill_between([int(h) for h in banded], low, high, color=line.get_color(), alpha=0.2)


def _at(tree: Mapping[str, Any], path: tuple[str, ...]) -> Mapping[str, Any]:
    for key in path:
        tree = tree[key]
    return tree
