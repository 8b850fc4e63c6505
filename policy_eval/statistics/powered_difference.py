"""The real difference of two policies from few real trials and many dreams, even if the dream is wrong."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

Values = Float[np.ndarray, "k"]


@dataclass(frozen=True)
class Moments:
    """What an interval needs to know about trials; each field may hold many sets of trials.

    A difference is the outcome of the first policy minus that of the second from the same start, -1 to 1.

    Attributes:
        real: Mean of the real differences.
        dream: Mean of the dreamed differences from the same starts.
        real_square: Mean of the squares of the real ones.
        dream_square: Mean of the squares of the dreamed ones.
        product: Mean product of real and dreamed ones.
        extra: Mean of the dreamed differences from other starts.
        extra_square: Mean of their squares.
        trials: Number of starts tried both ways.
        dreams: Number of other starts.
    """

    real: Values
    dream: Values
    real_square: Values
    dream_square: Values
    product: Values
    extra: Values
    extra_square: Values
    trials: int
    dreams: int

    @classmethod
    def of(
        cls, real: Float[np.ndarray, "n"], dream: Float[np.ndarray, "n"], extra: Float[np.ndarray, "m"]
    ) -> "Moments":
        """The moments of measured differences, as one set; there may be no `extra` dreams from other starts.

        Raises:
            ValueError: There are fewer than two starts that were tried both ways.
        """
        if len(real) < 2:
            raise ValueError(f"a real difference from dreams needs at least 2 starts tried both ways, got {len(real)}")
        pairs = (real, dream, real**2, dream**2, real * dream)
        others = [np.array([column.mean() if len(column) else 0.0]) for column in (extra, extra**2)]
        return cls(*(np.array([column.mean()]) for column in pairs), *others, len(real), len(extra))


def powered_difference(found: Moments, z: float) -> tuple[Values, Values, Values, Values]:
    """Prediction-powered inference (arXiv 2301.09633, weight tuned as in 2311.01453) for a difference.

    `theta = w mean(extra) + mean(real - w dream)`, as in
    `policy_eval.statistics.prediction_powered.prediction_powered`, which is for one score. The interval adds two
    starts to `real - w dream`, one that each policy wins, and takes the normal interval: with `w = 0` it is that
    of Bonett and Price (Journal of Educational and Behavioral Statistics 37, 479, 2012), which holds for few
    trials, where a plain variance may be 0 by chance.

    Returns:
        The estimate, the two ends of its interval, and the weight of the dream, 0 to 1.
    """
    n, m = found.trials, found.dreams
    total = n + m
    mean = (n * found.dream + m * found.extra) / total
    spread = ((n * found.dream_square + m * found.extra_square) / total - mean**2) * total / (total - 1)
    covariance = (found.product - found.real * found.dream) * n / (n - 1)
    some = spread > 1e-12
    weight = np.where(some & (m > 1), covariance / (np.where(some, spread, 1.0) * (1 + n / max(m, 1))), 0.0)
    weight = np.clip(weight, 0.0, 1.0)
    rest = found.real - weight * found.dream
    square = found.real_square - 2 * weight * found.product + weight**2 * found.dream_square
    centre = rest * n / (n + 2)
    variance = ((square * n + 2) / (n + 2) - centre**2) / (n + 2)
    variance = variance + weight**2 * np.maximum(found.extra_square - found.extra**2, 0.0) / max(m, 1)
    half = z * np.sqrt(variance)
    middle = centre + weight * found.extra
    estimate = np.clip(rest + weight * found.extra, -1.0, 1.0)
    return estimate, np.clip(middle - half, -1.0, 1.0), np.clip(middle + half, -1.0, 1.0), weight
