"""Disagreement and error for people: sentences, a table, and a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldmodel.display.plots import empty_figure
from worldmodel.display.words import sign_of, span
from worldmodel.fidelity.intervals import TOO_FEW
from worldmodel.files import write_atomically

if TYPE_CHECKING:
    import matplotlib.axes

COLUMNS = ("what predicts the error", "in a frame", "over episodes", "ideal gain", "surest half")
EXPLAINED = (
    "Rank correlations with the error, over windows at each frame and over episodes; the share of what leaving out "
    "windows by the error itself would gain; the error of the surest half, compared with all."
)
LABELS = {"disagreement": "disagreement of {dreams} dreams", "motion": "motion of the dream (trivial)"}
LEVELS = 255


def uncertainty_rows(report: Mapping[str, Any]) -> list[list[str]]:
    """One row for each predictor, in the order of `COLUMNS`; the error of the half is relative to that of all."""
    half, rows = report["shares"].index(0.5), []
    for name, scores in report["predictors"].items():
        curve = report["curve"][name]
        change = f"{curve[half] / curve[-1] - 1:+.0%}" if curve[-1] else "-"
        cells = [with_interval(scores[column]) for column in ("within", "episodes", "gain")]
        rows.append([LABELS[name].format(dreams=report["dreams"]), *cells, change])
    return rows


def with_interval(value: Sequence[float | None]) -> str:
    """`[value, low, high]` in words; without the interval where there is none."""
    mean, *ends = value
    return f"{mean:.2f}" + ("" if None in ends else f" [{ends[0]:.2f}, {ends[1]:.2f}]")


def uncertainty_meaning(report: Mapping[str, Any]) -> list[str]:
    """Whether disagreement predicts the error, and whether it does so better than the motion of the dream.

    A claim needs a 95% interval that excludes 0; otherwise the sentence says that it cannot be told.
    """
    value, *interval = report["predictors"]["disagreement"]["within"]
    question = "whether dreams are more wrong where noise seeds disagree"
    if None in interval:
        return [f"It cannot be told {question}: rank correlation {value:.2f}, but {TOO_FEW}."]
    measured = f"rank correlation {value:.2f} within a frame (95% interval {span(interval)})"
    if sign_of(interval) == 0:
        return [f"It cannot be told {question}: {measured}, and the interval includes 0."]
    if sign_of(interval) < 0:
        return [f"Dreams are less wrong where noise seeds disagree: {measured}. Do not read disagreement as doubt."]
    ahead, *ends = report["ahead"]
    than = "a dream's own motion, which costs nothing"
    compared = {
        1: f"It predicts the error better than {than}",
        0: f"It cannot be told whether it predicts the error better than {than}",
        -1: f"It predicts the error less well than {than}",
    }[sign_of(ends)]
    return [
        f"Dreams are more wrong where noise seeds disagree: {measured}.",
        f"{compared} (difference {ahead:+.2f}, {span(ends)}).",
    ]


def plot_uncertainty(report: Mapping[str, Any], file: Path) -> None:
    """Write a PNG: error against the share that is kept, rank correlation against the horizon, and the episodes."""
    figure = empty_figure(12.0, 3.6)
    curve, frames, episodes = figure.subplots(1, 3)
    draw_curve(curve, report)
    for name in report["predictors"]:
        values = report["by_frame"][name]
        frames.plot(range(1, len(values) + 1), values, label=LABELS[name].format(dreams=report["dreams"]))
    frames.axhline(0, color="0.5", lw=1, ls="--")
    frames.set(xlabel="horizon, frames", ylabel="rank correlation with the error", title="Over windows, at each frame")
    frames.legend(fontsize=7)
    means = ([LEVELS * each for each in report["by_episode"][name]] for name in ("disagreement", "error"))
    episodes.plot(*means, "o", ms=4)
    episodes.set(xlabel="disagreement, levels of 255", ylabel="error, levels of 255", title="Means of episodes")
    for axes in (curve, frames, episodes):
        axes.tick_params(labelsize=8)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, lambda path: figure.savefig(path, format="png", dpi=100))


def draw_curve(axes: "matplotlib.axes.Axes", report: Mapping[str, Any]) -> None:
    """The error of the windows that are kept when the least certain ones are left out."""
    shares = [100 * share for share in report["shares"]]
    labels = LABELS | {"ideal": "the error itself (ideal)"}
    for name, values in report["curve"].items():
        levels = [LEVELS * each for each in values]
        axes.plot(shares, levels, ":" if name == "ideal" else "-", label=labels[name].format(dreams=report["dreams"]))
    axes.axhline(LEVELS * report["curve"]["ideal"][-1], color="0.5", lw=1, ls="--", label="chance")
    axes.set(xlabel="share of the windows that is kept, %", ylabel="RMS error, levels of 255")
    axes.set(title="Error of the most certain dreams", ylim=(0, None))
    axes.legend(fontsize=7)
