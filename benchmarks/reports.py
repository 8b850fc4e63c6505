"""Reports of `worldmodel fidelity` and `worldmodel bench` as Markdown tables.

```
python benchmarks/reports.py checkpoints/*/fidelity.json
worldmodel bench --world checkpoints/pusht --out bench.json && python benchmarks/reports.py bench.json
```

Fidelity: means with 95% intervals over episodes in brackets, a column for each number of dreamed frames. A report with
shifted data sets becomes a table of them alone. Bench: the grid, and what else was timed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from worldmodel.files import read_object
from worldmodel.model.card import plain, table

PIXELS = {"psnr": ("PSNR, dB", 1), "masked_psnr": ("masked PSNR, dB", 1), "ssim": ("SSIM", 3)}
OBJECTS = {"error_px": ("error, px", 1), "moving_error_px": ("error while it moves, px", 1), "missing": ("missing", 3)}


@dataclass(frozen=True)
class ReportsConfig:
    """Which reports to print."""

    reports: tyro.conf.Positional[tuple[Path, ...]]
    """Files that `worldmodel fidelity --out` or `worldmodel bench --out` wrote."""


def at(tree: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    """The values at a path; empty where the report has none."""
    for key in path:
        tree = tree.get(key, {})
    return tree


def cell(value: float | None, interval: list[float] | None, digits: int) -> str:
    """A mean with its interval."""
    if value is None:
        return "-"
    around = "" if interval is None else f" [{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]"
    return f"{value:.{digits}f}{around}"


def row(report: Mapping[str, Any], label: str, path: tuple[str, ...], digits: int) -> list[str]:
    """One figure at all horizons."""
    values, intervals = at(report, *path), at(report, "intervals", *path)
    horizons = [str(horizon) for horizon in report["metadata"]["horizons"]]
    return [label, *(cell(values.get(h), intervals.get(h), digits) for h in horizons)]


def fidelity_rows(report: Mapping[str, Any]) -> list[list[str]]:
    """Every figure of the dream, and below it that of copying the last frame."""
    rows = []
    for view in report["cameras"]:
        for metric, (label, digits) in PIXELS.items():
            rows.append(row(report, f"{plain(view)}: {label}", ("cameras", view, metric), digits))
            rows.append(row(report, "copying", ("copy_last", view, metric), digits))
    for name in report.get("objects", {}):
        for metric, (label, digits) in OBJECTS.items():
            rows.append(row(report, f"{plain(name)}: {label}", ("objects", name, metric), digits))
            rows.append(row(report, "copying", ("copy_last", "objects", name, metric), digits))
    for kind in report.get("action_following", {}):
        rows.append(row(report, f"PSNR lost under {kind} actions, dB", ("action_following", kind, "psnr_gap"), 1))
    return rows


def fidelity_table(report: Mapping[str, Any]) -> str:
    """Markdown: a row for each figure, a column for each horizon."""
    columns = [f"at {horizon}" for horizon in report["metadata"]["horizons"]]
    return table(["figure", *columns], fidelity_rows(report))


def shift_table(report: Mapping[str, Any], horizons: tuple[str, ...] = ("1", "10")) -> str:
    """Markdown: the first camera on every data set, copying in parentheses, and the gain over it at the last one."""
    view = next(iter(report["cameras"]))
    rows = []
    for name, each in {"as trained on": report, **report["shifted"]}.items():
        dreamed, copied = (at(each, part, view, "psnr") for part in ("cameras", "copy_last"))
        intervals = at(each, "intervals", "cameras", view, "psnr")
        cells = [f"{cell(dreamed[h], intervals.get(h), 1)} ({cell(copied[h], None, 1)})" for h in horizons]
        rows.append([plain(name), *cells, f"{dreamed[horizons[-1]] - copied[horizons[-1]]:.1f}"])
    heads = [f"PSNR at {h}, dB (copying)" for h in horizons]
    return table([f"data, camera {plain(view)}", *heads, f"gain over copying at {horizons[-1]}, dB"], rows)


def bench_tables(report: Mapping[str, Any]) -> str:
    """Markdown: streaming at every batch, and the rest in a table of its own."""
    grid = [
        [
            *(str(row[name]) for name in ("batch", "num_steps", "context")),
            f"{row['frames_per_second']:.1f}",
            *(f"{row['latency_ms'][name]:.1f}" for name in ("median", "p99")),
            f"{row['roof_share']:.1%}",
        ]
        for row in report["grid"]
    ]
    heads = ["batch", "steps", "context", "frames/s", "median, ms", "99th percentile, ms", "share of the best product"]
    roof = report["roof"]
    rest = [["best matrix product", f"{roof['gemm_flops_per_second'] / 1e9:.0f} GFLOP/s, {roof['dtype']}"]]
    rest.append([f"step {len(report['long']['seconds'])} over step 20", f"{report['step_1000_over_step_20']:.2f}"])
    for row in report["recompute"]:
        told = f"reading {row['context']} frames of context again, times the engine's time"
        rest.append([told, f"{row['recomputed_over_cached']:.1f}"])
    for row in report["processes"] or []:
        told = f"{row['workers']} process{'es' * (row['workers'] > 1)}, batch {row['batch']} each, frames/s"
        rest.append([told, f"{row['frames_per_second']:.1f}"])
    for passes, row in (report["training"] or {"passes": {}})["passes"].items():
        rest.append([f"training, {passes} self-forwarding passes, frames/s", f"{row['frames_per_second']:.1f}"])
    return f"{table(heads, grid)}\n\n{table(['figure', 'value'], rest)}"


def markdown(report: Mapping[str, Any]) -> str:
    """The tables of a report of any kind.

    Raises:
        ValueError: It is none of these reports.
    """
    if "grid" in report:
        return bench_tables(report)
    if "shifted" in report:
        return shift_table(report)
    if "cameras" in report:
        return fidelity_table(report)
    raise ValueError(f"expected a report of worldmodel fidelity or bench, got the keys {', '.join(report)}")


def title(report: Mapping[str, Any], file: Path) -> str:
    """What a report is about, in a line."""
    about = report["metadata"]
    if "grid" in report:
        return f"{about['world']}, {about['threads']} thread, {about['clock']} time"
    count = f"{about['windows']} windows of {about['episodes']} held-out episodes"
    return f"{file.parent.name or file.stem}: {count}, {about['num_steps']} denoising steps"


def main(config: ReportsConfig) -> None:
    """Print the tables of every report."""
    for file in config.reports:
        report = read_object(file)
        try:
            print(f"## {title(report, file)}\n\n{markdown(report)}\n")
        except (KeyError, TypeError, ValueError) as error:
            raise SystemExit(f"{file}: this is no such report: {error}") from error


if __name__ == "__main__":
    main(tyro.cli(ReportsConfig, description=__doc__))
