"""Inverse dynamics as a self-contained page: words, what is explained of each dim, and what is left out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from policy_eval.judge.inverse_dynamics_limits import Decoded
from worldmodel.display.html import Report
from worldmodel.display.plots import Row, draw_intervals, panel, png
from worldmodel.display.words import listed, span

DRAWN = 8
"""Most dims that are drawn."""
COLUMNS = ("dim", "frames", "R2 where visible", "95% interval", "R2 of all moments", "visible in")
KINDS = {"real": "recorded", "recorded": "recorded stretch", "generated": "dreamed stretch"}
"""Kinds of frames: whole held-out episodes, the stretches of them that are dreamed, and the dreams."""


def meaning(report: Mapping[str, Any]) -> list[str]:
    """Which dims the frames show, which not, and whether dreams show them as well.

    Args:
        report: The contents of `report.json`.
    """
    dims, wanted = report["real"]["dims"], report["wanted"]
    hidden = [name for name, dim in _named(report, dims) if not dim["visible"] or dim["explained"] is None]
    poor = [(name, dim) for name, dim in _named(report, dims) if name not in hidden and dim["explained"] < wanted]
    good = [name for name, dim in _named(report, dims) if name not in hidden and dim["explained"] >= wanted]
    sentences = []
    if good:
        sentences.append(
            f"Where they are visible, at least {wanted:.0%} of the variance of {listed(good)} is explained."
        )
    for name, dim in poor:
        sentences.append(
            f"Of {name} only {dim['explained']:.0%} of the variance is explained where it counts as visible; "
            f"{wanted:.0%} was wanted, and reached on the episodes that set the limit. More data or "
            "more --steps may help."
        )
    for name, dim in _named(report, dims):
        if name not in hidden and dim["visible"] < 1:
            sentences.append(
                f"The frames do not show {name} in {1 - dim['visible']:.0%} of the moments, which are left out."
            )
    if hidden:
        sentences.append(
            f"From these frames the network cannot read {listed(hidden)} well enough at any moment, so rewards leave "
            "this out altogether. More data, more --steps or --states may help."
        )
    if "generated" in report:
        sentences += _compared(report)
    return sentences


def _compared(report: Mapping[str, Any]) -> list[str]:
    dream, real = report["generated"]["explained"], report["recorded"]["explained"]
    if dream is None or real is None:
        return [
            "Dreams and recordings cannot be compared: nothing is visible in the recordings of the dreamed stretches."
        ]
    return [f"Of dreamed frames {dream:.0%} of the variance is explained, of the recorded frames there {real:.0%}."]


def _named(report: Mapping[str, Any], dims: Sequence[Any]) -> list[tuple[str, Any]]:
    """Dims with their names; with a stride several actions lie side by side."""
    width = len(dims) // report["stride"]
    step = "" if report["stride"] == 1 else " of step {}"
    return [(f"action dim {i % width}{step.format(i // width)}", dim) for i, dim in enumerate(dims)]


def lines(report: Mapping[str, Any]) -> list[str]:
    """One line for each kind of frames and each dim."""
    found = []
    for kind in KINDS:
        if kind in report:
            found += [
                f"{kind:9} {name}: {', '.join(_cells(dim))}" for name, dim in _named(report, report[kind]["dims"])
            ]
    return found


def _cells(dim: Mapping[str, Any]) -> list[str]:
    if dim["explained"] is None:
        return [f"visible in {dim['visible']:.0%} of the moments", "nothing to measure"]
    interval = "" if dim["interval"] is None else f" [{span(dim['interval'])}]"
    everywhere = "" if dim["explained_everywhere"] is None else f" ({dim['explained_everywhere']:.2f} of all moments)"
    return [f"R2 {dim['explained']:.2f}{interval} where visible{everywhere}", f"visible in {dim['visible']:.0%}"]


def write_page(report: Mapping[str, Any], episodes: Sequence[Decoded], file: Path) -> None:
    """Write the page.

    Args:
        report: The contents of `report.json`.
        episodes: The measured recordings.
        file: The page.
    """
    page = Report("Inverse dynamics")
    page.text(
        f"Trained on {report['train_episodes']} episodes of {report['data']}. {report['calibration_episodes']} other "
        f"episodes set the limits of what is visible, and {report['test_episodes']} more are measured here."
    )
    page.meaning(meaning(report))
    page.heading("What is explained")
    rows = {KINDS[kind]: _rows(report, kind) for kind in KINDS if kind in report}
    if all(rows.values()):
        page.plots({"R2 of each dim where it is visible, with 95% intervals over episodes": draw_intervals(rows, "R2")})
    page.table(COLUMNS, table_rows(report))
    page.heading("Decoded and commanded actions")
    page.text("In standard deviations of the commands. The moments that are left out are grey.")
    names = [name for name, _ in _named(report, report["real"]["dims"])][:DRAWN]
    page.plots({f"Decoded over commanded: {name}": draw_pairs(episodes, dim) for dim, name in enumerate(names)})
    page.heading("Moments that are left out")
    hidden = [dim for dim in range(len(names)) if not all(episode.seen[:, dim].all() for episode in episodes)]
    if hidden:
        page.text(
            "One row for each measured episode, time from left to right. Dark: the frames do not show the action."
        )
        page.plots({f"Not visible: {names[dim]}": draw_hidden(episodes, dim) for dim in hidden})
    else:
        page.text("None.")
    page.write(file)


def _rows(report: Mapping[str, Any], kind: str) -> list[Row]:
    """Rows of a plot; none if the interval of a dim is not known."""
    dims = _named(report, report[kind]["dims"])
    known = all(dim["explained"] is not None and dim["interval"] is not None for _, dim in dims)
    return [Row(name, dim["explained"], *dim["interval"]) for name, dim in dims] if known else []


def table_rows(report: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """What is explained of every dim, by the kind of frames, in the order of `COLUMNS`."""

    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    return [
        (
            name,
            KINDS[kind],
            number(dim["explained"]),
            "-" if dim["interval"] is None else span(dim["interval"], "{:.3f}"),
            number(dim["explained_everywhere"]),
            f"{dim['visible']:.0%}",
        )
        for kind in KINDS
        if kind in report
        for name, dim in _named(report, report[kind]["dims"])
    ]


def draw_pairs(episodes: Sequence[Decoded], dim: int) -> bytes:
    """Decoded over commanded actions of a dim, as a PNG."""
    figure, axes = panel()
    for wanted, colour in ((False, "0.75"), (True, "C0")):
        for episode in episodes:
            seen = episode.seen[:, dim] == wanted
            axes.plot(episode.commanded[seen, dim], episode.decoded[seen, dim], ".", ms=2, color=colour)
    axes.axline((0, 0), slope=1, color="0.4", lw=1, ls="--")
    axes.set(xlabel="commanded", ylabel="decoded")
    return png(figure)


def draw_hidden(episodes: Sequence[Decoded], dim: int) -> bytes:
    """Which moments of which episode are left out, as a PNG."""
    picture = np.full((len(episodes), max(len(episode.seen) for episode in episodes)), np.nan)
    for row, episode in enumerate(episodes):
        picture[row, : len(episode.seen)] = ~episode.seen[:, dim].numpy()
    figure, axes = panel()
    axes.imshow(picture, cmap="Greys", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    axes.set(xlabel="action", ylabel="episode")
    return png(figure)
