"""Set the threshold of a `GoalJudge` without labels, and measure the judge on held-out episodes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from policy_eval.judge.goals.judge import GoalJudge
from policy_eval.judge.goals.pictures import NearestPicture
from policy_eval.judge.scores import Score, judge_episodes, judge_report
from worldmodel.data import EpisodeSource

NEAR = 3
"""Steps up to which a frame counts as being at its goal."""
PAIRS = 8
"""Pairs of each kind that every held-out episode gives."""
RESAMPLES = 400


@dataclass(frozen=True)
class NearAndFar:
    """Scores of held-out pairs of one episode, the later frame as the goal.

    Attributes:
        near: Of frames at most `NEAR` steps before their goal.
        far: Of frames further from it.
        steps: Steps of the far ones.
    """

    near: Float64[np.ndarray, "n"]
    far: Float64[np.ndarray, "n"]
    steps: Float64[np.ndarray, "n"]


def near_and_far(judge: GoalJudge, source: EpisodeSource, episodes: Sequence[int], seed: int = 0) -> NearAndFar:
    """Score pairs of frames of held-out episodes.

    Raises:
        ValueError: No episode is long enough.
    """
    generator = torch.Generator().manual_seed(seed)
    near, far, steps = [], [], []
    for episode in episodes:
        length = source.lengths[episode]
        if length < 2 * NEAR + 2:
            continue
        frames = source.read(episode, 0, length).frames
        goal = torch.randint(NEAR + 1, length, (PAIRS,), generator=generator)
        close = goal - torch.randint(NEAR + 1, (PAIRS,), generator=generator)
        apart = (torch.rand(PAIRS, generator=generator) * (goal - NEAR)).long()
        paired = judge.with_goals(frames[goal][:, None])
        near.append(paired.score(frames[close]))
        far.append(paired.score(frames[apart]))
        steps.append(goal - apart)
    if not near:
        raise ValueError(f"{source.name}: no held-out episode has {2 * NEAR + 2} frames, so no threshold can be set")
    return NearAndFar(*(torch.cat(each).double().cpu().numpy() for each in (near, far, steps)))


def reached_threshold(pairs: NearAndFar) -> float:
    """The score at which as large a share of the near pairs is missed as of the far pairs is accepted."""
    levels = np.unique(np.concatenate([pairs.near, pairs.far]))
    missed = (pairs.near[None] <= levels[:, None]).mean(1)
    accepted = (pairs.far[None] > levels[:, None]).mean(1)
    return float(levels[np.argmin(abs(missed - accepted))])


def ordering(judge: GoalJudge, source: EpisodeSource, episodes: Sequence[int], seed: int = 0) -> float | None:
    """How often, of two frames before a goal of their own episode, the later one has the higher score.

    It needs no labels. 0.5 is chance; an episode that goes back and forth cannot reach 1. `None` without episodes of
    three frames.
    """
    generator = torch.Generator().manual_seed(seed)
    right = []
    for episode in episodes:
        length = source.lengths[episode]
        if length < 3:
            continue
        frames = source.read(episode, 0, length).frames
        three = torch.stack([torch.randperm(length, generator=generator)[:3].sort().values for _ in range(PAIRS)])
        paired = judge.with_goals(frames[three[:, 2]][:, None])
        early, late = paired.score(frames[three[:, 0]]), paired.score(frames[three[:, 1]])
        right.append((late > early).float().mean().item())
    return float(np.mean(right)) if right else None


def measure_goals(judge: GoalJudge, source: EpisodeSource, episodes: Sequence[int]) -> dict:
    """Measures on held-out episodes; those that need labels are `None` where the data has none.

    Returns:
        `pictures`, the number of goals; `farthest`; `threshold`, and the shares of held-out pairs that it is wrong
        about, `missed` (near ones) and `accepted` (far ones); `ordering`; `spearman`, with `next.reward`, its value and
        95% interval, and that of the pixels, `pixels`; and `success`, with `next.success`, as in `judge_report`.
    """
    pairs = near_and_far(judge, source, episodes, seed=1)
    found = {
        "pictures": len(judge.goals),
        "farthest": judge.shape.farthest,
        "threshold": judge.threshold,
        "missed": float((pairs.near <= judge.threshold).mean()),
        "accepted": float((pairs.far > judge.threshold).mean()),
        "ordering": ordering(judge, source, episodes),
        "spearman": None,
        "pixels": None,
        "success": None,
    }
    scored = score_rewards(judge.score, source, episodes)
    if scored:
        found["spearman"] = spearman_of(scored)
        found["pixels"] = spearman_of(score_rewards(NearestPicture(judge.goals).score, source, episodes))
    if source.columns(episodes[0]).successes is not None:
        found["success"] = judge_report(judge_episodes(judge.score, source, episodes), judge.threshold)
    return found


@dataclass(frozen=True)
class Scored:
    """Scores and true rewards of the frames of one episode but its first."""

    scores: Float64[np.ndarray, "t"]
    rewards: Float64[np.ndarray, "t"]


def score_rewards(score: Score, source: EpisodeSource, episodes: Sequence[int]) -> list[Scored]:
    """Scores and true rewards of held-out episodes; empty if the data has no `next.reward`."""
    found = []
    for episode in episodes:
        clip = source.read(episode, 0, source.lengths[episode])
        if clip.rewards is None:
            return []
        found.append(Scored(_numbers(score(clip.frames[1:])), _numbers(clip.rewards)))
    return found


def spearman_of(scored: Sequence[Scored]) -> tuple[float, float, float]:
    """Rank correlation of scores and rewards over all frames, with its 95% interval over episodes."""
    drawn = np.random.default_rng(0).integers(len(scored), size=(RESAMPLES, len(scored)))
    samples = [_spearman([scored[index] for index in row]) for row in drawn]
    low, high = np.quantile(samples, [0.025, 0.975])
    return _spearman(scored), float(low), float(high)


def ranks(values: Float64[np.ndarray, "n"]) -> Float64[np.ndarray, "n"]:
    """Rank of each value, 1 for the lowest; equal values share their mean rank."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place]


def _spearman(scored: Sequence[Scored]) -> float:
    """0 where scores or rewards are all the same."""
    scores, rewards = (np.concatenate([getattr(one, name) for one in scored]) for name in ("scores", "rewards"))
    if np.ptp(scores) == 0 or np.ptp(rewards) == 0:
        return 0.0
    return float(np.corrcoef(ranks(scores), ranks(rewards))[0, 1])


def _numbers(values: Tensor) -> np.ndarray:
    return values.double().cpu().numpy()
