"""The benchmark for people: tables in the terminal and a plot."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from worldmodel.display.plots import empty_figure
from worldmodel.files import write_atomically

if TYPE_CHECKING:
    import matplotlib.axes


def print_bench(report: Mapping[str, Any], console: Console) -> None:
    """Print the grid, and one sentence about each other result."""
    console.print(grid_table(report))
    roof = report["roof"]
    console.print(
        f"Roof: {roof['gemm_flops_per_second'] / 1e9:.0f} GFLOP/s, the best product of square "
        f"matrices in {roof['dtype']}."
    )
    console.print(
        f"Cost at step {len(report['long']['seconds'])} over step 20: "
        f"{report['step_1000_over_step_20']:.3f}; the state grew by "
        f"{report['long']['state_growth_bytes']} bytes. Peak memory "
        f"{report['peak_memory_bytes'] / 1e6:.0f} MB."
    )
    for row in report["recompute"]:
        console.print(
            f"Without the cache, at context {row['context']}: "
            f"{row['recomputed_over_cached']:.1f} times the engine's time, "
            f"{row['recomputed_over_plain']:.1f} times that of the same modules with it."
        )
    for row in report["processes"] or []:
        console.print(
            f"{row['workers']} processes, batch {row['batch']} each: {row['frames_per_second']:.1f} frames/s."
        )
    for passes, row in (report["training"] or {"passes": {}})["passes"].items():
        console.print(
            f"Training with {passes} self-forwarding passes: {row['frames_per_second']:.1f} "
            f"frames/s, {row['data_wait']:.1%} of the time waiting for data."
        )


def grid_table(report: Mapping[str, Any]) -> Table:
    """One row for every batch, number of steps and context."""
    about = report["metadata"]
    table = Table(
        title=f"{about['world']} on {about['machine']}, {about['threads']} thread, {about['clock']} time",
        box=box.SIMPLE,
        padding=(0, 1, 0, 0),
    )
    headings = ("batch", "steps", "context", "frames/s", "model only", "ms", "p99", "roof share")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in report["grid"]:
        table.add_row(
            str(row["batch"]),
            str(row["num_steps"]),
            str(row["context"]),
            f"{row['frames_per_second']:.1f}",
            f"{row['model_frames_per_second']:.1f}",
            f"{row['latency_ms']['median']:.1f}",
            f"{row['latency_ms']['p99']:.1f}",
            f"{row['roof_share']:.1%}",
        )
    return table


def plot_bench(report: Mapping[str, Any], file: Path) -> None:
    """Cost against step index, against batch, and against context with and without the cache."""
    figure = empty_figure(11.0, 3.4)
    steps, batches, contexts = figure.subplots(1, 3)
    _plot_steps(steps, report["long"]["seconds"])
    _plot_batches(batches, report["grid"])
    _plot_contexts(contexts, report["recompute"])
    write_atomically(file, lambda path: figure.savefig(path, format="png", dpi=120))


def _plot_steps(axes: "matplotlib.axes.Axes", seconds: list[float]) -> None:
    axes.plot(range(1, len(seconds) + 1), [1000 * each for each in seconds], ".", markersize=2)
    axes.set(xlabel="step of the stream", ylabel="ms per step", ylim=(0, None))


def _plot_batches(axes: "matplotlib.axes.Axes", grid: list[Mapping[str, Any]]) -> None:
    context = grid[0]["context"]
    for num_steps in sorted({row["num_steps"] for row in grid}):
        rows = [r for r in grid if (r["num_steps"], r["context"]) == (num_steps, context)]
        label = f"{num_steps} denoising steps"
        axes.plot([r["batch"] for r in rows], [r["frames_per_second"] for r in rows], "o-", label=label)
    axes.set(xlabel="batch", ylabel="frames/s", xscale="log", ylim=(0, None))
    axes.legend()


def _plot_contexts(axes: "matplotlib.axes.Axes", rows: list[Mapping[str, Any]]) -> None:
    lengths = [row["context"] for row in rows]
    for name, label in (("cached", "ring cache"), ("recomputed", "context read again")):
        axes.plot(lengths, [row["ms"][name] for row in rows], "o-", label=label)
    axes.set(xlabel="frames of context", ylabel="ms per step, batch 1", ylim=(0, None))
    axes.legend()
