"""A training run as a self-contained page: words, the latest film, the loss and the validations."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from worldmodel.display.html import Report
from worldmodel.display.plots import panel, png

SMOOTH = 25
"""The drawn loss is the mean of this many steps, but at most of a third of all of them."""
Row = Mapping[str, float | int | None]


def meaning(rows: Sequence[Row]) -> list[str]:
    """Whether the latest dreams of held-out episodes are closer to the truth than a copy of the last frame.

    Args:
        rows: The validations, as in `validation.jsonl`.
    """
    measured = [row for row in rows if _horizons(row)]
    if not measured:
        return ["No held-out episode is long enough for a validation, so nothing is known about the dreams."]
    last = measured[-1]
    horizon = _horizons(last)[-1]
    psnr, copied = last[f"validation/psnr_{horizon}"], last[f"validation/copy_psnr_{horizon}"]
    ahead = "One frame" if horizon == 1 else f"{horizon} frames"
    verdict = "closer to the truth than" if psnr > copied else "not better than"
    return [
        f"{ahead} ahead, dreams of held-out episodes are {verdict} a copy of the last frame: PSNR {psnr:.1f} "
        f"dB; the copy has {copied:.1f} dB. This is a quick look without an interval, which worldmodel fidelity gives."
    ]


def _horizons(row: Row) -> list[int]:
    """The horizons at which dreams and copies were compared."""
    return sorted(int(name.rpartition("_")[2]) for name in row if name.startswith("validation/copy_psnr_"))


def write_training(out: Path, rows: Sequence[Row]) -> None:
    """Write `report.html` into the folder of a run.

    Args:
        out: The folder, with its `losses.csv` and the films of its validations.
        rows: The validations.
    """
    page = Report("Training of a world model")
    page.meaning(meaning(rows))
    films = sorted((out / "validation").glob("*.mp4"))
    if films:
        page.heading("Film")
        page.video(films[-1], f"Truth above, dream below: held-out episodes after {int(films[-1].stem)} steps")
    page.heading("Course of the run")
    plots = {"Training loss over steps": draw_loss(out / "losses.csv")}
    if any(_horizons(row) for row in rows):
        plots["PSNR of dreams of held-out episodes over steps"] = draw_validations(rows)
    page.plots(plots)
    page.write(out / "report.html")


def draw_loss(table: Path) -> bytes:
    """The loss of every step and its moving mean, as a PNG."""
    with table.open() as file:
        losses = np.array([float(row["loss"]) for row in csv.DictReader(file)])
    width = max(min(SMOOTH, len(losses) // 3), 1)
    smooth = np.convolve(losses, np.full(width, 1 / width), mode="valid")
    figure, axes = panel()
    axes.plot(losses, alpha=0.3)
    axes.plot(np.arange(width - 1, len(losses)), smooth, label=f"mean of {width}")
    axes.set(xlabel="step", ylabel="loss", yscale="log")
    axes.legend(fontsize=8)
    return png(figure)


def draw_validations(rows: Sequence[Row]) -> bytes:
    """PSNR at every horizon over steps, as a PNG."""
    figure, axes = panel()
    for horizon in _horizons(rows[-1]):
        name = f"validation/psnr_{horizon}"
        points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
        axes.plot(*zip(*points, strict=True), "o-", ms=3, label=f"{horizon} frames ahead")
    axes.set(xlabel="step", ylabel="PSNR, dB")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return png(figure)
