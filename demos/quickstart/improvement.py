"""A minute of imagination for the quickstart: improve a policy in dreams, then try it for real."""

from dataclasses import dataclass
from pathlib import Path

from policy_eval.scores import Scores
from policy_eval.statistics.difference import pair_order
from policy_eval.statistics.resampling import wilson_interval
from rl_posttrain.imagination.before_after import before_after
from rl_posttrain.imagination.config import ImagineConfig
from rl_posttrain.imagination.train import imagine
from worldmodel.display.words import sign_of, span
from worldmodel.envs.record import RecordConfig, record
from worldmodel.model.folder import find_optional

ENV = "pusht-position"
START_SEED, TRIAL_SEED = 21, 31
"""Seeds of the recordings that dreams and trials begin from; they share no start."""


@dataclass(frozen=True)
class Improvement:
    """What a minute of imagination did.

    Attributes:
        scores: Real trials of the policy before and after, from the same starts.
        imagined: The report of the imagination run.
        video: Both policies side by side, from the first start.
    """

    scores: dict[str, Scores]
    imagined: dict
    video: Path

    @property
    def rows(self) -> list[tuple[str, str, str]]:
        """Policy, real success and its 95% interval, for a table."""
        rows = []
        for name, scores in self.scores.items():
            low, high = wilson_interval(scores.mean, len(scores))
            rows.append((name, f"{scores.mean:.2f}", f"{low:.2f} .. {high:.2f}"))
        return rows


def meaning(scores: dict[str, Scores]) -> str:
    """Whether the policy got better in real trials from the same starts.

    Args:
        scores: Real trials `before` and `after`.
    """
    order = pair_order(scores["after"], scores["before"])
    interval = order.low, order.high
    measured = (
        f"success went from {scores['before'].mean:.0%} to {scores['after'].mean:.0%} (95% interval of the change "
        f"{span(interval, '{:.0%}')})"
    )
    if sign_of(interval) == 0:
        return (
            f"It cannot be told whether the policy got better in real trials: {measured}, and the interval includes 0."
        )
    return f"In real trials the policy got {'better' if sign_of(interval) > 0 else 'worse'}: {measured}."


def missing(policy: str | Path, judge: str | Path) -> str | None:
    """Why there is nothing to improve, in a sentence; `None` when there is."""
    wanted = ((policy, "policy.json"), (judge, "judge.json"))
    absent = [str(model) for model, file in wanted if find_optional(model, file) is None]
    if not absent:
        return None
    where = " and ".join(absent)
    return f"No policy was improved in imagination, because there is nothing at {where}."


def improve_policy(
    world: Path,
    policy: str | Path,
    judge: str | Path,
    out: Path,
    *,
    minutes: float,
    episodes: int,
    trials: int,
    device: str,
    updates: int = 1000,
) -> Improvement:
    """Record starts, improve the policy in dreams from them, and let both act for real.

    Args:
        world: The world model.
        policy: The policy to improve.
        judge: Rewards the dreams.
        out: Folder of the recordings, of the improved policy and of the video.
        minutes: How long to imagine.
        episodes: Recorded episodes that dreams begin from.
        trials: Real trials of each policy, from other starts.
        device: Where the dreams run.
        updates: Maximum number of updates, if the minutes are not over before.
    """
    starts, fresh = out / "starts", out / "trials"
    record(RecordConfig(ENV, episodes=episodes, seed=START_SEED, behaviour="expert", out=starts))
    record(RecordConfig(ENV, episodes=trials, seed=TRIAL_SEED, behaviour="expert", out=fresh))
    config = ImagineConfig(
        world,
        judge,
        policy,
        starts,
        out / "policy",
        updates=updates,
        minutes=minutes,
        streams=12,
        horizon=40,
        pool=128,
        validation_starts=8,
        validation_horizon=40,
        validation_interval=1,
        trust=False,
        confirm=0,  # both are tried for real below
        noise_seeds=1,
        overwrite=True,
        device=device,
    )
    imagined = imagine(config)
    scores = before_after(
        {"before": policy, "after": config.out}, ENV, fresh, out / "videos", videos=1, horizon=60, episodes=trials
    )
    return Improvement(scores, imagined, out / "videos" / "start_0.mp4")
