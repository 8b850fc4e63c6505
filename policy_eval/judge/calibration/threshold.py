"""The threshold with which as many dreams succeed as rollouts did."""

import numpy as np
from jaxtyping import Float64

from worldmodel.fidelity.intervals import bootstrap_interval


def new_threshold(
    scores: Float64[np.ndarray, "e"], real: Float64[np.ndarray, "e"], before: float, *, always: bool
) -> tuple[float, tuple[float, float] | None]:
    """The threshold that matches the rollouts, or the one before if dreams differ from them by chance alone.

    Args:
        scores: Highest score of every dream.
        real: 1 for every rollout that succeeded, else 0.
        before: The threshold so far.
        always: Whether it moves even where the difference may be chance.

    Returns:
        The threshold, and the 95% interval of the success rate of dreams minus that of rollouts; `None` when there
        are too few.
    """
    difference = bootstrap_interval((scores > before) - real, np.arange(len(real)))
    by_chance = difference is None or difference[0] <= 0 <= difference[1]
    moves = always or not by_chance
    return matching_threshold(scores, real.mean()) if moves else before, difference


def matching_threshold(scores: Float64[np.ndarray, "e"], share: float) -> float:
    """A threshold that `share` of the scores exceed, halfway between two of them."""
    ranked = np.sort(scores)[::-1]
    above = round(share * len(ranked))
    low = ranked[above] if above < len(ranked) else 0.0
    high = ranked[above - 1] if above else 1.0
    return float((low + high) / 2)
