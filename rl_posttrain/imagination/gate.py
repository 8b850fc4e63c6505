"""Check that a world model ranks policies correctly before a policy is improved in it."""

import json
from pathlib import Path

from policy_eval.judge.find import judge_fingerprint
from worldmodel.model.folder import fingerprint

UNKNOWN = (
    "It is not known whether this world model ranks policies correctly: run `worldmodel rank --real` "
    "and pass its ranking.json with --ranking. If it does not, the dreams improve while the policy "
    "gets worse."
)
WORST_STANDING = 0.1  # share of perfect simulators with as many trials that do no better


def check_ranking(file: Path | None, world: str | Path, judge: str | Path) -> str:
    """What a `ranking.json` says of a world model and a judge, in a sentence.

    Args:
        file: Written by `worldmodel rank` with real trials; `None` when there is none.
        world: Folder of the world model, or `hf://USER/NAME@REV`.
        judge: Folder of the judge.

    Raises:
        ValueError: The file is not a ranking, was made with another world model or has no
            correlations; or the dream ranks worse than nine in ten perfect simulators.
    """
    if file is None:
        return UNKNOWN
    try:
        report = json.loads(file.read_text())
        ranked, agreement = report["made_with"]["dream"], report["agreement"]
    except (OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{file}: no ranking.json of `worldmodel rank`: {error!r}") from error
    if ranked["world"] != fingerprint(world):
        raise ValueError(f"{file}: made with world model {ranked['world']}, {world} is {fingerprint(world)}")
    if agreement is None or agreement["refusal"] is not None:
        why = "no real trials" if agreement is None else agreement["refusal"]
        raise ValueError(f"{file}: does not say how well dream and reality agree: {why}")
    pearson, ceiling = agreement["pearson"], agreement["noise_ceiling"]["pearson"]
    figures = f"Pearson {pearson['value']:.2f}, nine in ten perfect simulators {ceiling['p10']:.2f}"
    if pearson["standing"] < WORST_STANDING:
        raise ValueError(
            f"{file}: this dream does not rank policies ({figures}), so a policy that improves in "
            "it may get worse; without --ranking the run begins nevertheless"
        )
    by = "" if ranked["judge"] == judge_fingerprint(judge) else ", with another judge"
    return f"This dream ranks policies about as a perfect simulator would{by} ({figures})."
