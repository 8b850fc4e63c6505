"""What a ranking means, in words."""

from collections.abc import Mapping
from typing import Any

from worldmodel.display.words import sign_of, span


def meaning(report: Mapping[str, Any]) -> list[str]:
    """Which policy is best in the dreams, and whether reality agrees, as far as the intervals tell.

    Args:
        report: The contents of `ranking.json`.
    """
    return [_best(report), _reality(report)]


def _best(report: Mapping[str, Any]) -> str:
    first = report["policies"][0]
    if len(report["policies"]) == 1:
        score = first["dream"]
        return (
            f"Only one policy was tried, so there is no order: {first['name']} succeeds in {score['score']:.0%} of "
            f"its dreams (95% interval {span((score['low'], score['high']), '{:.0%}')})."
        )
    names = first["name"], report["policies"][1]["name"]
    pair = next(pair for pair in report["pairs"] if {pair["first"], pair["second"]} == set(names))
    dream = pair["dream"]
    interval = dream["low"], dream["high"]
    difference = f"{dream['difference']:.2f} (95% interval {span(interval)})"
    if sign_of(interval) == 0:
        return (
            f"It cannot be told which policy is best in the dreams: the first two, {names[0]} and {names[1]}, differ "
            f"by {difference}, and the interval includes 0."
        )
    return f"In the dreams {names[0]} is the best policy: it is ahead of {names[1]}, the second, by {difference}."


def _reality(report: Mapping[str, Any]) -> str:
    agreement = report["agreement"]
    if agreement is None:
        return "There are no real trials, so nothing here says whether reality has the same order."
    return f"{_correlation(agreement)} {_bias(agreement['bias'])}"


def _correlation(agreement: Mapping[str, Any]) -> str:
    row = agreement["pearson"]
    if row["value"] is None:
        return "There are too few policies to tell whether reality has the same order."
    measured = f"Pearson r is {row['value']:.2f} (95% interval {span((row['low'], row['high']))})"
    verdict = sign_of((row["low"], row["high"]))
    if verdict == 0:
        return f"It cannot be told whether reality has the same order: {measured}, and the interval includes 0."
    return f"Reality has {'a similar' if verdict > 0 else 'the opposite'} order: {measured}."


def _bias(row: Mapping[str, float]) -> str:
    measured = f"{abs(row['value']):.2f} (95% interval of dream minus real {span((row['low'], row['high']))})"
    verdict = sign_of((row["low"], row["high"]))
    if verdict == 0:
        return f"It cannot be told whether the dreams are too optimistic: they are off by {measured}."
    return f"The dreams are too {'optimistic' if verdict > 0 else 'pessimistic'}, by {measured}."
