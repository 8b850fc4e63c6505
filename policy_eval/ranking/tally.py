"""Which trials of a ranking count, and rows of those that do and of those that do not."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from policy_eval.ranking.rank import Score
from policy_eval.ranking.setup import TrialSetup
from policy_eval.ranking.trials import Cell, gather, gather_faults
from policy_eval.scores import Scores


def counted(setup: TrialSetup, cells: Sequence[Cell], out: Path, faulty: str) -> tuple[dict[str, Scores], list[dict]]:
    """The trials of one place that count, by policy, and a row for each trial with a fault.

    A trial at whose end the judge was unsure is left out; one in which the policy failed counts as `faulty` says. A
    policy without any trial left is missing.
    """
    faults = gather_faults(setup, cells, out)
    scores, rows = {}, []
    for name, each in gather(setup, cells, out).items():
        left_out = [f.seed for f in faults[name] if f.kind == "judge" or faulty == "left-out"]
        kept = ~np.isin(each.seeds, left_out)
        if kept.any():
            scores[name] = each.rows(kept)
        rows += [{"policy": name, "place": cells[0].place, **asdict(fault)} for fault in faults[name]]
    return scores, rows


def without(scores: Mapping[str, Scores], faults: Sequence[Mapping]) -> dict[str, Scores]:
    """The trials from starts without a fault of the policy in any place; the others cannot be shown."""
    found = {}
    for name, each in scores.items():
        kept = ~np.isin(each.seeds, [fault["seed"] for fault in faults if fault["policy"] == name])
        if kept.any():
            found[name] = each.rows(kept)
    return found


def in_both(
    dream: dict[str, Scores], real: dict[str, Scores] | None
) -> tuple[dict[str, Scores], dict[str, Scores] | None]:
    """The policies that have trials in every place there is.

    Raises:
        ValueError: There is none.
    """
    names = [name for name in dream if real is None or name in real]
    if not names:
        raise ValueError(
            "nothing to rank: all trials are left out, since a policy failed, the judge was unsure, or dreams are not "
            "to be trusted"
        )
    return {n: dream[n] for n in names}, None if real is None else {n: real[n] for n in names}


def imagined_successes(scores: Mapping[str, Scores], failures: int) -> dict | None:
    """How often failed real trials succeed when they are dreamed again, action by action.

    Returns:
        `score`, `low`, `high` and `n` over all policies, `policies` with the same for each, and
        `failures`, the number of failed trials to choose from; `None` if there was none.
    """
    if not scores:
        return None
    together = np.concatenate([each.outcomes for each in scores.values()])
    policies = {name: asdict(Score.of(each.outcomes)) for name, each in scores.items()}
    return {**asdict(Score.of(together)), "failures": failures, "policies": policies}


def trial_rows(dream: Mapping[str, Scores], real: Mapping[str, Scores] | None) -> list[dict]:
    """Every trial with its seed."""
    rows = []
    for place, scores in (("dream", dream), ("real", real or {})):
        for name, each in scores.items():
            columns = zip(each.seeds, each.outcomes, each.returns, each.steps, strict=True)
            for seed, outcome, total, steps in columns:
                rows.append(
                    {
                        "policy": name,
                        "place": place,
                        "seed": int(seed),
                        "outcome": float(outcome),
                        "return": float(total),
                        "steps": int(steps),
                    }
                )
    return rows


def trials_of(report: Mapping, place: str) -> dict[str, Scores]:
    """The trials of one place (`dream` or `real`) in the contents of a `ranking.json`, by policy."""
    found: dict[str, Scores] = {}
    for policy in report["policies"]:
        name = policy["name"]
        rows = [r for r in report["trials"] if (r["policy"], r["place"]) == (name, place)]
        keys = {"seeds": "seed", "outcomes": "outcome", "returns": "return", "steps": "steps"}
        columns = {column: [row[key] for row in rows] for column, key in keys.items()}
        if rows:
            found[name] = Scores.from_json({"policy": name} | columns)
    return found
