"""A trained judge as a self-contained page: words, how often it is right, and the scores of held-out episodes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from policy_eval.judge.scores import JudgedEpisode, outcomes, peaks
from policy_eval.statistics.resampling import wilson_interval
from worldmodel.display.html import Report
from worldmodel.display.plots import Row, draw_intervals, panel, png
from worldmodel.display.words import span

JUDGES = {"learned": "the judge", "goal_image": "nearest picture of a success"}
PLACES = {"real": "recorded frames", "dreamed": "dreamed frames"}


def meaning(report: Mapping[str, Any]) -> list[str]:
    """How often the judge is right about held-out episodes, and whether comparing pictures would do as well.

    Args:
        report: The contents of `report.json`.
    """
    found, baseline = report["real"]["learned"]["episodes"], report["real"]["goal_image"]["episodes"]
    interval = wilson_interval(found["accuracy"], found["n"])
    said = [
        f"The judge is right about {found['accuracy']:.0%} of {found['n']} held-out episodes (95% interval "
        f"{span(interval, '{:.0%}')}). It calls {found['called']:.0%} a success; in truth {found['successes']:.0%} "
        "are.",
        f"Comparing pixels with pictures of successes is right about {baseline['accuracy']:.0%}.",
    ]
    if report["dreamed"]:
        dreamed = report["dreamed"]["learned"]["episodes"]
        said.append(
            f"Where the world model dreams these episodes again, it is right about {dreamed['accuracy']:.0%} of "
            f"{dreamed['n']} and calls {dreamed['called']:.0%} a success."
        )
    else:
        said.append("How it judges dreams is not known; --world measures it, and worldmodel calibrate corrects it.")
    return said


def write_page(report: Mapping[str, Any], judged: Sequence[JudgedEpisode], threshold: float, file: Path) -> None:
    """Write the page.

    Args:
        report: The contents of `report.json`.
        judged: Held-out recorded episodes with the judge's scores.
        threshold: Score above which a frame is a success.
        file: The page.
    """
    page = Report("A judge")
    page.text(f"Trained on {report['data']}, measured on held-out episodes of {report['test']}.")
    page.meaning(meaning(report))
    page.heading("Held-out episodes")
    rows = {PLACES[place]: _rows(report[place]) for place in PLACES if report[place]}
    page.plots(
        {
            "Share of episodes that are judged right, with 95% intervals": draw_intervals(rows, "accuracy"),
            "Highest score of each recorded episode": draw_scores(judged, threshold),
        }
    )
    page.table(("frames", "judge", "episodes", "right", "called a success", "truly a success"), table_rows(report))
    page.write(file)


def _rows(place: Mapping[str, Any]) -> list[Row]:
    found = {name: parts["episodes"] for name, parts in place.items()}
    return [
        Row(JUDGES[name], each["accuracy"], *wilson_interval(each["accuracy"], each["n"]))
        for name, each in found.items()
    ]


def table_rows(report: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """What each judge says of whole episodes, recorded and dreamed."""
    return [
        (
            PLACES[place],
            JUDGES[name],
            str(row["n"]),
            *(f"{row[key]:.0%}" for key in ("accuracy", "called", "successes")),
        )
        for place in PLACES
        for name, parts in report[place].items()
        for row in (parts["episodes"],)
    ]


def draw_scores(judged: Sequence[JudgedEpisode], threshold: float) -> bytes:
    """Histograms of the highest score of successful and of failed episodes, as a PNG."""
    truth, scores = outcomes(judged), peaks(judged)
    figure, axes = panel()
    bins = np.linspace(0, 1, 21)
    axes.hist([scores[truth], scores[~truth]], bins=bins, label=["successes", "failures"], color=["C2", "C3"])
    axes.axvline(threshold, color="C0", label="threshold")
    axes.set(xlabel="highest score of an episode", ylabel="episodes")
    axes.legend(fontsize=8)
    return png(figure)
