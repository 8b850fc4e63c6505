"""The benchmark as a self-contained page: words, the plots, the grid."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worldmodel.display.html import Report

COLUMNS = ("batch", "steps", "context", "frames/s", "model only", "ms", "ms, p99", "share of the roof")


def meaning(report: Mapping[str, Any]) -> list[str]:
    """Whether the world model is fast enough to be driven, and whether long streams stay as fast.

    Args:
        report: The contents of the JSON file.
    """
    first, about = report["grid"][0], report["metadata"]
    best = max(report["grid"], key=lambda row: row["frames_per_second"])
    late = report["step_1000_over_step_20"]
    said = [
        f"{_count(first['batch'])} at {first['num_steps']} denoising steps: {first['frames_per_second']:.1f} frames/s, "
        f"{first['latency_ms']['median']:.1f} ms a step, 99% of them within {first['latency_ms']['p99']:.1f} ms "
        f"({about['machine']}, {about['threads']} thread).",
        f"Most frames in sum: {best['frames_per_second']:.1f} frames/s with {best['batch']} dreams side by side.",
        f"Step {len(report['long']['seconds'])} of a stream costs {late:.2f} times as much as step 20; its state "
        f"grew by {report['long']['state_growth_bytes']} bytes.",
    ]
    for row in report["recompute"]:
        said.append(
            f"Without the cache, a step at a context of {row['context']} frames takes "
            f"{row['recomputed_over_cached']:.1f} times as long."
        )
    return said


def _count(batch: int) -> str:
    return "One dream" if batch == 1 else f"{batch} dreams"


def write_page(report: Mapping[str, Any], picture: Path, file: Path) -> None:
    """Write the page.

    Args:
        report: The contents of the JSON file.
        picture: The plot.
        file: The page.
    """
    page = Report("Speed of a world model")
    page.text(f"{report['metadata']['world']}; {report['metadata']['clock']} time.")
    page.meaning(meaning(report))
    page.heading("Plots")
    page.picture(picture, "Cost by step of the stream, by batch, and by context", wide=True)
    page.heading("All settings")
    page.table(COLUMNS, [_cells(row) for row in report["grid"]])
    page.write(file)


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    latency = row["latency_ms"]
    return (
        *(str(row[name]) for name in ("batch", "num_steps", "context")),
        *(f"{row[name]:.1f}" for name in ("frames_per_second", "model_frames_per_second")),
        f"{latency['median']:.1f}",
        f"{latency['p99']:.1f}",
        f"{row['roof_share']:.1%}",
    )
