"""Do the numbers of trials that a plan names have the power asked for?

python benchmarks/planning.py

Plans are made for known success rates, and from small pilots drawn with these rates; other simulations then show
the power of the numbers that they name. Beside it, the coverage of the interval on which plans with dreams rest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from policy_eval.scores import Scores
from policy_eval.statistics.power import DreamedRates, PairRates, trials_needed
from policy_eval.statistics.powered_difference import Moments, powered_difference
from policy_eval.statistics.resampling import NORMAL
from worldmodel.files import write_json, write_text

PAIRS = (((0.6, 0.3), 0.0), ((0.5, 0.4), 0.5), ((0.9, 0.7), 0.3), ((0.95, 0.85), 0.0), ((0.1, 0.05), 0.0))
"""Success rates, and the correlation of success from the same start."""
PILOTS = (20, 50, 100)
HEAD = """# Power of planned trials

Written by `python benchmarks/planning.py --simulations {config.simulations}`. The power aimed at is 0.8.

## Plans for known rates

"""
PILOT_HEAD = """
## Plans from a pilot

The median over pilots, and the quartiles in brackets. A plan whose pilot has the wrong order has power 0; a pilot
without a difference names no number.

"""
COVERAGE_HEAD = """
## Coverage of the difference from real trials and dreams

Nominally 95%. Each dream repeats the real outcome of its start with the chance that is called alike, and there are
ten times as many starts that are only dreamed from.

"""


@dataclass(frozen=True)
class PlanningConfig:
    """How thoroughly to simulate."""

    simulations: int = 1000
    """Pilots, and intervals, per row."""
    out: Path = Path("runs/benchmarks/planning.json")
    """Where the figures go."""
    table: Path = Path("runs/benchmarks/planning.md")
    """Where the tables go."""
    seed: int = 0
    """Seed of everything."""


@dataclass(frozen=True)
class Known:
    """A plan for known rates: trials named and their power."""

    what: str
    trials: int
    power: float


@dataclass(frozen=True)
class Piloted:
    """Plans from pilots: quartiles of the trials named and of their power, and the share that names a number."""

    what: str
    trials: tuple[float, ...]
    power: tuple[float, ...]
    told: float


@dataclass(frozen=True)
class Covered:
    """How often the interval of a difference holds the truth, and its mean width."""

    what: str
    coverage: float
    width: float


def dreamed_rates(rates: tuple[float, float], agree: float) -> DreamedRates:
    """Differences of two policies of these real rates; each dream repeats the real outcome with chance `agree`."""
    rows = []
    outcomes = [(1, 1), (1, 0), (0, 1), (0, 0)]
    for real in outcomes:
        for dream in outcomes:
            chance = 1.0
            for success, dreamed, rate in zip(real, dream, rates, strict=True):
                chance *= (rate if success else 1 - rate) * (agree if dreamed == success else 1 - agree)
            rows.append((real[0] - real[1], dream[0] - dream[1], chance))
    real, dream, chances = np.array(rows, float).T
    return DreamedRates(real, dream, chances)


def plan_with_rates(rates: tuple[float, float], correlation: float) -> Known:
    """The plan for known rates, and its power in other simulations."""
    known = PairRates.of_rates(*rates, correlation)
    n = trials_needed(known.power)
    what = f"rates {rates[0]} and {rates[1]}, correlation {correlation}"
    return Known(what, n, known.power(n, simulations=20_000, seed=1))


def plan_with_dreams(rates: tuple[float, float], agree: float) -> Known:
    """Real trials for known rates where ten more starts are dreamed from for each."""
    known = dreamed_rates(rates, agree)
    n = trials_needed(lambda n: known.power(n, 10 * n))
    what = f"rates {rates[0]} and {rates[1]}, with dreams that are {agree:.0%} alike"
    return Known(what, n, known.power(n, 10 * n, simulations=20_000, seed=1))


def plan_with_pilot(config: PlanningConfig, rates: tuple[float, float], correlation: float, pilot: int) -> Piloted:
    """Plans from pilots of a few shared starts, and the power that their numbers really have."""
    rng = np.random.default_rng(config.seed)
    known = PairRates.of_rates(*rates, correlation)
    named, power = [], []
    for _ in range(config.simulations):
        drawn = rng.choice(4, pilot, p=known.chances)
        seen = PairRates.of_trials(*(as_scores(each[drawn]) for each in (known.first, known.second)))
        n = trials_needed(lambda n, seen=seen: seen.power(n, simulations=1000)) if seen.difference else None
        if n is not None:
            named.append(n)
            power.append(known.power(n, simulations=1000) if seen.difference > 0 else 0.0)
    what = f"rates {rates[0]} and {rates[1]}, correlation {correlation}, pilot of {pilot}"
    quartiles = (tuple(np.quantile(each, (0.25, 0.5, 0.75)).tolist()) for each in (named, power))
    return Piloted(what, *quartiles, len(named) / config.simulations)


def cover_powered(config: PlanningConfig, rates: tuple[float, float], n: int, agree: float) -> Covered:
    """The real difference of a pair from `n` real trials of each and ten times as many more dreams."""
    rng = np.random.default_rng(config.seed)
    known = dreamed_rates(rates, agree)
    intervals = []
    for _ in range(config.simulations):
        drawn = rng.choice(len(known.chances), 11 * n, p=known.chances)
        real, dream = known.real[drawn], known.dream[drawn]
        intervals.append(powered_difference(Moments.of(real[:n], dream[:n], dream[n:]), NORMAL.inv_cdf(0.975))[1:3])
    low, high = np.array(intervals)[:, :, 0].T
    inside = (low <= known.difference + 1e-12) & (known.difference - 1e-12 <= high)
    what = f"rates {rates[0]} and {rates[1]}, {n} real trials, {agree:.0%} alike"
    return Covered(what, float(inside.mean()), float((high - low).mean()))


def as_scores(outcomes: np.ndarray) -> Scores:
    number = len(outcomes)
    return Scores("policy", np.arange(number), outcomes, np.zeros(number), np.ones(number, np.int64))


def spread(quartiles: Sequence[float], form: str) -> str:
    """The median and, in brackets, the quartiles."""
    low, middle, high = (format(each, form) for each in quartiles)
    return f"{middle} ({low} to {high})"


def main(config: PlanningConfig) -> None:
    """Simulate, and print and write Markdown tables."""
    known = [plan_with_rates(*case) for case in (*PAIRS, ((0.6, 0.4), 0.0))]
    known += [plan_with_dreams((0.6, 0.4), agree) for agree in (0.5, 0.8, 0.95)]
    piloted = [plan_with_pilot(config, *case, pilot) for case in PAIRS[:3] for pilot in PILOTS]
    powered = [((0.6, 0.3), n, agree) for n in (5, 10, 20, 50) for agree in (0.5, 0.9)]
    covered = [cover_powered(config, *case) for case in (*powered, ((0.05, 0.05), 10, 0.9), ((0.95, 0.5), 10, 0.9))]
    lines = ["| pair | trials named | power |", "|---|---|---|"]
    lines += [f"| {row.what} | {row.trials} | {row.power:.3f} |" for row in known]
    lines += [
        *PILOT_HEAD.splitlines(),
        "| pair | trials named | power | pilots that name a number |",
        "|---|---|---|---|",
    ]
    for row in piloted:
        lines.append(f"| {row.what} | {spread(row.trials, '.0f')} | {spread(row.power, '.2f')} | {row.told:.0%} |")
    lines += [*COVERAGE_HEAD.splitlines(), "| pair | coverage | mean width |", "|---|---|---|"]
    lines += [f"| {row.what} | {row.coverage:.1%} | {row.width:.3f} |" for row in covered]
    text = HEAD.format(config=config) + "\n".join(lines) + "\n"
    print(text)
    for file in (config.out, config.table):
        file.parent.mkdir(parents=True, exist_ok=True)
    write_json(config.out, [vars(row) for row in (*known, *piloted, *covered)])
    write_text(config.table, text)


if __name__ == "__main__":
    main(tyro.cli(PlanningConfig))
