"""How narrow can an interval of a paired difference be that holds the truth often enough everywhere?

python benchmarks/narrowest.py

A linear program chooses, for each possible outcome of a few trials, which differences its interval holds, so that
every difference is held with a chance of at least `coverage` at all rates of a grid, and the largest expected
width, as a multiple of that of Newcombe's interval, is as small as possible. Since differences may be held in
part, and the width is counted one grid step short, no interval is narrower than that. It needs SciPy.
"""

from dataclasses import dataclass

import numpy as np
import tyro
from coverage import chances_of, facts_of, newcombe_interval, possible_counts
from scipy.optimize import linprog
from scipy.sparse import coo_matrix

from policy_eval.statistics.power import PairRates

NAMED = (0.05, 0.5, 0.95)


@dataclass(frozen=True)
class NarrowestConfig:
    """Which intervals are asked for."""

    trials: tuple[int, ...] = (3, 5)
    """Numbers of shared starts."""
    coverage: float = 0.945
    """The least coverage at every rate of the grid."""
    correlations: tuple[float, ...] = (0.0, 0.3, 0.6)
    """Correlations of success from the same start at which the coverage is asked for."""
    step: float = 0.025
    """Step of the grid of differences."""
    rates: float = 0.05
    """Step of the grid of success rates."""


def possible(first: float, second: float, correlation: float) -> PairRates | None:
    """These rates, or `None` where there is no such correlation."""
    try:
        return PairRates.of_rates(first, second, correlation)
    except ValueError:
        return None


def narrowest(config: NarrowestConfig, n: int, equal: bool, correlated: bool) -> float:
    """The least multiple of Newcombe's width at rates of 0.05, 0.5 and 0.95, equal ones only or all, correlated too."""
    counts = possible_counts(n)
    grid = np.round(np.arange(-1, 1 + config.step / 2, config.step), 9)
    number = len(counts) * len(grid)
    rows: list[tuple[np.ndarray, np.ndarray, float]] = []
    axis = np.round(np.arange(0.05, 0.951, config.rates), 9)
    every = [(a, b, r) for a in axis for b in axis for r in config.correlations]
    for a, b, r in every:
        if (rates := possible(a, b, r)) is not None:
            at = int(np.rint((a - b + 1) / config.step))
            rows.append((np.arange(len(counts)) * len(grid) + at, -chances_of(counts, rates.chances), -config.coverage))
    for index, estimate in enumerate((counts[:, 1] - counts[:, 2]) / n):  # an interval has no holes
        for at in range(len(grid) - 1):
            pair = np.array([at, at + 1]) if grid[at + 1] <= estimate + 1e-9 else np.array([at + 1, at])
            if grid[at + 1] <= estimate + 1e-9 or grid[at] >= estimate - 1e-9:
                rows.append((index * len(grid) + pair, np.array([1.0, -1.0]), 0.0))
    p, q, covariance, *_ = facts_of(counts, paired=True)
    low, high = newcombe_interval(p, q, covariance, n)
    for a, b, r in ((a, b, r) for a in NAMED for b in NAMED for r in (config.correlations if correlated else (0.0,))):
        if (equal and a != b) or (rates := possible(a, b, r)) is None:
            continue
        chances = chances_of(counts, rates.chances)
        columns = np.append(np.arange(number), number)
        rows.append(
            (columns, np.append(np.repeat(chances, len(grid)) * config.step, -chances @ (high - low)), config.step)
        )
    at = np.concatenate([np.full(len(columns), row) for row, (columns, _, _) in enumerate(rows)])
    columns, values = (np.concatenate([row[k] for row in rows]) for k in (0, 1))
    matrix = coo_matrix((values, (at, columns)), shape=(len(rows), number + 1)).tocsr()
    limits = np.array([row[2] for row in rows])
    bounds = [(0, 1)] * number + [(0, None)]
    return float(linprog(np.append(np.zeros(number), 1.0), A_ub=matrix, b_ub=limits, bounds=bounds).fun)


def main(config: NarrowestConfig) -> None:
    """Print a Markdown table."""
    kinds = {"equal rates": (True, False), "equal or other rates": (False, False), "correlated too": (False, True)}
    print(f"| trials | {' | '.join(kinds)} |\n|---|---|---|---|")
    for n in config.trials:
        print(f"| {n} | {' | '.join(f'{narrowest(config, n, *kind):.3f}' for kind in kinds.values())} |", flush=True)


if __name__ == "__main__":
    main(tyro.cli(NarrowestConfig))
