"""What a perfect simulator would score: agreement is bounded by the number of trials."""

import numpy as np
from jaxtyping import Float64, Int64

from policy_eval.statistics.agreement import QUALITY, STATISTICS, Column


def smoothed_rates(rates: Float64[np.ndarray, "p"], trials: Int64[np.ndarray, "p"]) -> Float64[np.ndarray, "p"]:
    """Rates with half a success and half a failure added (Jeffreys), so that none is 0 or 1."""
    return (rates * trials + 0.5) / (trials + 1)


def noise_ceiling(
    rates: Float64[np.ndarray, "p"],
    dream_trials: Int64[np.ndarray, "p"],
    real_trials: Int64[np.ndarray, "p"],
    *,
    resamples: int = 10_000,
    seed: int = 0,
) -> dict[str, Column]:
    """The distribution of every statistic of agreement for a perfect simulator.

    Dream and reality have the same success rates, and the numbers of successes are drawn from binomial
    distributions, independently: two measurements of the same policies. A simulator that repeats
    the outcome of every single start, and not only the rates, can exceed this ceiling.

    Args:
        rates: Success rate of each policy, the same in dream and reality.
        dream_trials: Number of dreamed trials of each policy.
        real_trials: Number of real trials.
        resamples: Number of perfect simulators.
        seed: Seed of the draws.

    Returns:
        For each statistic of `policy_eval.statistics.agreement.STATISTICS` its sorted values, worst first.
    """
    rng = np.random.default_rng(seed)
    shape = (resamples, len(rates))
    dream = rng.binomial(dream_trials, rates, size=shape) / dream_trials
    real = rng.binomial(real_trials, rates, size=shape) / real_trials
    ceiling = {}
    for name, statistic in STATISTICS.items():
        values = statistic(dream, real)
        ceiling[name] = values[np.argsort(QUALITY[name](values), kind="stable")]
    return ceiling


def percentile(values: Column, share: float) -> float:
    """The value that a share of the perfect simulators do not exceed in quality."""
    return float(values[min(int(share * len(values)), len(values) - 1)])


def standing(name: str, value: float, ceiling: Column) -> float:
    """The share of the perfect simulators that do no better than `value`, 0 to 1."""
    quality = QUALITY[name]
    return float((quality(ceiling) <= quality(np.array([value]))[0] + 1e-12).mean())
