"""Coverage of the intervals of a ranking, nominally 95%.

python benchmarks/interval_coverage.py

Policies with known success rates try shared starts, some of which are harder for all of them; each
interval is computed many times, and counted is how often it holds the true value. For pairs with few trials
nothing is drawn: all possible outcomes are listed with their chances. A confidence that a pair is ordered
rightly is right if pairs with that confidence are ordered rightly as often.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from jaxtyping import Float64

from policy_eval.scores import Scores
from policy_eval.statistics.agreement import STATISTICS
from policy_eval.statistics.difference import confidence, difference_interval, pair_order
from policy_eval.statistics.power import PairRates
from policy_eval.statistics.prediction_powered import prediction_powered
from policy_eval.statistics.resampling import NORMAL, hierarchical_intervals, wilson_interval
from worldmodel.files import write_json, write_text

DIFFICULTY = 0.8
"""Standard deviation of the starts' difficulty, in logits."""
OTHERS = ("spearman", "kendall", "mmrv", "bias", "rmse")
Z = NORMAL.inv_cdf(0.975)
FEW = (3, 5, 10, 20, 50)
"""Trials of a pair whose coverage is computed exactly."""
CELLS = ((0.05, 0.05), (0.5, 0.5), (0.95, 0.95), (0.5, 0.05), (0.95, 0.5), (0.95, 0.05))
"""Success rates of such pairs."""
CORRELATIONS = {True: (0.0, 0.3, 0.6), False: (0.0, 0.2)}
"""Correlations of success from the same start, of equal rates and of others, where they are possible."""

HEAD = """# Coverage of nominal 95% intervals

Written by `python benchmarks/interval_coverage.py --simulations {config.simulations} --resamples {config.resamples}`;
see there for what is simulated.
"""
NOTES = {
    "pairs with few trials": (
        "Exact: the sum of the chances of all outcomes whose interval holds the true difference; in brackets that",
        "of Newcombe's interval, and behind it our expected width divided by his. An interval that holds the truth",
        "in at least 94.5 % at all rates from 0.05 to 0.95 and correlations of 0, 0.3 and 0.6 cannot be as narrow",
        "as his: with 3 trials it is at least 1.06 times as wide at one of the rates 0.05, 0.5 and 0.95 without",
        "correlation, and 1.26 times at one of them with correlation, with 5 trials 1.01 and 1.20 times (`python",
        "benchmarks/narrowest.py`).",
        "",
    ),
    "confidence in the order": (
        "Here the coverage is how often the order is right, over pairs whose rates are uniform in 0.05..0.95.",
        "",
    ),
}


@dataclass(frozen=True)
class CoverageConfig:
    """How thoroughly to simulate."""

    simulations: int = 1000
    """Intervals per row of the table."""
    resamples: int = 1000
    """Bootstrap samples per interval."""
    out: Path = Path("runs/benchmarks/coverage.json")
    """Where the figures go."""
    table: Path = Path("runs/benchmarks/coverage.md")
    """Where the tables go."""
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


@dataclass(frozen=True)
class PairRow:
    """Coverage of the interval of a difference and of Newcombe's, and their expected widths' ratio, by trials."""

    what: str
    cells: tuple[tuple[float, float, float], ...]


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
    for _ in range(config.simulations):
        first, second = (as_scores(row) for row in trials([at], n, rng)[0])
        pair = pair_order(first, second)
        intervals.append((pair.low, pair.high))
    what = f"difference of a pair, rates {rates[0]} and {rates[1]}, {n} trials"
    return counted(what, np.array(intervals), truth)


def possible_counts(n: int) -> Float64[np.ndarray, "k 4"]:
    """All numbers of starts where both succeed, only the first, only the second, or none."""
    three = np.indices((n + 1,) * 3).reshape(3, -1).T.astype(float)
    three = three[three.sum(1) <= n]
    return np.concatenate([three, n - three.sum(1, keepdims=True)], 1)


def chances_of(counts: Float64[np.ndarray, "k 4"], chances: Float64[np.ndarray, "4"]) -> Float64[np.ndarray, "k"]:
    """Multinomial chances."""
    logs = np.concatenate([[0], np.log(np.arange(1, counts[0].sum() + 1)).cumsum()])  # of the factorials
    return np.exp(logs[-1] - logs[counts.astype(int)].sum(1)) * (chances**counts).prod(1)


def facts_of(counts: Float64[np.ndarray, "k 4"], paired: bool) -> list[Float64[np.ndarray, "k"]]:
    """What `difference_interval` needs to know of trials."""
    number = counts.sum(1)
    p, q = (counts[:, 0] + counts[:, 1]) / number, (counts[:, 0] + counts[:, 2]) / number
    return [p, q, counts[:, 0] / number - p * q if paired else np.zeros(len(p)), number, number]


def newcombe_interval(
    p: Float64[np.ndarray, "k"], q: Float64[np.ndarray, "k"], covariance: Float64[np.ndarray, "k"], n: int
) -> tuple[Float64[np.ndarray, "k"], Float64[np.ndarray, "k"]]:
    """Newcombe's method 10 (1998) of paired trials, and of unpaired ones where the covariance is 0, within -1..1."""
    spread = np.sqrt(p * (1 - p) * q * (1 - q))
    phi = np.where(spread > 0, covariance / np.where(spread > 0, spread, 1), 0)
    ends = np.array([wilson_interval(successes / n, n) for successes in range(n + 1)]).T
    (l1, u1), (l2, u2) = (ends[:, np.rint(each * n).astype(int)] for each in (p, q))
    down = np.sqrt(np.maximum((p - l1) ** 2 - 2 * phi * (p - l1) * (u2 - q) + (u2 - q) ** 2, 0))
    up = np.sqrt(np.maximum((u1 - p) ** 2 - 2 * phi * (u1 - p) * (q - l2) + (q - l2) ** 2, 0))
    return np.maximum(p - q - down, -1), np.minimum(p - q + up, 1)


def cover_few(rates: tuple[float, float], correlation: float, paired: bool = True) -> PairRow:
    """The difference of a pair from few starts, exactly."""
    chances = PairRates.of_rates(*rates, correlation).chances
    cells = []
    for n in FEW:
        counts = possible_counts(n)
        weights, truth = chances_of(counts, chances), rates[0] - rates[1]
        facts = facts_of(counts, paired)
        held, widths = [], []
        for low, high in (difference_interval(*facts, np.full(len(counts), Z)), newcombe_interval(*facts[:3], n)):
            held.append(float(weights @ ((low <= truth + 1e-9) & (truth - 1e-9 <= high))))
            widths.append(float(weights @ (high - low)))
        cells.append((*held, widths[0] / widths[1]))
    kind = f"correlation {correlation}" if paired else "not paired"
    return PairRow(f"rates {rates[0]} and {rates[1]}, {kind}", tuple(cells))


def cover_graded(config: CoverageConfig, n: int) -> Row:
    """The difference of graded outcomes, uniform in 0..1 and their square roots, from shared starts."""
    rng = np.random.default_rng(config.seed)
    x = rng.random((config.simulations, n))
    y = np.sqrt(np.where(rng.random(x.shape) < 0.5, x, rng.random(x.shape)))
    number = np.full(len(x), float(n))
    means = x.mean(1), y.mean(1)
    ends = difference_interval(*means, (x * y).mean(1) - means[0] * means[1], number, number, np.full(len(x), Z))
    return counted(f"difference of graded outcomes, {n} trials", np.stack(ends, 1), 1 / 2 - 2 / 3)


def lowest_few(equal: bool) -> PairRow:
    """Lowest coverages and largest ratio over a grid of equal or of all rates and correlations of 0, 0.3 and 0.6."""
    grid = np.arange(1, 20) / 20 if equal else np.arange(1, 20, 3) / 20
    rows = []
    for a, b in ((float(a), float(b)) for a in grid for b in grid if (a == b if equal else a >= b)):
        for correlation in CORRELATIONS[True]:
            if correlation * (a * (1 - a) * b * (1 - b)) ** 0.5 <= min(a, b) - a * b + 1e-12:  # else impossible
                rows.append(cover_few((a, b), correlation).cells)
    cells = np.array(rows)
    lowest = np.concatenate([cells[..., :2].min(0), cells[..., 2:].max(0)], 1)
    return PairRow(f"the lowest of {'equal' if equal else 'all'} rates", tuple(map(tuple, lowest.tolist())))


def few_cells() -> list[tuple[tuple[float, float], float]]:
    """Rates and correlations of `cover_few`; 0.95 and 0.05 allow no correlation to speak of."""
    return [
        (rates, correlation)
        for rates in CELLS
        for correlation in CORRELATIONS[rates[0] == rates[1]]
        if rates != (0.95, 0.05) or correlation == 0
    ]


def cover_claims(config: CoverageConfig, low: float, high: float, n: int = 100) -> Row:
    """How often the order is right among pairs whose confidence in it is `low` to `high`."""
    rng = np.random.default_rng(config.seed)
    rates = rng.uniform(0.05, 0.95, (4 * config.simulations, 2))
    pairs = trials([rates], n, rng)[0]
    x, y = pairs.mean(-1).T
    number = np.full(len(x), float(n))
    sure = confidence(x, y, pairs.prod(1).mean(-1) - x * y, number, number)
    right = (sure > 0.5) == (rates[:, 0] > rates[:, 1])
    claimed = np.maximum(sure, 1 - sure)
    chosen = (low <= claimed) & (claimed < high)
    what = f"order right, {n} trials, confidence {low:.2f} to {high:.2f} (mean {claimed[chosen].mean():.3f})"
    return Row(what, float(right[chosen].mean()), int(chosen.sum()), float("nan"))


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


def sections(config: CoverageConfig) -> dict[str, Callable[[], list[Any]]]:
    """Everything that is simulated."""
    rates = [(rate, n) for n in (50, 100) for rate in (0.05, 0.2, 0.5, 0.8)]
    pairs = [((a, b), n) for n in (50, 100) for a, b in ((0.5, 0.5), (0.6, 0.4), (0.9, 0.7))]
    claims = [(*ends, n) for n in (3, 10, 100) for ends in ((0.5, 0.75), (0.75, 0.95), (0.95, 1.01))]
    sets = [(8, 100, 1.0), (8, 100, 0.95), (8, 100, 0.7), (8, 100, 0.0), (8, 50, 0.95)]
    sets += [(5, 100, 0.95), (16, 100, 0.95), (32, 100, 0.95)]
    few = [(20, 200, 0.5), (50, 200, 0.9), (50, 500, 0.9)]
    return {
        "scores": lambda: [cover_scores(config, *case) for case in rates],
        "pairs": lambda: [cover_pairs(config, *case) for case in pairs],
        "graded pairs": lambda: [cover_graded(config, n) for n in FEW],
        "pairs with few trials": lambda: [
            *(cover_few(*case) for case in few_cells()),
            *(cover_few(rates, 0.0, paired=False) for rates in CELLS),
            *(lowest_few(equal) for equal in (True, False)),
        ],
        "confidence in the order": lambda: [cover_claims(config, *case) for case in claims],
        "hierarchical r": lambda: [row for case in sets for row in cover_agreement(config, *case, ("pearson",))],
        "other statistics": lambda: cover_agreement(config, 8, 100, 0.95, OTHERS),
        "prediction-powered": lambda: [cover_prediction(config, *case) for case in few],
    }


def markdown(rows: Sequence[Any]) -> list[str]:
    """The lines of a table; all rows are of one kind."""
    if isinstance(rows[0], PairRow):
        lines = [f"| pair | {' | '.join(f'{n} trials' for n in FEW)} |", "|---" * (len(FEW) + 1) + "|"]
        cells = [[f"{ours:.1%} ({his:.1%}), {ratio:.2f}" for ours, his, ratio in row.cells] for row in rows]
        return lines + [f"| {row.what} | {' | '.join(each)} |" for row, each in zip(rows, cells, strict=True)]
    lines = ["| interval | coverage | simulations | mean width |", "|---|---|---|---|"]
    widths = ["" if np.isnan(row.width) else f"{row.width:.3f}" for row in rows]
    return lines + [
        f"| {row.what} | {row.coverage:.1%} | {row.simulations} | {width} |"
        for row, width in zip(rows, widths, strict=True)
    ]


def main(config: CoverageConfig) -> None:
    """Simulate and print Markdown tables."""
    chosen = sections(config)
    unknown = sorted(set(config.only) - set(chosen))
    if unknown:
        raise SystemExit(f"there are no sections {unknown}; known are {list(chosen)}")
    figures, text = {}, HEAD.format(config=config).splitlines()
    for name, section in chosen.items():
        if config.only and name not in config.only:
            continue
        rows = section()
        figures[name] = [{k: None if v != v else v for k, v in vars(row).items()} for row in rows]
        text += ["", f"## {name.capitalize()}", "", *NOTES.get(name, ()), *markdown(rows)]
        print("\n".join(["", f"## {name.capitalize()}", "", *markdown(rows)]), flush=True)
    for file in (config.out, config.table):
        file.parent.mkdir(parents=True, exist_ok=True)
    write_json(config.out, figures)
    write_text(config.table, "\n".join(text) + "\n")


if __name__ == "__main__":
    main(tyro.cli(CoverageConfig))
