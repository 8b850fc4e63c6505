"""The fidelity report as a self-contained page: words, a film, plots with intervals, and the figures."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worldmodel.data import EpisodeSource
from worldmodel.data.video.write import write_video
from worldmodel.display.html import Report
from worldmodel.display.plots import panel, png
from worldmodel.dreams.film import compare, dream_episode
from worldmodel.fidelity.meaning import meaning
from worldmodel.fidelity.report import draw_panel, fidelity_table, panels_of
from worldmodel.fidelity.uncertainty.report import COLUMNS, EXPLAINED, draw_curve, uncertainty_rows
from worldmodel.world_model import WorldModel

SEEDS = (
    "Every window was dreamed again under other noise. The disagreement of these further dreams is compared with the "
    "error of the first one; brackets are 95% intervals over episodes. The trivial predictor is how far the dream has "
    "moved from the last recorded frame."
)


def write_page(report: Mapping[str, Any], world: WorldModel, source: EpisodeSource, episode: int, file: Path) -> None:
    """Write the page.

    Args:
        report: What `measure_fidelity` returns.
        world: The world model, which dreams the film.
        source: The data set that was measured.
        episode: The episode of the film, dreamed from its beginning.
        file: The page.
    """
    about = report["metadata"]
    page = Report("How faithful the dreams are")
    page.text(
        f"{about['windows']} windows of {about['episodes']} episodes of {about['data']}, dreamed with "
        f"{about['num_steps']} denoising steps per frame from {about['context_frames']} recorded frames."
    )
    page.meaning(meaning(report))
    page.heading("Film")
    truth, dream = dream_episode(
        world, source, episode, horizon=about["horizon"], num_steps=about["num_steps"], seed=about["seed"]
    )
    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder) / "film.mp4"
        write_video(film, compare(truth, dream, world.views), world.fps / world.stride)
        page.video(film, f"Truth above, dream below: the first measured episode, {episode}, {len(dream)} frames")
    page.heading("Quality against the horizon")
    page.text("The bands are 95% intervals from a bootstrap over episodes.")
    page.plots(plots(report))
    page.heading("Figures")
    page.table(*table(report))
    if about["lpips"] is not None:
        page.text(about["lpips"])
    if "uncertainty" in report:
        page.heading("Does disagreement predict the error?")
        page.text(f"{SEEDS} {EXPLAINED}")
        page.table(COLUMNS, uncertainty_rows(report["uncertainty"]))
        page.plots({"Error of the most certain dreams": curve(report["uncertainty"])})
    page.write(file)


def curve(report: Mapping[str, Any]) -> bytes:
    """A PNG of the error against the share of the windows that is kept."""
    figure, axes = panel()
    draw_curve(axes, report)
    return png(figure)


def plots(report: Mapping[str, Any]) -> dict[str, bytes]:
    """A PNG for every metric that was measured, by its caption."""
    drawn = {}
    for title, lines in panels_of(report):
        figure, axes = panel()
        draw_panel(axes, report, title, lines)
        if axes.lines:
            drawn[title] = png(figure)
    return drawn


def table(report: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of the table that the terminal shows; every row names its metric."""
    shown = fidelity_table(report)
    columns = [str(column.header) for column in shown.columns]
    cells = [list(column.cells) for column in shown.columns]
    rows: list[list[str]] = []
    for row in zip(*cells, strict=True):
        rows.append([str(row[0]) or rows[-1][0], *map(str, row[1:])])
    return columns, rows
