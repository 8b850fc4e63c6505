"""A calibration as a self-contained page: words, the success rates with intervals, the scores and the thresholds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from policy_eval.statistics.resampling import wilson_interval
from worldmodel.display.html import Report
from worldmodel.display.plots import Row, draw_intervals, panel, png
from worldmodel.display.words import sign_of, span
from worldmodel.fidelity.intervals import FEWEST_GROUPS

TOO_FEW = f"fewer than {FEWEST_GROUPS} rollouts are too few for an interval"
RATES = {"real": "real rollouts", "dreamt_before": "dreams, threshold before", "dreamed": "dreams, threshold now"}


def meaning(found: Mapping[str, Any]) -> list[str]:
    """What was found, and what became of the thresholds.

    Args:
        found: The contents of `calibration.json`.
    """
    return promise(found) if "error" in found else generosity(found)


def promise(found: Mapping[str, Any]) -> list[str]:
    """How often the judge may be wrong, what that means for these rollouts, and what it was before."""
    limit, now, before = f"{found['error']:.0%}", found["now"], found["before"]
    decided = found["episodes"] - now["unsure"]
    wrong = f"{now['false_successes']} of {found['failures']} failures are called a success and "
    wrong += f"{now['false_failures']} of {found['successes']} successes a failure"
    lines = [
        f"Of new rollouts like these the judge calls at most {limit} of the failures a success, and at most {limit} of "
        f"the successes a failure, each on average over the rollouts that set it. It looked at "
        f"{'dreams from their starts' if found['frames'] == 'dreamed' else 'their recorded frames'}.",
        f"It decides {decided} of these {found['episodes']} rollouts ({decided / found['episodes']:.0%}): {wrong}. "
        f"Before, {before['false_successes']} and {before['false_failures']} were wrong.",
    ]
    if found["doubt"] is None:
        return [*lines, f"One threshold, {found['threshold']:.3g}, is enough: the judge is never unsure."]
    said = f"A trial succeeds above {found['threshold']:.3g}. If a frame has at least {found['doubt']:.3g}"
    return [*lines, f"{said} and none is above, the judge is unsure."]


def generosity(found: Mapping[str, Any]) -> list[str]:
    """Whether dreams succeeded as often as the rollouts, and what became of the threshold."""
    moved = found["threshold"] != found["threshold_before"]
    threshold = f"from {found['threshold_before']:.3f} to {found['threshold']:.3f}"
    then = f"So the threshold moved {threshold}." if moved else "So the threshold stays as it was."
    rates = f"{found['dreamt_before']:.0%} of the dreams and {found['real']:.0%} of the rollouts succeeded"
    difference = found["difference_before"]
    if difference is None:
        return [f"It cannot be told whether the judge is too generous: {TOO_FEW}. {then}"]
    measured = f"{rates} (95% interval of the difference {span(difference, '{:.0%}')})"
    if sign_of(difference) == 0:
        then = f"The threshold moved {threshold} because --always was given." if moved else then
        return [
            f"It cannot be told whether the judge is too generous or too strict: {measured}, and the interval includes "
            f"0. {then}"
        ]
    return [f"The judge was too {'generous' if sign_of(difference) > 0 else 'strict'}: {measured}. {then}"]


def write_page(found: Mapping[str, Any], scores: Float64[np.ndarray, "e"], file: Path) -> None:
    """Write the page.

    Args:
        found: The contents of `calibration.json`.
        scores: Highest score of every trial.
        file: The page.
    """
    page = Report("Calibration of a judge")
    seen = "each dreamed from its start by the same policy"
    if found.get("frames") == "recorded":
        seen = "of which the judge saw the recorded frames"
    page.text(f"{found['episodes']} rollouts of {found['rollouts']}, {seen}.")
    page.meaning(meaning(found))
    page.heading("Success")
    plots, facts = draw_rates(found) if "error" not in found else draw_errors(found)
    page.plots(plots | {"Highest score of every trial, and the thresholds": draw_scores(found, scores)})
    page.facts(*facts)
    page.write(file)


Facts = tuple[dict[str, str], str]
"""Rows of a table, and what its second column is."""


def draw_rates(found: Mapping[str, Any]) -> tuple[dict[str, bytes], Facts]:
    """The shares of successes, as a plot and as facts."""
    rows = [Row(name, found[key], *wilson_interval(found[key], found["episodes"])) for key, name in RATES.items()]
    plot = draw_intervals({"share": rows}, "share of successes")
    facts = {name: f"{found[key]:.3f}" for key, name in RATES.items()}
    return {"Share of successes, with 95% intervals": plot}, (facts, "share of successes")


def draw_errors(found: Mapping[str, Any]) -> tuple[dict[str, bytes], Facts]:
    """The shares of wrong and unsure verdicts before and now, as a plot and as facts."""
    kinds = {
        "failures called a success": ("false_successes", found["failures"]),
        "successes called a failure": ("false_failures", found["successes"]),
        "unsure": ("unsure", found["episodes"]),
    }
    rows = {
        when: [
            Row(name, found[when][key] / n, *wilson_interval(found[when][key] / n, n))
            for name, (key, n) in kinds.items()
        ]
        for when in ("before", "now")
    }
    facts = {f"{row.name}, {when}": f"{row.value:.3f}" for when, every in rows.items() for row in every}
    return {"Wrong and unsure verdicts, with 95% intervals": draw_intervals(rows, "share")}, (facts, "share")


def draw_scores(found: Mapping[str, Any], scores: Float64[np.ndarray, "e"]) -> bytes:
    """A histogram of the scores with both thresholds, as a PNG."""
    figure, axes = panel()
    axes.hist(scores, bins=20, range=(0, 1), color="0.7")
    if found.get("doubt") is not None:
        axes.axvspan(found["doubt"], found["threshold"], color="C0", alpha=0.2, label="unsure")
    axes.axvline(found["threshold_before"], color="C1", ls="--", label="threshold before")
    axes.axvline(found["threshold"], color="C0", label="threshold now")
    axes.set(xlabel="highest score of a trial", ylabel="trials")
    axes.legend(fontsize=8)
    return png(figure)
