"""The difference of two policies: an interval that holds from three trials on, and the confidence in its sign."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from policy_eval.scores import Scores
from policy_eval.statistics.resampling import NORMAL

Values = Float[np.ndarray, "n"]

WIDENING = 2 / 3
"""Newcombe's interval is too short where trials are few; its `z^2` is multiplied by `1 + WIDENING / n`."""
SURE = 40.0
"""No interval of more standard deviations than this is tried."""


@dataclass(frozen=True)
class PairOrder:
    """The comparison of two policies, in the dream or in reality.

    Attributes:
        probability: Confidence that the first is better, 0 to 1; 0.5 in a tie. It is above 0.975 exactly where the
            95% interval lies above 0.
        difference: Score of the first minus score of the second.
        low: Lower end of the interval of the difference.
        high: Upper end.
        n: Starts that both were tried from; 0 where the trials are not paired.
    """

    probability: float
    difference: float
    low: float
    high: float
    n: int


def pair_order(first: Scores, second: Scores, *, level: float = 0.95) -> PairOrder:
    """Compare two policies start by start, on the starts that they share.

    A start that is hard for both does not blur their difference. If they share fewer than two, the trials of
    each are taken as they are, unpaired.
    """
    _, mine, other = np.intersect1d(first.seeds, second.seeds, return_indices=True)
    paired = len(mine) >= 2
    x = first.outcomes[mine] if paired else first.outcomes
    y = second.outcomes[other] if paired else second.outcomes
    covariance = (x * y).mean() - x.mean() * y.mean() if paired else 0.0
    facts = [np.array([each], float) for each in (x.mean(), y.mean(), covariance, len(x), len(y))]
    low, high = difference_interval(*facts, np.array([NORMAL.inv_cdf((1 + level) / 2)]))
    probability = confidence(*facts)
    difference = float(x.mean() - y.mean())
    return PairOrder(probability.item(), difference, low.item(), high.item(), len(x) if paired else 0)


def difference_interval(
    first: Values, second: Values, covariance: Values, first_trials: Values, second_trials: Values, z: Values
) -> tuple[Values, Values]:
    """The hybrid score interval of a difference of two success rates, for many pairs at once.

    Newcombe's method 10 for paired trials (Statistics in Medicine 17, 2635, 1998) and, where the covariance
    is 0, his method for unpaired ones (17, 873): with the ends `l, u` of Wilson's interval of each rate `p`,
    the lower end is

    `p1 - p2 - sqrt((p1 - l1)^2 - 2 phi (p1 - l1) (u2 - p2) + (u2 - p2)^2)`

    and the upper end the same with `l` and `u` exchanged. `phi = cov / sqrt(p1 (1 - p1) p2 (1 - p2))` is the
    correlation of two columns of successes and failures. Two changes are ours, because Newcombe's interval
    holds the truth too rarely where trials are few (90% of the time with 5 or 10 trials of two policies of the
    rate 0.5): the covariance is moved towards 0 by `1 / (2 n)`, where Newcombe's continuity correction moves
    only positive ones, and `z^2` is multiplied by `1 + 2 / (3 n)`. `docs/figures/statistics.md` has the exact
    coverage of both.

    Graded outcomes in 0..1 vary less than successes and failures of the same mean; their interval is therefore wider
    than necessary, and not too short.

    Args:
        first: Mean outcome of the first policy, 0 to 1.
        second: Mean outcome of the second.
        covariance: Mean product of their outcomes minus the product of the means; 0 where trials are not paired.
        first_trials: Number of trials of the first policy.
        second_trials: Number of trials of the second; the same number where trials are paired.
        z: Standard deviations from the centre to an end; 1.96 for 95%.
    """
    phi = np.sign(covariance) * np.maximum(np.abs(covariance) - 0.5 / first_trials, 0)
    spread = np.sqrt(first * (1 - first) * second * (1 - second))
    phi = np.where(spread > 1e-12, phi / np.where(spread > 1e-12, spread, 1), 0)
    below_first, above_first = _arms(first, first_trials, z)
    below_second, above_second = _arms(second, second_trials, z)
    difference = first - second
    low = difference - _third_side(below_first, above_second, phi)
    high = difference + _third_side(above_first, below_second, phi)
    return np.maximum(low, -1.0), np.minimum(high, 1.0)


def confidence(
    first: Values, second: Values, covariance: Values, first_trials: Values, second_trials: Values
) -> Values:
    """Confidence that the first policy is better: that of the one-sided interval which ends at a difference of 0.

    A confidence distribution (Xie and Singh, International Statistical Review 81, 3, 2013), so that it and
    `difference_interval` cannot contradict each other. Equal scores give 0.5, and exchanging the two
    policies gives 1 minus the confidence.
    """
    better = first >= second
    facts = (
        np.where(better, first, second),
        np.where(better, second, first),
        covariance,
        np.where(better, first_trials, second_trials),
        np.where(better, second_trials, first_trials),
    )
    inside = np.zeros(len(first))
    beyond = np.full_like(inside, SURE)
    for _ in range(34):  # to 2e-9 standard deviations
        middle = (inside + beyond) / 2
        above_zero = difference_interval(*facts, middle)[0] > 0
        inside, beyond = np.where(above_zero, middle, inside), np.where(above_zero, beyond, middle)
    sure = np.vectorize(NORMAL.cdf, otypes=[float])(inside)
    return np.where(better, sure, 1 - sure)


def _arms(mean: Values, trials: Values, z: Values) -> tuple[Values, Values]:
    """Distances from a rate to the ends of its widened Wilson interval."""
    square = z * z * (1 + WIDENING / trials)
    centre = (mean + square / (2 * trials)) / (1 + square / trials)
    half = np.sqrt(square * (mean * (1 - mean) / trials + square / (4 * trials**2))) / (1 + square / trials)
    return np.maximum(mean - centre + half, 0), np.maximum(centre + half - mean, 0)


def _third_side(one: Values, other: Values, phi: Values) -> Values:
    """Length of the third side of a triangle, by the law of cosines."""
    return np.sqrt(np.maximum(one**2 - 2 * phi * one * other + other**2, 0))
