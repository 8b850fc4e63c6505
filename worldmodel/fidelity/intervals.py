"""Bootstrap intervals for means of values that come in groups."""

import numpy as np
from jaxtyping import Float64, Int64


def bootstrap_interval(
    values: Float64[np.ndarray, "n"],
    groups: Int64[np.ndarray, "n"],
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Percentile interval of the mean of `values`, resampling whole groups with replacement.

    Values of one group (windows of one episode, say) are not independent, so a group is drawn or
    left out as a whole (the cluster bootstrap; Davison and Hinkley 1997, section 3.8).

    Args:
        values: One number per measurement.
        groups: The group of each measurement.
        resamples: Number of bootstrap samples.
        level: Coverage, between 0 and 1.
        seed: Seed of the resampling.

    Returns:
        Lower and upper end, or `None` with fewer than two groups, which do not show the spread.
    """
    _, index = np.unique(groups, return_inverse=True)
    counts = np.bincount(index)
    if len(counts) < 2:
        return None
    sums = np.bincount(index, weights=values)
    drawn = np.random.default_rng(seed).integers(len(counts), size=(resamples, len(counts)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
