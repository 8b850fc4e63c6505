"""How many more trials would tell two policies apart, from the trials of a ranking."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float64
from rich.console import Console
from rich.table import Table

from policy_eval.scores import Scores
from policy_eval.statistics.difference import pair_order
from policy_eval.statistics.power import MOST_TRIALS, DreamedRates, PairRates, trials_needed
from policy_eval.statistics.powered_difference import Moments, powered_difference
from policy_eval.statistics.resampling import NORMAL

SMALLEST_PILOT = 10
"""Smallest number of trials of each policy from which a plan is made."""
POWER = 0.8
"""Chance to tell two policies apart that a plan aims at."""
COLUMNS = ("pair", "place", "made", "difference", "95% interval", "needed", "range")


@dataclass(frozen=True)
class Need:
    """How many trials of each of two policies are needed in one place.

    Attributes:
        made: Trials of each so far: the starts that both share, or where they share none, the fewer trials of the two.
        difference: Score of the first minus score of the second.
        low: Lower end of its 95% interval.
        high: Upper end.
        trials: Trials of each that tell them apart with the power asked for, if the true difference is the one seen;
            `None` if it cannot be told.
        fewest: The same for the largest difference in the interval.
        most: The same for the smallest one; `None` if the interval holds 0, so that no number is enough for sure.
        reason: Why it cannot be told; empty if it can.
    """

    made: int
    difference: float
    low: float
    high: float
    trials: int | None
    fewest: int | None
    most: int | None
    reason: str = ""


@dataclass(frozen=True)
class PairPlan:
    """What is needed to tell two policies apart.

    Attributes:
        first: The better policy of the two, according to the dream.
        second: The other one.
        dream: Dreams needed to tell which is better in the dream.
        real: Real trials needed; `None` without real trials in the pilot.
        real_with_dreams: Real trials needed where dreams help (prediction-powered inference); `None` where
            no starts were tried both ways.
    """

    first: str
    second: str
    dream: Need
    real: Need | None
    real_with_dreams: Need | None


def plan_trials(
    dream: Mapping[str, Scores],
    real: Mapping[str, Scores] | None = None,
    *,
    power: float = POWER,
    dreams_per_trial: int = 10,
) -> tuple[PairPlan, ...]:
    """Plan the trials that tell each pair of policies apart.

    Two policies are told apart where the 95% interval of their difference excludes 0, as in a ranking. The plan
    takes the shares of outcomes in the pilot for the true chances and simulates comparisons with more and more shared
    starts, until the share that tells them apart is `power`. A plan from a small pilot is as uncertain as
    the difference in it: `Need.fewest` and `Need.most` show by how much.

    Args:
        dream: Dreamed trials of each policy.
        real: Real trials of each.
        power: Chance to tell the two apart, between 0 and 1.
        dreams_per_trial: Starts that are only dreamed from, for each real trial, where dreams help.

    Raises:
        ValueError: There are fewer than two policies, other policies in reality than in the dream, or a number is
            out of range.
    """
    if len(dream) < 2:
        raise ValueError(f"a plan compares at least two policies, got {sorted(dream)}")
    if real is not None and set(dream) != set(real):
        raise ValueError(f"the dreams are of the policies {sorted(dream)}, the real trials of {sorted(real)}")
    if not 0 < power < 1 or dreams_per_trial < 1:
        raise ValueError(f"power is between 0 and 1, dreams per trial at least 1, got {power} and {dreams_per_trial}")
    order = sorted(dream, key=lambda name: (-dream[name].mean, name))
    plans = []
    for first, second in combinations(order, 2):
        dreamed = dream[first], dream[second]
        tried = None if real is None else (real[first], real[second])
        plans.append(
            PairPlan(
                first,
                second,
                need(*dreamed, power=power),
                None if tried is None else need(*tried, power=power),
                None if tried is None else need_with_dreams(dreamed, tried, power=power, ratio=dreams_per_trial),
            )
        )
    return tuple(plans)


def need(first: Scores, second: Scores, *, power: float = POWER) -> Need:
    """Trials that tell two policies apart in the place of these trials."""
    seen = pair_order(first, second)
    made = seen.n or min(len(first), len(second))
    rates = PairRates.of_trials(first, second)
    return _need(made, seen.difference, (seen.low, seen.high), rates.difference, rates.power, power)


def need_with_dreams(
    dream: tuple[Scores, Scores], real: tuple[Scores, Scores], *, power: float = POWER, ratio: int = 10
) -> Need | None:
    """Real trials that tell two policies apart with `ratio` more dreams for each; `None` without shared starts."""
    dream_seeds, dreamed = _differences(*dream)
    real_seeds, tried = _differences(*real)
    _, here, there = np.intersect1d(dream_seeds, real_seeds, return_indices=True)
    if len(here) < 2:
        return None
    pairs = tried[there], dreamed[here]
    found = Moments.of(*pairs, np.delete(dreamed, here))
    estimate, low, high, _ = powered_difference(found, NORMAL.inv_cdf(0.975))
    rates = DreamedRates.of_differences(*pairs)
    seen = estimate.item(), (low.item(), high.item())
    return _need(len(here), *seen, rates.difference, lambda n: rates.power(n, ratio * n), power)


def _differences(first: Scores, second: Scores) -> tuple[np.ndarray, Float64[np.ndarray, "n"]]:
    """The starts that two policies share, and their difference from each."""
    seeds, mine, other = np.intersect1d(first.seeds, second.seeds, return_indices=True)
    return seeds, first.outcomes[mine] - second.outcomes[other]


def _need(
    made: int,
    seen: float,
    interval: tuple[float, float],
    assumed: float,
    power_of: Callable[[int], float],
    power: float,
) -> Need:
    """What is needed if the true difference is `assumed`, whose sign `power_of` takes for the right one."""
    low, high = interval
    facts = made, seen, low, high
    if made < SMALLEST_PILOT:
        return Need(*facts, None, None, None, f"the pilot has {made} trials, and at least {SMALLEST_PILOT} are needed")
    if abs(assumed) < 1e-9:
        return Need(*facts, None, None, None, "the pilot shows no difference")
    trials = trials_needed(power_of, target=power)
    if trials is None:
        return Need(*facts, None, None, None, f"more than {MOST_TRIALS} trials would be needed")
    near, far = sorted((abs(low), abs(high)))
    # The number of trials is proportional to 1 / difference^2.
    fewest = max(int(np.ceil(trials * (assumed / far) ** 2)), 2)
    most = int(np.ceil(trials * (assumed / near) ** 2)) if low * high > 0 else None
    return Need(*facts, trials, min(fewest, trials), most if most is None else max(most, trials))


def to_json(plans: Sequence[PairPlan], power: float) -> dict:
    """What JSON can hold of a plan."""
    return {"format": 1, "power": power, "pairs": [asdict(plan) for plan in plans]}


def print_plan(plans: Sequence[PairPlan], power: float, console: Console | None = None) -> None:
    """Print a table with a row for each pair and place, and remarks on how to read it."""
    console = Console() if console is None else console
    table = Table(
        title=f"trials of each policy that tell a pair apart with a power of {power:.0%}, the better dream first"
    )
    for column in COLUMNS:
        table.add_column(column)
    for row in plan_rows(plans):
        table.add_row(*row)
    console.print(table)
    for line in remarks(plans):
        console.print(line, markup=False, soft_wrap=True)


def plan_rows(plans: Sequence[PairPlan]) -> list[tuple[str, ...]]:
    """One row per pair and place."""
    rows = []
    for plan in plans:
        for place, need in places(plan).items():
            row = (f"{plan.first}, {plan.second}", place, str(need.made), f"{need.difference:+.2f}")
            rows.append((*row, f"{need.low:+.2f} to {need.high:+.2f}", *_numbers(need)))
    return rows


def places(plan: PairPlan) -> dict[str, Need]:
    """The needs of a pair by the name of the place, as far as they are known."""
    needs = {"dreams": plan.dream, "real": plan.real, "real, with dreams": plan.real_with_dreams}
    return {place: need for place, need in needs.items() if need is not None}


def remarks(plans: Sequence[PairPlan]) -> list[str]:
    """How to read the numbers, and why some pairs cannot be told apart."""
    needs = [(plan, place, need) for plan in plans for place, need in places(plan).items()]
    lines = ["Needed: if the true difference is the one seen. Range: for the largest and the smallest in the interval."]
    if any(need.trials is not None and need.most is None for _, _, need in needs):
        lines.append("Where the range has no end, the interval holds 0: the two may be equal, and no number is sure.")
    if any(plan.real is None for plan in plans):
        lines.append(
            "Without real trials in the pilot: reality needs as many as the dream if both have the same rates."
        )
    for plan, place, need in needs:
        if need.reason:
            lines.append(f"{plan.first}, {plan.second}, {place}: cannot be told, because {need.reason}.")
    return lines


def _numbers(need: Need) -> tuple[str, str]:
    if need.trials is None:
        return "cannot be told", "-"
    return str(need.trials), f"{need.fewest} or more" if need.most is None else f"{need.fewest} to {need.most}"
