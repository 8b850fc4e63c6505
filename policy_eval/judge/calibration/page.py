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

RATES = {"real": "real rollouts", "dreamt_before": "dreams, threshold before", "dreamed": "dreams, threshold now"}


def meaning(found: Mapping[str, Any]) -> list[str]:
    """Whether dreams succeeded as often as the rollouts, and what became of the threshold.

    Args:
        found: The contents of `calibration.json`.
    """
    moved = found["threshold"] != found["threshold_before"]
    threshold = f"from {found['threshold_before']:.3f} to {found['threshold']:.3f}"
    then = f"So the threshold moved {threshold}." if moved else "So the threshold stays as it was."
    rates = f"{found['dreamt_before']:.0%} of the dreams and {found['real']:.0%} of the rollouts succeeded"
    difference = found["difference_before"]
    if difference is None:
        return [f"It cannot be told whether the judge is too generous: there is one rollout and no interval. {then}"]
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
        scores: Highest score of every dream.
        file: The page.
    """
    page = Report("Calibration of a judge")
    page.text(f"{found['episodes']} rollouts of {found['rollouts']}, each dreamed from its start by the same policy.")
    page.meaning(meaning(found))
    page.heading("Success")
    rows = [Row(name, found[key], *wilson_interval(found[key], found["episodes"])) for key, name in RATES.items()]
    page.plots(
        {
            "Share of successes, with 95% intervals": draw_intervals({"share": rows}, "share of successes"),
            "Highest score of every dream, and the thresholds": draw_scores(found, scores),
        }
    )
    page.facts({name: f"{found[key]:.3f}" for key, name in RATES.items()}, "share of successes")
    page.write(file)


def draw_scores(found: Mapping[str, Any], scores: Float64[np.ndarray, "e"]) -> bytes:
    """A histogram of the scores with both thresholds, as a PNG."""
    figure, axes = panel()
    axes.hist(scores, bins=20, range=(0, 1), color="0.7")
    axes.axvline(found["threshold_before"], color="C1", ls="--", label="threshold before")
    axes.axvline(found["threshold"], color="C0", label="threshold now")
    axes.set(xlabel="highest score of a dream", ylabel="dreams")
    axes.legend(fontsize=8)
    return png(figure)
