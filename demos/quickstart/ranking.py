"""A minute of ranking for the quickstart: three policies in the dream and in the simulator."""

import shutil
from pathlib import Path

from policy_eval.ranking.command import RankConfig, rank_policies
from policy_eval.ranking.rank import Ranking
from policy_eval.scores import Scores
from worldmodel.envs.record import RecordConfig, record
from worldmodel.files import read_object
from worldmodel.model.folder import find_optional

ENV = "pusht-position"
START_SEED = 32
"""Seed of the starts, which no policy and no judge has seen."""
HORIZON = 60


def nothing_to_rank(policies: Path, judge: str | Path) -> str | None:
    """Why there is nothing to rank, in a sentence; `None` when there is."""
    if find_optional(judge, "judge.json") is None:
        return f"No policies were ranked, because there is no judge at {judge}."
    if not (policies / "real.json").is_file() or len(three_of(policies)) < 3:
        return f"No policies were ranked, because there are not three policies at {policies}."
    return None


def three_of(policies: Path) -> tuple[Path, ...]:
    """The best, the middle and the worst policy by their stored real trials."""
    stored = read_object(policies / "real.json")
    scores = [Scores.from_json(each) for each in stored.values()]
    there = [each for each in scores if (policies / each.policy / "policy.json").is_file()]
    order = sorted(there, key=lambda each: -each.mean)
    picked = dict.fromkeys([0, len(order) // 2, len(order) - 1]) if order else {}
    return tuple(policies / order[i].policy for i in picked)


def rank_three(world: Path, policies: Path, judge: str | Path, out: Path, *, episodes: int, device: str) -> Ranking:
    """Record starts, and let three policies act from them in dream and simulator, all anew.

    Args:
        world: The world model.
        policies: Folder of graded policies with `real.json`.
        judge: The judge of the dreams.
        out: Folder for `ranking.json`, its page, and a video; the starts are recorded beside it.
        episodes: Starts.
        device: Where the dreams run.
    """
    for stale in ("cells", "videos"):
        shutil.rmtree(out / stale, ignore_errors=True)
    starts = out.with_name(f"{out.name}-starts")
    record(RecordConfig(ENV, starts, episodes=episodes, seed=START_SEED, behaviour="play"))
    config = RankConfig(
        world=world,
        judge=judge,
        policies=three_of(policies),
        data=starts,
        out=out,
        horizon=HORIZON,
        episodes=episodes,
        num_envs=episodes,
        real=ENV,
        replays=0,
        videos=1,
        num_steps=1,
        device=device,
    )
    return rank_policies(config)
