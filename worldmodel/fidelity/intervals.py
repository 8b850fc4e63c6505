"""Bootstrap intervals for means of values that come in groups."""

from collections.abc import Callable
from math import sqrt
from statistics import NormalDist

import numpy as np
from jaxtyping import Float64, Int64

FEWEST_GROUPS = 5
"""With fewer groups there is no interval: the range of all groups of four holds their median in 88% of the cases, of
two in half of them (`1 - 2^(1 - n)`), and a bootstrap interval is never wider than the range."""

TOO_FEW = f"fewer than {FEWEST_GROUPS} episodes are too few for an interval"


def bootstrap_interval(
    values: Float64[np.ndarray, "n"],
    groups: Int64[np.ndarray, "n"],
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Expanded percentile interval of the mean of `values`, resampling whole groups with replacement.

    Values of one group (windows of one episode, say) are not independent, so a group is drawn or
    left out as a whole (the cluster bootstrap; Davison and Hinkley 1997, section 3.8). Plain percentiles are too
    narrow where groups are few: of eight groups of normal values 90% of their intervals hold the mean, and 95% of the
    expanded ones (Hesterberg 2015, arXiv 1411.5279, section 5.3; see `expanded_tail`).

    Args:
        values: One number per measurement.
        groups: The group of each measurement.
        resamples: Number of bootstrap samples.
        level: Coverage, between 0 and 1.
        seed: Seed of the resampling.

    Returns:
        Lower and upper end, or `None` with fewer than `FEWEST_GROUPS` groups, which do not show the spread.
    """
    _, index = np.unique(groups, return_inverse=True)
    counts = np.bincount(index)
    if len(counts) < FEWEST_GROUPS:
        return None
    sums = np.bincount(index, weights=values)
    drawn = np.random.default_rng(seed).integers(len(counts), size=(resamples, len(counts)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    tail = expanded_tail(len(counts), level)
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def statistic_interval(
    statistic: Callable[[Int64[np.ndarray, "k"]], float],
    groups: Int64[np.ndarray, "n"],
    *,
    resamples: int = 400,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float] | None:
    """As `bootstrap_interval`, of any statistic.

    Args:
        statistic: Its value for the measurements with these indices, some of which come several times.
        groups: The group of each measurement.
        resamples: Number of bootstrap samples.
        level: Coverage, between 0 and 1.
        seed: Seed of the resampling.

    Returns:
        Lower and upper end, or `None` with fewer than `FEWEST_GROUPS` groups.
    """
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    if len(members) < FEWEST_GROUPS:
        return None
    drawn = np.random.default_rng(seed).integers(len(members), size=(resamples, len(members)))
    values = [statistic(np.concatenate([members[group] for group in row])) for row in drawn]
    tail = expanded_tail(len(members), level)
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def expanded_tail(number: int, level: float) -> float:
    """The share of bootstrap means to leave out at either end, for a number of groups.

    The means of a bootstrap vary by too little, `(n - 1) / n` of the variance, and as a normal value where Student's t
    is right. So the quantile of the normal distribution is moved out to `t_(n-1) sqrt(n / (n - 1))`.
    """
    from scipy.special import stdtrit  # a third of a second, which commands without intervals need not wait

    reach = float(stdtrit(number - 1, (1 + level) / 2)) * sqrt(number / (number - 1))
    return NormalDist().cdf(-reach)
