"""Two thresholds between which a judge is unsure, so that it is wrong as seldom as you ask.

Split conformal prediction with one quantile for each class (Angelopoulos and Bates, A Gentle Introduction to Conformal
Prediction, arXiv 2107.07511, section 4.1). Rollouts of known outcome set the quantiles. Of new failures at most a
share `error` is then called a success, and of new successes at most a share `error` a failure, each on average over
the rollouts that set them. Both hold whatever the share of successes is, so for good and for bad policies alike. They
do not hold for frames of another kind: a judge that was set on real frames promises nothing about dreams.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64


@dataclass(frozen=True)
class Band:
    """The thresholds of a judge.

    Attributes:
        threshold: A trial succeeds with the first score above it.
        doubt: A trial with a score of at least this that has not succeeded is unsure; the others have failed. `None`
            where the judge is never unsure.
    """

    threshold: float
    doubt: float | None

    def verdicts(self, scores: Float64[np.ndarray, "e"]) -> Float64[np.ndarray, "e"]:
        """1 for a success, 0 for a failure, NaN where the judge is unsure; `scores` are the highest of each trial."""
        succeeds = scores > self.threshold
        unsure = np.zeros_like(succeeds) if self.doubt is None else (scores >= self.doubt) & ~succeeds
        return np.where(unsure, np.nan, succeeds.astype(np.float64))


def needed_rollouts(error: float) -> int:
    """How many failures, and how many successes, it takes at least."""
    return math.ceil(1 / error - 1 - 1e-9)


def conformal_band(
    scores: Float64[np.ndarray, "e"],
    outcomes: Float64[np.ndarray, "e"],
    before: float,
    error: float,
    name: str = "the rollouts",
) -> Band:
    """The thresholds for a chosen error.

    Where one threshold is enough for both classes, it is the one before, moved as little as needed.

    Args:
        scores: The highest score of every rollout.
        outcomes: 1 for every rollout that succeeded, else 0.
        before: The judge's threshold so far.
        error: Largest share of failures that are called a success, and of successes that are called a failure; above
            0 and below 0.5.
        name: Of the rollouts, for the message.

    Raises:
        ValueError: The error is out of range, or there are too few rollouts of one outcome.
    """
    if not 0 < error < 0.5:
        raise ValueError(f"--error is above 0 and below 0.5, got {error}")
    failed, succeeded = outcomes == 0, outcomes == 1
    needed = needed_rollouts(error)
    if min(failed.sum(), succeeded.sum()) < needed:
        raise ValueError(
            f"{name}: --error {error:g} takes at least {needed} failures and {needed} successes, there are "
            f"{failed.sum()} and {succeeded.sum()}"
        )
    least, most = exceeded_with(scores[failed], error), _lower(scores[succeeded], error)
    if least < most:  # every threshold from `least` to below `most` keeps both promises
        return Band(float(np.clip(before, least, np.nextafter(most, least))), None)
    return Band(least, most)


def exceeded_with(scores: Float64[np.ndarray, "n"], error: float) -> float:
    """A score that a new one of the same kind exceeds with a chance of at most `error`."""
    place = math.ceil((len(scores) + 1) * (1 - error) - 1e-9)
    return float(np.sort(scores)[place - 1])


def _lower(scores: Float64[np.ndarray, "n"], error: float) -> float:
    """A score that a new one of the same kind stays below with a chance of at most `error`."""
    place = math.floor((len(scores) + 1) * error + 1e-9)
    return float(np.sort(scores)[place - 1])
