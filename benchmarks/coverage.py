"""Simulated coverage of the intervals of a ranking, nominally 95 %.

python benchmarks/coverage.py

Policies with known success rates try shared starts, some of which are harder for all of them; each
interval is computed many times, and counted is how often it holds the true value. A probability
that a pair is ordered rightly is right if pairs with that probability are ordered rightly as often.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from jaxtyping import Float64

from policy_eval.scores import Scores
from policy_eval.statistics.agreement import STATISTICS
from policy_eval.statistics.prediction_powered import prediction_powered
from policy_eval.statistics.resampling import hierarchical_intervals, pair_order, wilson_interval
from worldmodel.files import write_json

DIFFICULTY = 0.8
"""Standard deviation of the starts' difficulty, in logits."""
OTHERS = ("spearman", "kendall", "mmrv", "bias", "rmse")


@dataclass(frozen=True)
class CoverageConfig:
    """How thoroughly to simulate."""

    simulations: int = 1000
    """Intervals per row of the table."""
    resamples: int = 1000
    """Bootstrap samples per interval."""
    out: Path = Path("runs/benchmarks/coverage.json")
    """Where the table goes, as JSON too."""
    only: tuple[str, ...] = ()
    """Sections of the table to simulate; all when not given."""
    seed: int = 0
    """Seed of everything."""


@dataclass(frozen=True)
class Row:
    """One line of the table: what was covered how often, out of how many, how wide on average."""

    what: str
    coverage: float
    simulations: int
    width: float


def trials(
    places: Sequence[Float64[np.ndarray, "*n"]], starts: int, rng: np.random.Generator
) -> list[Float64[np.ndarray, "*n e"]]:
    """Outcomes in every place from shared starts; rates are those at a start of mean difficulty."""
    hard = DIFFICULTY * rng.standard_normal((*places[0].shape[:-1], 1, starts))
    outcomes = []
    for rates in places:
        odds = np.log(rates / (1 - rates))[..., None] + hard
        outcomes.append((rng.random(odds.shape) < 1 / (1 + np.exp(-odds))).astype(float))
    return outcomes


def true_rates(rates: Float64[np.ndarray, "*n"]) -> Float64[np.ndarray, "*n"]:
    """Success rate over all starts, by numerical integration over the difficulty."""
    points, weights = np.polynomial.hermite_e.hermegauss(40)
    odds = np.log(rates / (1 - rates))[..., None] + DIFFICULTY * points
    return (weights / (1 + np.exp(-odds))).sum(-1) / weights.sum()


def as_scores(outcomes: Float64[np.ndarray, "e"]) -> Scores:
    number = len(outcomes)
    ones = np.ones(number, np.int64)
    return Scores("policy", np.arange(number), outcomes, np.zeros(number), ones)


def draw_policies(
    shape: tuple[int, ...], likeness: float, rng: np.random.Generator
) -> tuple[Float64[np.ndarray, "*n"], Float64[np.ndarray, "*n"]]:
    """Dreamed and real rates at a start of mean difficulty; they correlate by about `likeness`."""
    real = rng.uniform(0.08, 0.92, shape)
    noise = 0.2425 * rng.standard_normal(shape)
    dream = 0.5 + likeness * (real - 0.5) + (1 - likeness**2) ** 0.5 * noise
    return dream.clip(0.02, 0.98), real


def cover_scores(config: CoverageConfig, rate: float, n: int) -> Row:
    """Wilson's interval of one policy's score."""
    rng = np.random.default_rng(config.seed)
    means = rng.binomial(n, rate, config.simulations) / n
    intervals = np.array([wilson_interval(mean, n) for mean in means])
    return counted(f"score, rate {rate}, {n} trials", intervals, rate)


def cover_pairs(config: CoverageConfig, rates: tuple[float, float], n: int) -> Row:
    """The difference of two policies that share their starts; `rates` are at mean difficulty."""
    rng = np.random.default_rng(config.seed)
    at = np.array(rates)
    truth = float(np.subtract(*true_rates(at)))
    intervals = []
    for seed in range(config.simulations):
        first, second = (as_scores(row) for row in trials([at], n, rng)[0])
        pair = pair_order(first, second, resamples=config.resamples, seed=seed)
        intervals.append((pair.low, pair.high))
    what = f"difference of a pair, rates {rates[0]} and {rates[1]}, {n} trials"
    return counted(what, np.array(intervals), truth)


def cover_claims(config: CoverageConfig, low: float, high: float, n: int = 100) -> Row:
    """How often the order is right among pairs whose probability of that is `low` to `high`."""
    rng = np.random.default_rng(config.seed)
    right, claimed = [], []
    for seed in range(4 * config.simulations):
        rates = rng.uniform(0.05, 0.95, 2)
        first, second = (as_scores(row) for row in trials([rates], n, rng)[0])
        pair = pair_order(first, second, resamples=config.resamples, seed=seed)
        sure = max(pair.probability, 1 - pair.probability)
        if low <= sure < high:
            right.append((pair.probability > 0.5) == (rates[0] > rates[1]))
            claimed.append(sure)
    what = f"order right, probability {low:.2f} to {high:.2f} (mean {np.mean(claimed):.3f})"
    return Row(what, float(np.mean(right)), len(right), float("nan"))


def cover_agreement(
    config: CoverageConfig, policies: int, n: int, likeness: float, names: tuple[str, ...]
) -> list[Row]:
    """Dream and reality share the starts, and with them their difficulty."""
    rng = np.random.default_rng(config.seed)
    chosen = {name: STATISTICS[name] for name in names}
    expected: dict[str, list] = {name: [] for name in names}
    for _ in range(10):
        sets = draw_policies((400, policies), likeness, rng)
        means = [side.mean(-1) for side in trials(sets, n, rng)]
        for name, statistic in chosen.items():
            expected[name].append(statistic(*means).mean())
    found: dict[str, list] = {name: [] for name in names}
    for seed in range(config.simulations):
        sides = trials(draw_policies((policies,), likeness, rng), n, rng)
        scores = [[as_scores(row) for row in side] for side in sides]
        intervals = hierarchical_intervals(chosen, *scores, resamples=config.resamples, seed=seed)
        for name in names:
            found[name].append(intervals[name])
    rows = []
    for name in names:
        truth = float(np.mean(expected[name]))
        what = f"{name}, {policies} policies, {n} trials, expected {truth:.3f}"
        rows.append(counted(what, np.array(found[name]), truth))
    return rows


def cover_prediction(config: CoverageConfig, n: int, extra: int, agree: float) -> Row:
    """The real score from `n` real trials and dreams; dreams repeat a share `agree` of outcomes."""
    rng = np.random.default_rng(config.seed)
    intervals = []
    for _ in range(config.simulations):
        real = rng.random(n + extra) < 0.6
        dream = np.where(rng.random(n + extra) < agree, real, rng.random(n + extra) < 0.8) * 1.0
        found = prediction_powered(real[:n] * 1.0, dream[:n], dream[n:])
        intervals.append((found.low, found.high))
    return counted(f"real score from {n} real, {extra} more dreams, {agree:.0%} alike", np.array(intervals), 0.6)


def counted(what: str, intervals: Float64[np.ndarray, "n 2"], truth: float) -> Row:
    low, high = intervals.T
    # A value at the end of an interval is inside, whatever the last bit of a sum says.
    inside = (low <= truth + 1e-12) & (truth - 1e-12 <= high)
    return Row(what, float(inside.mean()), len(intervals), float((high - low).mean()))


def sections(config: CoverageConfig) -> dict[str, Callable[[], list[Row]]]:
    """Everything that is simulated."""
    rates = [(rate, n) for n in (50, 100) for rate in (0.05, 0.2, 0.5, 0.8)]
    pairs = [((a, b), n) for n in (50, 100) for a, b in ((0.5, 0.5), (0.6, 0.4), (0.9, 0.7))]
    claims = [(0.5, 0.75), (0.75, 0.95), (0.95, 0.99)]
    sets = [(8, 100, 1.0), (8, 100, 0.95), (8, 100, 0.7), (8, 100, 0.0), (8, 50, 0.95)]
    sets += [(5, 100, 0.95), (16, 100, 0.95), (32, 100, 0.95)]
    few = [(20, 200, 0.5), (50, 200, 0.9), (50, 500, 0.9)]
    return {
        "scores": lambda: [cover_scores(config, *case) for case in rates],
        "pairs": lambda: [cover_pairs(config, *case) for case in pairs],
        "pair probabilities": lambda: [cover_claims(config, *case) for case in claims],
        "hierarchical r": lambda: [row for case in sets for row in cover_agreement(config, *case, ("pearson",))],
        "other statistics": lambda: cover_agreement(config, 8, 100, 0.95, OTHERS),
        "prediction-powered": lambda: [cover_prediction(config, *case) for case in few],
    }


def main(config: CoverageConfig) -> None:
    """Simulate and print a Markdown table."""
    table = {}
    print("| interval | coverage | simulations | mean width |\n|---|---|---|---|")
    chosen = sections(config)
    unknown = sorted(set(config.only) - set(chosen))
    if unknown:
        raise SystemExit(f"there are no sections {unknown}; known are {list(chosen)}")
    for name, section in chosen.items():
        if config.only and name not in config.only:
            continue
        table[name] = [vars(row) for row in section()]
        for row in table[name]:
            width = "" if np.isnan(row["width"]) else f"{row['width']:.3f}"
            row["width"] = None if np.isnan(row["width"]) else row["width"]
            print(f"| {row['what']} | {row['coverage']:.1%} | {row['simulations']} | {width} |", flush=True)
    config.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(config.out, table)


if __name__ == "__main__":
    main(tyro.cli(CoverageConfig))
