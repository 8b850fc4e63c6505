"""The fidelity report for people: a table in the terminal and a plot."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from worldmodel.display.plots import empty_figure
from worldmodel.fidelity.uncertainty.report import COLUMNS, EXPLAINED, uncertainty_rows
from worldmodel.files import write_atomically

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

METRICS = {
    "psnr": ("PSNR, dB", "{:.2f}"),
    "ssim": ("SSIM", "{:.3f}"),
    "lpips": ("LPIPS", "{:.3f}"),
    "masked_psnr": ("masked PSNR, dB", "{:.2f}"),
    "efficientnet_lite0": ("EfficientNet-lite0 distance", "{:.4f}"),
    "efficientnet_lite2": ("EfficientNet-lite2 distance", "{:.4f}"),
}
OBJECT_METRICS = {
    "error_px": ("error, px", "{:.2f}"),
    "moving_error_px": ("moving error, px", "{:.2f}"),
    "missing": ("missing", "{:.1%}"),
    "overlap": ("overlap of the shape", "{:.2f}"),
}
CROSS_VIEW = "cameras agree: share of swaps noticed"

Panel = tuple[str, dict[str, tuple[str, ...]]]
"""Title of a plot, and where its lines are in the report, by their names."""


def print_fidelity(report: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the report as one table, a column for each horizon, and why LPIPS is missing."""
    console = Console() if console is None else console
    console.print(fidelity_table(report))
    if "uncertainty" in report:
        console.print(_table(COLUMNS, uncertainty_rows(report["uncertainty"])))
        console.print(EXPLAINED, soft_wrap=True)
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
    table = Table(title=title, box=box.SIMPLE, padding=(0, 1, 0, 0))
    for heading in ("metric", "model"):
        table.add_column(heading, no_wrap=True)
    means = report.get("mean")
    for heading in (*horizons, *([f"mean 1-{about['horizon']}"] if means else []), "codec"):
        table.add_column(heading, justify="right", no_wrap=True)
    for view in report["cameras"]:
        for metric, (label, pattern) in picture_metrics(report, view).items():
            codec = _cell(report["codec"][view][metric], pattern)
            rows = {"dream": report["cameras"][view], "copy last": report["copy_last"][view]}
            over = [means[kind][view][metric] for kind in ("cameras", "copy_last")] if means else []
            _add_rows(table, f"{view}: {label}", rows, metric, horizons, pattern, codec, over)
        table.add_section()
    for name in report.get("objects", {}):
        for metric, (label, pattern) in object_metrics(report, name).items():
            copied = report["copy_last"]["objects"][name]
            rows = {"dream": report["objects"][name], "copy last": copied}
            _add_rows(table, f"{name}: {label}", rows, metric, horizons, pattern)
        table.add_section()
    rows = report.get("cross_view", {})
    _add_rows(table, CROSS_VIEW, rows, "share", horizons, "{:.3f}")
    rows = report.get("action_following", {})
    _add_rows(table, "action gap: PSNR, dB", rows, "psnr_gap", horizons, "{:.2f}")
    return table


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(*columns, box=box.SIMPLE, padding=(0, 1, 0, 0))
    for row in rows:
        table.add_row(*row)
    return table


def picture_metrics(report: Mapping[str, Any], view: str) -> dict[str, tuple[str, str]]:
    """Label and format of what was measured of a camera; perceptual distances only where they were asked for."""
    return {metric: how for metric, how in METRICS.items() if metric in report["cameras"][view]}


def object_metrics(report: Mapping[str, Any], name: str) -> dict[str, tuple[str, str]]:
    """Label and format of what was measured of an object; older reports say nothing of its shape."""
    return {metric: how for metric, how in OBJECT_METRICS.items() if metric in report["objects"][name]}


def _add_rows(
    table: Table,
    label: str,
    rows: Mapping[str, Any],
    metric: str,
    horizons: list[str],
    pattern: str,
    codec: str = "",
    over: Sequence[float | None] = (),
) -> None:
    """One row for each model; `over` are their means over the horizon."""
    for number, (model, values) in enumerate(rows.items()):
        cells = [_cell(values[metric][horizon], pattern) for horizon in horizons]
        cells += [_cell(over[number], pattern)] if over else []
        first = number == 0
        table.add_row(label if first else "", model, *cells, codec if first else "")


def _cell(value: float | None, pattern: str) -> str:
    return "-" if value is None else pattern.format(value)


def panels_of(report: Mapping[str, Any]) -> list[Panel]:
    """Title of every plot, and where its lines are in the report, by their names."""
    panels: list[Panel] = []
    for view in report["cameras"]:
        for metric, (label, _) in picture_metrics(report, view).items():
            lines = {"dream": ("cameras", view, metric), "copy last": ("copy_last", view, metric)}
            panels.append((f"{view}: {label}", lines))
    for name in report.get("objects", {}):
        for metric, (label, _) in object_metrics(report, name).items():
            path = ("objects", name, metric)
            panels.append((f"{name}: {label}", {"dream": path, "copy last": ("copy_last", *path)}))
    if "cross_view" in report:
        lines = {name: ("cross_view", name, "share") for name in report["cross_view"]}
        panels.append((CROSS_VIEW, lines))
    if "action_following" in report:
        kinds = report["action_following"]
        lines = {kind: ("action_following", kind, "psnr_gap") for kind in kinds}
        panels.append(("action following: PSNR gap, dB", lines))
    return panels


def plot_fidelity(report: Mapping[str, Any], file: Path) -> None:
    """Write a PNG of every metric against the horizon, with the bootstrap intervals as bands."""
    figure = _draw(report, panels_of(report))
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, lambda path: figure.savefig(path, format="png", dpi=100))


def _draw(report: Mapping[str, Any], panels: list[Panel]) -> "matplotlib.figure.Figure":
    columns = 4
    rows = -(-len(panels) // columns)
    figure = empty_figure(3.4 * columns, 2.6 * rows)
    for number, (title, lines) in enumerate(panels):
        axes = figure.add_subplot(rows, columns, number + 1)
        axes.set_title(title, fontsize=9)
        draw_panel(axes, report, title, lines)
        if not axes.lines:
            axes.text(0.5, 0.5, "not measured", ha="center", transform=axes.transAxes)
    return figure


def draw_panel(
    axes: "matplotlib.axes.Axes", report: Mapping[str, Any], title: str, lines: Mapping[str, tuple[str, ...]]
) -> None:
    """Draw one plot of `panels_of`, with the intervals as bands; nothing where nothing was measured."""
    for label, path in lines.items():
        _draw_line(axes, report, path, label)
    axes.set_xlabel("horizon, frames", fontsize=8)
    axes.set_xticks(report["metadata"]["horizons"])
    axes.tick_params(labelsize=8)
    axes.set_ylim(bottom=0 if "px" in title or "missing" in title else None)
    if axes.lines:
        axes.legend(fontsize=7)


def _draw_line(axes: "matplotlib.axes.Axes", report: Mapping[str, Any], path: tuple[str, ...], label: str) -> None:
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
