"""Rank policies by their dreams, estimate how certain the order is, and compare it with real trials."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float64, Int64

from policy_eval.scores import Scores
from policy_eval.statistics.agreement import ORDER_CLAIMS, STATISTICS, Column, chance_of
from policy_eval.statistics.difference import PairOrder, pair_order
from policy_eval.statistics.noise_ceiling import noise_ceiling, percentile, smoothed_rates, standing
from policy_eval.statistics.prediction_powered import PredictionPowered, prediction_powered
from policy_eval.statistics.resampling import (
    hierarchical_intervals,
    policy_intervals,
    resampled_scores,
    start_intervals,
    wilson_interval,
)

MIN_POLICIES = 5
"""Smallest number of policies for a statement about correlations or ranks."""
CEILING = {"p1": 0.01, "p10": 0.1, "median": 0.5}
TELLING = 0.8
"""A correlation that looks good. A refusal says how often chance alone exceeds it."""


@dataclass(frozen=True)
class Score:
    """A success rate, its 95% interval, and the number of trials."""

    score: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, outcomes: Float64[np.ndarray, "n"]) -> "Score":
        """Mean outcome of trials, with Wilson's interval."""
        mean, n = float(outcomes.mean()), len(outcomes)
        return cls(mean, *wilson_interval(mean, n), n)


@dataclass(frozen=True)
class Pair:
    """Two policies: `first` has the higher score in the dream, or comes first in a tie.

    Attributes:
        first: The better policy of the two, according to the dream.
        second: The other one.
        dream: The difference in the dream, and the confidence that more dreams would confirm its sign.
        real: The same for the real trials; here it is the confidence that the dream's order is right.
    """

    first: str
    second: str
    dream: PairOrder
    real: PairOrder | None


@dataclass(frozen=True)
class Statistic:
    """A statistic of agreement.

    Attributes:
        value: Of the measured scores.
        low: Lower end of its 95% interval, see `policy_eval.statistics.resampling.hierarchical_intervals`.
        high: Upper end.
        standing: Share of perfect simulators with as many trials that do no better.
    """

    value: float
    low: float
    high: float
    standing: float


@dataclass(frozen=True)
class Agreement:
    """How well dream and reality agree.

    Attributes:
        statistics: By name; those that need more policies are missing, and `refusal` says why.
        ceiling: 1st and 10th percentile, from the bad end, and median of each statistic for a
            perfect simulator; for the bias, of its absolute value.
        refusal: Why correlations and ranks are not given; `None` when they are.
        warnings: What to keep in mind when reading the figures.
    """

    statistics: dict[str, Statistic]
    ceiling: dict[str, dict[str, float]]
    refusal: str | None
    warnings: tuple[str, ...]

    def to_json(self) -> dict:
        """A dictionary that JSON can hold; refused statistics are `null`."""
        empty = {"value": None, "low": None, "high": None, "standing": None}
        return {
            **{n: asdict(self.statistics[n]) if n in self.statistics else empty for n in STATISTICS},
            "noise_ceiling": self.ceiling,
            "refusal": self.refusal,
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True)
class Ranking:
    """Policies in the order of their dreamed scores, best first.

    Attributes:
        order: Their names.
        dream: Dreamed score of each.
        real: Real score of each, where there are real trials.
        predicted: Real score of each from real and dreamed trials together, where some starts
            were tried both ways.
        pairs: Every pair of policies.
        agreement: Agreement with reality, where there are real trials.
    """

    order: tuple[str, ...]
    dream: dict[str, Score]
    real: dict[str, Score] | None
    predicted: dict[str, PredictionPowered | None]
    pairs: tuple[Pair, ...]
    agreement: Agreement | None

    def to_json(self) -> dict:
        """A dictionary that JSON can hold; `docs/ranking.md` explains it."""
        policies = []
        for name in self.order:
            predicted = self.predicted[name]
            policies.append(
                {
                    "name": name,
                    "dream": asdict(self.dream[name]),
                    "real": None if self.real is None else asdict(self.real[name]),
                    "prediction_powered": None if predicted is None else asdict(predicted),
                }
            )
        return {
            "policies": policies,
            "pairs": [asdict(pair) for pair in self.pairs],
            "agreement": None if self.agreement is None else self.agreement.to_json(),
        }


def rank(
    dream: Mapping[str, Scores], real: Mapping[str, Scores] | None = None, *, resamples: int = 4000, seed: int = 0
) -> Ranking:
    """Rank policies by their dreamed scores.

    Args:
        dream: Dreamed trials of each policy.
        real: Real trials of each, from the same starts or from others.
        resamples: Bootstrap samples of each interval.
        seed: Seed of the resampling.

    Raises:
        ValueError: There is no policy, or dream and reality are of different policies.
    """
    if not dream:
        raise ValueError("nothing to rank: there is no policy")
    if real is not None and set(dream) != set(real):
        raise ValueError(f"the dreams are of the policies {sorted(dream)}, the real trials of {sorted(real)}")
    order = tuple(sorted(dream, key=lambda name: (-dream[name].mean, name)))
    options = {"resamples": resamples, "seed": seed}
    pairs = []
    for first, second in combinations(order, 2):
        truly = None if real is None else pair_order(real[first], real[second])
        pairs.append(Pair(first, second, pair_order(dream[first], dream[second]), truly))
    return Ranking(
        order=order,
        dream={name: Score.of(dream[name].outcomes) for name in order},
        real=None if real is None else {name: Score.of(real[name].outcomes) for name in order},
        predicted={name: None if real is None else predict(dream[name], real[name]) for name in order},
        pairs=tuple(pairs),
        agreement=None if real is None else agree(dream, real, order, **options),
    )


def predict(dream: Scores, real: Scores) -> PredictionPowered | None:
    """The real score from both; `None` where fewer than two starts were tried both ways."""
    _, dreamed, tried = np.intersect1d(dream.seeds, real.seeds, return_indices=True)
    if len(tried) < 2:
        return None
    extra = np.delete(dream.outcomes, dreamed)
    return prediction_powered(real.outcomes[tried], dream.outcomes[dreamed], extra)


def agree(
    dream: Mapping[str, Scores],
    real: Mapping[str, Scores],
    order: Sequence[str],
    *,
    resamples: int = 4000,
    seed: int = 0,
) -> Agreement:
    """Every statistic of agreement with its interval and its noise ceiling.

    With fewer than `MIN_POLICIES` policies only bias, RMSE and regret are given; their intervals
    then hold for exactly these policies on other starts, because so few policies say nothing about a
    population.
    """
    s, r = means(dream, order), means(real, order)
    enough = len(order) >= MIN_POLICIES
    chosen = {n: f for n, f in STATISTICS.items() if enough or n not in ORDER_CLAIMS}
    places = [[place[name] for name in order] for place in (dream, real)]
    if enough:
        intervals = hierarchical_intervals(chosen, *places, resamples=resamples, seed=seed)
    else:
        intervals = start_intervals(chosen, *resampled_scores(places, resamples=resamples, seed=seed))
    trials = [counts(place, order) for place in (dream, real)]
    ceiling = noise_ceiling(smoothed_rates(r, trials[1]), *trials, seed=seed)
    statistics = {}
    for name, function in chosen.items():
        value = float(function(s[None], r[None])[0])
        statistics[name] = Statistic(value, *intervals[name], standing(name, value, ceiling[name]))
    return Agreement(
        statistics=statistics,
        ceiling={
            name: {key: percentile(_sized(name, ceiling[name]), p) for key, p in CEILING.items()} for name in chosen
        },
        refusal=None if enough else refusal(len(order)),
        warnings=tuple(warnings_of(dream, real, order)),
    )


def _sized(name: str, values: Column) -> Column:
    """The absolute value of a bias; every other statistic unchanged."""
    return np.abs(values) if name == "bias" else values


def refusal(policies: int) -> str:
    """Why so few policies allow no statement about correlations."""
    chance = chance_of(TELLING, policies)
    return (
        f"{policies} {'policy' if policies == 1 else 'policies'}, and at least {MIN_POLICIES} are "
        "needed for a statement about correlations or ranks"
        + (
            "."
            if policies < 2
            else f": with {policies}, a dream that is unrelated to reality correlates above {TELLING} with "
            f"reality in {chance:.0%} of the cases (in {chance_of(TELLING, MIN_POLICIES):.0%} with "
            f"{MIN_POLICIES})."
        )
    )


def warnings_of(dream: Mapping[str, Scores], real: Mapping[str, Scores], order: Sequence[str]) -> list[str]:
    """Reasons to read the figures of agreement with care."""
    found = []
    for place, scores in (("the dream", dream), ("reality", real)):
        values = means(scores, order)
        tied = sorted(name for name, v in zip(order, values, strict=True) if (values == v).sum() > 1)
        if len(order) > 1 and len(set(values)) == 1:
            found.append(f"All policies score alike in {place}: correlations count as 0.")
        elif tied and scores is dream:
            found.append(
                f"The dream ties policies ({', '.join(tied)}); mmrv charges a tie to the better "
                "one only, mmrv_tie_safe to both."
            )
    unpaired = [n for n in order if not np.isin(real[n].seeds, dream[n].seeds).all()]
    if unpaired:
        found.append(f"Real trials from starts that were not dreamed from: {', '.join(unpaired)}.")
    few = [name for name in order if min(len(dream[name]), len(real[name])) < 50]
    if few:
        found.append(
            f"Fewer than 50 trials of {', '.join(few)}: even a perfect dream often misorders "
            "policies then, see the noise ceiling."
        )
    return found


def means(place: Mapping[str, Scores], order: Sequence[str]) -> Float64[np.ndarray, "p"]:
    """Score of each policy."""
    return np.array([place[name].mean for name in order])


def counts(place: Mapping[str, Scores], order: Sequence[str]) -> Int64[np.ndarray, "p"]:
    """Number of trials of each policy."""
    return np.array([len(place[name]) for name in order], np.int64)


def pooled_pearson(
    tasks: Sequence[tuple[Mapping[str, Scores], Mapping[str, Scores]]], *, resamples: int = 4000, seed: int = 0
) -> dict[str, float]:
    """Pearson correlation over the policies of several tasks, the mean of each task removed.

    Args:
        tasks: Dreamed and real trials of each task.
        resamples: Bootstrap samples; policies are drawn within their task.
        seed: Seed of the resampling.

    Returns:
        `value`, `low`, `high` and `n`, the number of policies.
    """
    columns: list[list[np.ndarray]] = [[], []]
    for dream, real in tasks:
        order = sorted(dream)
        columns[0].append(means(dream, order))
        columns[1].append(means(real, order))
    centred = [np.concatenate([part - part.mean() for part in side])[None] for side in columns]
    groups = np.repeat(np.arange(len(tasks)), [len(part) for part in columns[0]])
    chosen = {"pearson": STATISTICS["pearson"]}
    low, high = policy_intervals(
        chosen, *(np.concatenate(side) for side in columns), groups=groups, resamples=resamples, seed=seed
    )["pearson"]
    value = float(STATISTICS["pearson"](*centred)[0])
    return {"value": value, "low": low, "high": high, "n": len(groups)}
