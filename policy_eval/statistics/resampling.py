"""Intervals: of a success rate, of statistics over policies and over starts."""

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from jaxtyping import Float64

from policy_eval.scores import Scores
from policy_eval.statistics.agreement import CORRELATIONS, Column, Statistic, Table

NORMAL = NormalDist()
Interval = tuple[float, float]


def wilson_interval(mean: float, n: int, *, level: float = 0.95) -> Interval:
    """Wilson's score interval (1927) of a success rate.

    Outcomes between 0 and 1 vary less than successes and failures of the same mean do, so for
    graded outcomes it is wider than necessary.

    Args:
        mean: The rate measured, 0 to 1.
        n: Number of trials.
        level: Coverage.
    """
    z = NORMAL.inv_cdf((1 + level) / 2)
    centre = (mean + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(mean * (1 - mean) / n + z * z / (4 * n * n))
    # At a rate of 0 or 1 an end is the rate itself; rounding would put it 3e-17 beyond.
    return min(max(float(centre - half), 0.0), mean), max(min(float(centre + half), 1.0), mean)


def resampled_scores(places: Sequence[Sequence[Scores]], *, resamples: int = 4000, seed: int = 0) -> list[Table]:
    """Scores of every policy in every place on resampled starts, the same for all.

    Returns:
        An array `n p` for each place. Where none of a policy's own starts is drawn, its score is
        the measured one.
    """
    every = np.unique(np.concatenate([scores.seeds for place in places for scores in place]))
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(every), np.full(len(every), 1 / len(every)), size=resamples)
    tables = []
    for place in places:
        columns = []
        for scores in place:
            drawn = counts[:, np.searchsorted(every, scores.seeds)]
            trials = drawn.sum(1)
            sums = drawn @ scores.outcomes
            columns.append(np.where(trials, sums / np.maximum(trials, 1), scores.mean))
        tables.append(np.stack(columns, axis=1))
    return tables


def hierarchical_intervals(
    statistics: dict[str, Statistic],
    dream: Sequence[Scores],
    real: Sequence[Scores],
    *,
    level: float = 0.95,
    resamples: int = 4000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Hierarchical bootstrap intervals of statistics of agreement: policies, then starts.

    The estimand: what the statistic would be on average over sets of policies drawn from the same
    population, each policy measured with as many trials from as many starts. That is the number to
    compare with a noise ceiling with the same trials; for a correlation it is lower than that of
    the unknown true success rates.

    Correlations (`CORRELATIONS`) are drawn by policy alone, with all trials of each: the spread
    between measured policies contains the noise of their trials already (Davison and Hinkley 1997,
    section 3.8), and drawing trials anew as well would count it twice and pull every sample towards
    0. Errors (MMRV, bias, RMSE, regret) are drawn in both stages, because all policies share the
    starts, and because a set with one policy twice orders its pairs too easily.
    `benchmarks/interval_coverage.py` shows how often the intervals contain the estimand.

    Args:
        statistics: What to compute, see `policy_eval.statistics.agreement`.
        dream: Dreamed trials of each policy.
        real: Real trials of each, in the same order.
        level: Coverage.
        resamples: Number of bootstrap samples.
        seed: Seed of the resampling.
    """
    correlations = {name: f for name, f in statistics.items() if name in CORRELATIONS}
    s, r = (np.array([scores.mean for scores in place]) for place in (dream, real))
    intervals = policy_intervals(correlations, s, r, level=level, resamples=resamples, seed=seed)
    errors = {name: f for name, f in statistics.items() if name not in correlations}
    if errors:
        drawn = np.random.default_rng(seed).integers(len(s), size=(resamples, len(s)))
        tables = resampled_scores([dream, real], resamples=resamples, seed=seed + 1)
        samples = [np.take_along_axis(table, drawn, axis=1) for table in tables]
    for name, statistic in errors.items():
        value, jackknife = _point(statistic, s, r)
        intervals[name] = bca_interval(value, statistic(*samples), jackknife, level=level)
    return intervals


def policy_intervals(
    statistics: dict[str, Statistic],
    dream: Float64[np.ndarray, "p"],
    real: Float64[np.ndarray, "p"],
    *,
    groups: np.ndarray | None = None,
    level: float = 0.95,
    resamples: int = 4000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Bootstrap intervals over policies, bias-corrected and accelerated.

    The variance of a bootstrap sample of p policies is too small by the factor (p - 1) / p, so its
    tails are moved outwards to correct that (Hesterberg 2015, "narrowness bias", arXiv 1411.5279).

    Args:
        statistics: What to compute, see `policy_eval.statistics.agreement`.
        dream: Score of each policy in the dream.
        real: Likewise in reality.
        groups: Task of each policy: policies are drawn within their task, and the means of the
            task are removed.
        level: Coverage.
        resamples: Number of bootstrap samples.
        seed: Seed of the resampling.
    """
    number = len(dream)
    groups = np.zeros(number, int) if groups is None else np.asarray(groups)
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    rng = np.random.default_rng(seed)
    drawn = [m[rng.integers(len(m), size=(resamples, len(m)))] for m in members]
    s, r = (np.concatenate([side[i] for i in drawn], -1) for side in (dream, real))
    if len(members) > 1:
        s, r = (np.concatenate([_centred(side[i]) for i in drawn], -1) for side in (dream, real))
        dream, real = (np.concatenate([_centred(side[i][None])[0] for i in members]) for side in (dream, real))
    intervals = {}
    for name, statistic in statistics.items():
        value, jackknife = _point(statistic, dream, real)
        intervals[name] = bca_interval(value, statistic(s, r), jackknife, level=level, units=number - len(members) + 1)
    return intervals


def _point(
    statistic: Statistic, dream: Float64[np.ndarray, "p"], real: Float64[np.ndarray, "p"]
) -> tuple[float, Float64[np.ndarray, "p"]]:
    """The statistic of all policies, and with each left out."""
    left = [np.delete(np.arange(len(dream)), i) for i in range(len(dream))]
    index = np.array(left, int).reshape(len(dream), -1)
    return float(statistic(dream[None], real[None])[0]), statistic(dream[index], real[index])


def start_intervals(
    statistics: dict[str, Statistic], dream: Table, real: Table, *, level: float = 0.95
) -> dict[str, Interval]:
    """Percentile intervals from scores on resampled starts, for exactly these policies."""
    ends = [(1 - level) / 2, (1 + level) / 2]
    return {name: tuple(np.quantile(statistic(dream, real), ends).tolist()) for name, statistic in statistics.items()}


def bca_interval(
    value: float, samples: Column, jackknife: Float64[np.ndarray, "p"], *, level: float = 0.95, units: int | None = None
) -> Interval:
    """Bias-corrected and accelerated percentile interval (Efron 1987).

    Args:
        value: The statistic of the data.
        samples: Its bootstrap samples.
        jackknife: Its values with one unit left out, for the acceleration.
        level: Coverage.
        units: Number of units drawn, to correct the narrowness of the samples; no correction
            when not given.
    """
    n = len(samples)
    below = (samples < value).mean() + (samples == value).mean() / 2
    shift = NORMAL.inv_cdf(float(np.clip(below, 1 / n, 1 - 1 / n)))
    pull = jackknife.mean() - jackknife
    size = 6 * float((pull**2).sum()) ** 1.5
    acceleration = float((pull**3).sum()) / size if size > 1e-12 else 0.0
    ends = []
    for tail in tails(level, units):
        z = shift + NORMAL.inv_cdf(tail)
        ends.append(NORMAL.cdf(shift + z / max(1 - acceleration * z, 1e-3)))
    low, high = np.quantile(samples, ends)
    return float(low), float(high)


def tails(level: float, units: int | None) -> tuple[float, float]:
    """Shares of bootstrap samples below the ends of an interval, see `policy_intervals`."""
    z = NORMAL.inv_cdf((1 + level) / 2)
    if units is not None and units > 1:
        z *= (units / (units - 1)) ** 0.5
    return NORMAL.cdf(-z), NORMAL.cdf(z)


def _centred(values: Table) -> Table:
    return values - values.mean(-1, keepdims=True)
