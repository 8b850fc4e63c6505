"""How well dreamed scores agree with real ones: plain statistics, for many samples at once.

Every function takes two arrays `n p`: `n` samples (one, or the draws of a bootstrap) of the scores
of the same `p` policies. If all policies have the same score on one side, the
correlations are 0, where a textbook would leave them undefined.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float64

Table = Float64[np.ndarray, "n p"]
Column = Float64[np.ndarray, "n"]
Statistic = Callable[[Table, Table], Column]


def pearson(dream: Table, real: Table) -> Column:
    """Correlation of the scores, -1 to 1."""
    x = dream - dream.mean(-1, keepdims=True)
    y = real - real.mean(-1, keepdims=True)
    return _ratio((x * y).sum(-1), np.sqrt((x * x).sum(-1) * (y * y).sum(-1)))


def spearman(dream: Table, real: Table) -> Column:
    """Correlation of the ranks, ties sharing their mean rank."""
    return pearson(mean_ranks(dream), mean_ranks(real))


def mean_ranks(values: Table) -> Table:
    """Rank of each value in its row, 1 for the lowest; equal values share their mean rank."""
    below = (values[:, None] < values[:, :, None]).sum(-1)
    equal = (values[:, None] == values[:, :, None]).sum(-1)
    return below + (equal + 1) / 2


def kendall(dream: Table, real: Table) -> Column:
    """Kendall's tau-b: pairs in the same order minus pairs in the other, corrected for ties."""
    x, y = _orders(dream), _orders(real)
    pairs = np.sqrt((x * x).sum((-1, -2)) * (y * y).sum((-1, -2)))
    return _ratio((x * y).sum((-1, -2)), pairs)


def mmrv(dream: Table, real: Table) -> Column:
    """Mean maximum rank violation of SIMPLER (arXiv 2405.05941): 0 is best, 1 the worst.

    `V(i, j) = |R_i - R_j| [(S_i > S_j) != (R_i > R_j)]`, the mean over i of the maximum over j.
    A dream that ties two policies is charged to the better one only; see `mmrv_tie_safe`.
    """
    wrong = (_orders(dream) > 0) != (_orders(real) > 0)
    return _violation(wrong, real)


def mmrv_tie_safe(dream: Table, real: Table) -> Column:
    """`mmrv` with `sign(S_i - S_j) != sign(R_i - R_j)`: a tie is charged to both policies."""
    return _violation(_orders(dream) != _orders(real), real)


def bias(dream: Table, real: Table) -> Column:
    """Mean of dream minus real; above 0 the dream is optimistic."""
    return (dream - real).mean(-1)


def rmse(dream: Table, real: Table) -> Column:
    """Root mean square of dream minus real."""
    return np.sqrt(((dream - real) ** 2).mean(-1))


def calibration_slope(dream: Table, real: Table) -> Column:
    """Slope of the least-squares line `real = slope * dream + intercept`; 1 is best."""
    x = dream - dream.mean(-1, keepdims=True)
    y = real - real.mean(-1, keepdims=True)
    return _ratio((x * y).sum(-1), (x * x).sum(-1))


def calibration_intercept(dream: Table, real: Table) -> Column:
    """Intercept of the line of `calibration_slope`; 0 is best."""
    return real.mean(-1) - calibration_slope(dream, real) * dream.mean(-1)


def top1_regret(dream: Table, real: Table) -> Column:
    """The real score lost by choosing the dream's best policy; the mean over a tie for best."""
    best = dream == dream.max(-1, keepdims=True)
    chosen = (real * best).sum(-1) / best.sum(-1)
    return real.max(-1) - chosen


STATISTICS: dict[str, Statistic] = {
    "pearson": pearson,
    "spearman": spearman,
    "kendall": kendall,
    "mmrv": mmrv,
    "mmrv_tie_safe": mmrv_tie_safe,
    "bias": bias,
    "rmse": rmse,
    "calibration_slope": calibration_slope,
    "calibration_intercept": calibration_intercept,
    "top1_regret": top1_regret,
}

CORRELATIONS = ("pearson", "spearman", "kendall", "calibration_slope", "calibration_intercept")
"""Statistics of how scores vary together, as opposed to errors."""
ORDER_CLAIMS = (*CORRELATIONS, "mmrv", "mmrv_tie_safe")
"""Statistics that compare the policies with each other; they mean little for very few policies."""

QUALITY: dict[str, Callable[[Column], Column]] = {
    "pearson": lambda value: value,
    "spearman": lambda value: value,
    "kendall": lambda value: value,
    "mmrv": np.negative,
    "mmrv_tie_safe": np.negative,
    "bias": lambda value: -np.abs(value),
    "rmse": np.negative,
    "calibration_slope": lambda value: -np.abs(value - 1),
    "calibration_intercept": lambda value: -np.abs(value),
    "top1_regret": np.negative,
}
"""Quality of a value of each statistic, higher is better; it defines "no worse than"."""


def chance_of(r: float, policies: int) -> float:
    """Chance that a dream that is unrelated to reality reaches a Pearson correlation above `r`.

    Exact for normal scores: `r` has the density `(1 - r^2)^((p - 4) / 2)` up to a factor, so the
    chance is that of `t = r sqrt((p - 2) / (1 - r^2))`; here summed on a fine grid of angles.
    """
    if policies < 3:
        return 0.5
    angle = (np.arange(100_000) + 0.5) * np.pi / 100_000
    weight = np.sin(angle) ** (policies - 3)
    return float(weight[np.cos(angle) > r].sum() / weight.sum())


def _orders(values: Table) -> Float64[np.ndarray, "n p p"]:
    """The sign of value i minus value j."""
    return np.sign(values[:, :, None] - values[:, None])


def _violation(wrong: np.ndarray, real: Table) -> Column:
    gaps = np.abs(real[:, :, None] - real[:, None])
    return (gaps * wrong).max(-1).mean(-1)


def _ratio(above: Column, below: Column) -> Column:
    """0 where the denominator is."""
    some = below > 1e-12
    return np.where(some, above / np.where(some, below, 1.0), 0.0)
