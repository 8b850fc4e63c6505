"""Which trials a signal leaves undecided, and from which step on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from policy_eval.abstention.signals import Trace
from policy_eval.judge.calibration.conformal import exceeded_with, needed_rollouts
from policy_eval.scores import Scores


def unsure_from(trace: Trace, limit: float) -> int | None:
    """The first step, counted from 1, whose signal is above the limit; `None` if there is none."""
    above = np.flatnonzero(trace > limit)
    return int(above[0]) + 1 if len(above) else None


def decided(scores: Scores, breaks: Mapping[int, int | None]) -> Bool[np.ndarray, "n"]:
    """Which trials are decided: never unsure, or a success before the step from which they would be.

    Args:
        scores: The trials.
        breaks: By seed of the start, the step from which the trial is unsure; a trial that is missing has no signal, so
            it counts as decided.
    """
    found = []
    for seed, outcome, steps in zip(scores.seeds.tolist(), scores.outcomes, scores.steps, strict=True):
        begin = breaks.get(seed)
        found.append(begin is None or bool(outcome == 1 and steps < begin))
    return np.array(found)


@dataclass(frozen=True)
class Bounds:
    """What is known of a policy's success if some of its trials are undecided.

    Attributes:
        n: Number of trials.
        decided: Number of those that are decided.
        low: Success rate if all others had failed.
        high: Success rate if all others had succeeded.
    """

    n: int
    decided: int
    low: float
    high: float

    @classmethod
    def of(cls, outcomes: Float64[np.ndarray, "n"], kept: Bool[np.ndarray, "n"]) -> "Bounds":
        """Of all trials, and which of them are decided."""
        n, known = len(outcomes), float(outcomes[kept].sum())
        return cls(n, int(kept.sum()), known / n, (known + float((~kept).sum())) / n)


def find_limit(honest: Sequence[Float64[np.ndarray, "_"]], error: float, name: str) -> float:
    """The limit that at most a share `error` of honest trials exceeds, whichever kind they are of.

    Args:
        honest: For every kind of honest trials the highest signal of each.
        error: The share, above 0 and below 0.5; it holds for new trials of the kind (split conformal prediction), on
            average over those that set the limit.
        name: Of the recordings, for the message.

    Raises:
        ValueError: The error is out of range, or there are too few trials of a kind.
    """
    if not 0 < error < 0.5:
        raise ValueError(f"--abstain-error is above 0 and below 0.5, got {error}")
    needed, fewest = needed_rollouts(error), min(len(peaks) for peaks in honest)
    if fewest < needed:
        raise ValueError(
            f"{name}: --abstain-error {error:g} takes at least {needed} recordings whose dreams end as they did, "
            f"there are {fewest}"
        )
    return max(exceeded_with(peaks, error) for peaks in honest)
