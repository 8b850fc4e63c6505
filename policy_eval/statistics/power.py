"""The chance that trials tell two policies apart, and how many trials that takes."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from policy_eval.scores import Scores
from policy_eval.statistics.difference import difference_interval
from policy_eval.statistics.powered_difference import Moments, powered_difference
from policy_eval.statistics.resampling import NORMAL

MOST_TRIALS = 100_000
"""Largest number of trials that a plan considers."""
SIMULATIONS = 4000
"""Simulated comparisons per number of trials; a power of 0.8 is then known to 0.006."""


@dataclass(frozen=True)
class PairRates:
    """The chances of what two policies do from the same start.

    Attributes:
        first: Possible outcomes of the first policy, 0 to 1.
        second: What the second policy does at the same time.
        chances: The chance of each; they sum to 1.
        paired: Whether the chances were counted on shared starts.
    """

    first: Float64[np.ndarray, "k"]
    second: Float64[np.ndarray, "k"]
    chances: Float64[np.ndarray, "k"]
    paired: bool = True

    @classmethod
    def of_rates(cls, first: float, second: float, correlation: float = 0.0) -> "PairRates":
        """Two success rates, and the correlation of success from the same start.

        Raises:
            ValueError: A rate is not between 0 and 1, or there are no such outcomes.
        """
        if not (0 <= first <= 1 and 0 <= second <= 1):
            raise ValueError(f"success rates are 0 to 1, got {first} and {second}")
        both = first * second + correlation * (first * (1 - first) * second * (1 - second)) ** 0.5
        chances = np.array([both, first - both, second - both, 1 - first - second + both])
        if chances.min() < -1e-12:
            raise ValueError(f"success rates of {first} and {second} cannot have the correlation {correlation}")
        return cls(np.array([1.0, 1, 0, 0]), np.array([1.0, 0, 1, 0]), chances.clip(0) / chances.clip(0).sum())

    @classmethod
    def of_trials(cls, first: Scores, second: Scores) -> "PairRates":
        """The shares in trials of two policies, on shared starts if there are at least two.

        Otherwise the two are taken as independent, and outcomes in between are rounded to tenths.
        """
        _, mine, other = np.intersect1d(first.seeds, second.seeds, return_indices=True)
        if len(mine) >= 2:
            rows = np.stack([first.outcomes[mine], second.outcomes[other]], 1)
            values, counts = np.unique(rows, axis=0, return_counts=True)
            return cls(values[:, 0], values[:, 1], counts / counts.sum())
        x, often = np.unique(first.outcomes.round(1), return_counts=True)
        y, how_often = np.unique(second.outcomes.round(1), return_counts=True)
        chances = np.outer(often / often.sum(), how_often / how_often.sum()).ravel()
        return cls(np.repeat(x, len(y)), np.tile(y, len(x)), chances, paired=False)

    @property
    def difference(self) -> float:
        """Expected difference of the scores, first minus second."""
        return float(self.chances @ (self.first - self.second))

    def power(self, trials: int, *, level: float = 0.95, simulations: int = SIMULATIONS, seed: int = 0) -> float:
        """Chance that `trials` shared starts tell the two apart.

        That is the share of simulated comparisons whose interval (`difference_interval`, as in a ranking) excludes 0
        on the side of the true difference.
        """
        counts = np.random.default_rng(seed).multinomial(trials, self.chances, size=simulations)
        x, y, both = (counts @ column / trials for column in (self.first, self.second, self.first * self.second))
        covariance = both - x * y if self.paired else np.zeros(simulations)
        number = np.full(simulations, float(trials))
        z = np.full(simulations, NORMAL.inv_cdf((1 + level) / 2))
        low, high = difference_interval(x, y, covariance, number, number, z)
        return float((low > 0).mean() if self.difference > 0 else (high < 0).mean())


@dataclass(frozen=True)
class DreamedRates:
    """The chances of real and dreamed differences of two policies from the same start.

    Attributes:
        real: Possible real differences, first minus second.
        dream: The dreamed difference at the same time.
        chances: The chance of each; they sum to 1.
    """

    real: Float64[np.ndarray, "k"]
    dream: Float64[np.ndarray, "k"]
    chances: Float64[np.ndarray, "k"]

    @classmethod
    def of_differences(cls, real: Float64[np.ndarray, "n"], dream: Float64[np.ndarray, "n"]) -> "DreamedRates":
        """The shares in measured differences; row `i` of both is one start."""
        values, counts = np.unique(np.stack([real, dream], 1), axis=0, return_counts=True)
        return cls(values[:, 0], values[:, 1], counts / counts.sum())

    @property
    def difference(self) -> float:
        """Expected real difference."""
        return float(self.chances @ self.real)

    def power(
        self, trials: int, dreams: int, *, level: float = 0.95, simulations: int = SIMULATIONS, seed: int = 0
    ) -> float:
        """Chance that `trials` real starts of both policies, dreamed too, and `dreams` more tell them apart.

        That is the share of simulated comparisons whose `powered_difference` excludes 0 on the right side.
        """
        rng = np.random.default_rng(seed)
        tried = rng.multinomial(trials, self.chances, size=simulations)
        others = rng.multinomial(dreams, self.chances, size=simulations)
        columns = (self.real, self.dream, self.real**2, self.dream**2, self.real * self.dream)
        pairs = [tried @ column / trials for column in columns]
        extra = [others @ column / max(dreams, 1) for column in (self.dream, self.dream**2)]
        found = Moments(*pairs, *extra, trials, dreams)
        _, low, high, _ = powered_difference(found, NORMAL.inv_cdf((1 + level) / 2))
        return float((low > 0).mean() if self.difference > 0 else (high < 0).mean())


def trials_needed(power: Callable[[int], float], *, target: float = 0.8, guess: int = 16) -> int | None:
    """The smallest number of trials whose power reaches `target`; `None` if `MOST_TRIALS` do not suffice.

    Args:
        power: Power of a number of trials, at least 2; it grows with the number, apart from small steps down.
        target: Power wanted, between 0 and 1.
        guess: Where to begin to look.
    """
    low, high = 1, max(guess, 2)
    while power(high) < target:
        if high == MOST_TRIALS:
            return None
        low, high = high, min(2 * high, MOST_TRIALS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(middle) >= target else (middle, high)
    return high
