"""The real success rate from few real trials and many dreamed ones, even if the dream is wrong."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from policy_eval.statistics.resampling import NORMAL, wilson_interval


@dataclass(frozen=True)
class PredictionPowered:
    """An estimate of the real score.

    Attributes:
        score: The estimate.
        low: Lower end of its 95% interval.
        high: Upper end.
        weight: Weight of the dream, 0 (not used) to 1.
        paired: Number of starts tried both in reality and in the dream.
        extra: Number of starts tried only in the dream.
    """

    score: float
    low: float
    high: float
    weight: float
    paired: int
    extra: int


def prediction_powered(
    real: Float64[np.ndarray, "n"],
    dream: Float64[np.ndarray, "n"],
    extra: Float64[np.ndarray, "m"],
    *,
    level: float = 0.95,
) -> PredictionPowered:
    """Prediction-powered inference (arXiv 2301.09633), its weight tuned as in 2311.01453.

    `theta = w mean(extra) + mean(real - w dream)`: unbiased however wrong the dream is, and the
    interval is narrower the better dream and reality agree start by start. The weight that makes the variance
    `w^2 var(dream) / m + var(real - w dream) / n` smallest is
    `w = cov(real, dream) / (var(dream) (1 + n / m))`, here clipped to 0..1. Without extra dreams it is
    0 and the estimate is the mean of the real trials.

    Args:
        real: Outcomes of the real trials.
        dream: Outcomes of the dreams from the same starts, in the same order.
        extra: Outcomes of dreams from other starts of the same kind.
        level: Coverage of the interval: Wilson's where the weight is 0, else a normal one clipped
            to 0..1.

    Raises:
        ValueError: There are fewer than two real trials, or not one dream for each.
    """
    if len(real) < 2 or len(dream) != len(real):
        raise ValueError(
            f"prediction-powered inference needs at least 2 real trials and a dream of each, got "
            f"{len(real)} real and {len(dream)} dreamed"
        )
    n, m = len(real), len(extra)
    weight = 0.0
    everything = np.concatenate([dream, extra])
    spread = float(everything.var(ddof=1))
    if m > 1 and spread > 0:
        weight = float(np.cov(real, dream)[0, 1]) / (spread * (1 + n / m))
        weight = min(max(weight, 0.0), 1.0)
    if weight == 0:
        mean = float(real.mean())
        return PredictionPowered(mean, *wilson_interval(mean, n, level=level), weight, n, m)
    rest = real - weight * dream
    score = float(rest.mean()) + weight * float(extra.mean())
    variance = float(rest.var(ddof=1)) / n + weight**2 * float(extra.var(ddof=1)) / m
    half = NORMAL.inv_cdf((1 + level) / 2) * variance**0.5
    low, high = max(score - half, 0.0), min(score + half, 1.0)
    return PredictionPowered(min(max(score, 0.0), 1.0), low, high, weight, n, m)
