"""How good a judge is on frames and on whole episodes, real ones and dreamed replays."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, UInt8
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from worldmodel.data import EpisodeSource, stack_clips
from worldmodel.world_model import WorldModel

Score = Callable[..., Float[Tensor, "n"]]
"""Maps frames, `n v H W 3`, to a score each; a judge that is told the task gets that of each frame, too."""


@dataclass(frozen=True)
class JudgedEpisode:
    """The frames of one episode after its first, with the truth and the judge's scores.

    Attributes:
        successes: Whether the task was truly solved at the frame.
        scores: The judge's scores, higher for success.
    """

    successes: Bool[Tensor, "t"]
    scores: Float[Tensor, "t"]


def judge_episodes(
    score: Score,
    source: EpisodeSource,
    episodes: Sequence[int],
    pictures: Sequence[UInt8[Tensor, "t v H W 3"]] | None = None,
    stride: int = 1,
    *,
    told: bool = False,
) -> list[JudgedEpisode]:
    """Score every frame of episodes but the first; `next.success` of row i belongs to frame i + 1.

    If `pictures` of each episode are given, from `dream_again`, they are scored against the recorded
    truth; a wrong verdict is then a mistake of the judge or of the dream. With a `stride`, only every `stride`-th frame
    is scored, as a world model of this stride shows them. With `told`, the judge is told the task of the episode.

    Raises:
        ValueError: The data has no `next.success`.
    """
    judged = []
    for index, episode in enumerate(episodes):
        clip = source.read(episode, 0, source.lengths[episode])
        if clip.successes is None:
            raise ValueError(f"{source.name}: no next.success, which a judge is measured against")
        shown = clip.frames[stride::stride] if pictures is None else pictures[index]
        tasks = [(source.task(episode),) * len(shown)] if told else []
        judged.append(JudgedEpisode(clip.successes[stride - 1 :: stride], score(shown, *tasks).cpu()))
    return judged


def dream_again(
    world: WorldModel,
    source: EpisodeSource,
    episodes: Sequence[int],
    *,
    num_steps: int = 2,
    seed: int = 0,
    batch: int = 32,
) -> list[UInt8[Tensor, "t v H W 3"]]:
    """The frames of each episode after its first, dreamed under its recorded actions.

    A world model of stride `s` shows frames `s`, `2 s`, ... of the episode.

    Args:
        world: The world model.
        source: The recorded episodes.
        episodes: Indices of the episodes to dream.
        num_steps: Denoising steps per frame.
        seed: Seed of the noise.
        batch: Episodes dreamed side by side.

    Raises:
        ValueError: An episode is too short for the stride of the world model.
    """
    dreams = []
    for episode in episodes:
        if source.lengths[episode] <= world.stride:
            raise ValueError(
                f"{source.name}: episode {episode} has {source.lengths[episode]} frames, a world model of stride "
                f"{world.stride} needs at least {world.stride + 1}"
            )
    for first in range(0, len(episodes), batch):
        batched = episodes[first : first + batch]
        clips = [source.read(e, 0, source.lengths[e], world.stride) for e in batched]
        lengths = [len(clip.frames) - 1 for clip in clips]
        context = stack_clips([source.read(e, 0, 1) for e in batched])
        padded = pad_sequence([clip.actions for clip in clips], batch_first=True)
        dreamed = world.stream(context, seeds=seed + first).roll(padded, num_steps=num_steps)
        frames = torch.stack([observation.frames.cpu() for observation in dreamed], dim=1)
        dreams += [row[:length] for row, length in zip(frames, lengths, strict=True)]
    return dreams


def best_threshold(judged: Sequence[JudgedEpisode]) -> float:
    """The threshold at which the fewest episodes are classified wrongly.

    An episode is called a success when any of its frames scores above the threshold. Several thresholds may be equally
    good. Those with as many false successes as false failures are preferred, because they give the right success rate,
    and the middle one of them is taken.

    Raises:
        ValueError: All episodes have the same outcome.
    """
    truth, best = outcomes(judged), peaks(judged)
    if truth.all() or not truth.any():
        raise ValueError(
            f"a threshold needs successes and failures, got {int(truth.sum())} successes in {len(truth)} episodes"
        )
    levels = np.sort(best)
    candidates = (levels[:-1] + levels[1:]) / 2
    called = best[None] > candidates[:, None]
    false_success = (called & ~truth).sum(1)
    false_failure = (~called & truth).sum(1)
    cost = (false_success + false_failure) + abs(false_success - false_failure) / (len(truth) + 1)
    good = np.flatnonzero(cost == cost.min())
    return float(candidates[good[len(good) // 2]])


def outcomes(judged: Sequence[JudgedEpisode]) -> Bool[np.ndarray, "e"]:
    """Whether each episode truly succeeds at any of its frames."""
    return np.array([bool(episode.successes.any()) for episode in judged])


def peaks(judged: Sequence[JudgedEpisode]) -> Float64[np.ndarray, "e"]:
    """The highest score of each episode."""
    return np.array([float(episode.scores.max()) for episode in judged])


def judge_report(judged: Sequence[JudgedEpisode], threshold: float) -> dict:
    """Area under the ROC curve and confusion matrix, of frames and of whole episodes.

    Returns:
        `{"frames": ..., "episodes": ...}`, each with `n`, `successes` (share, in truth),
        `called` (share, by the judge), `auc`, `accuracy` and `confusion` (counts). `auc` is `None`
        when all outcomes are the same.
    """
    frames_truth = torch.cat([episode.successes for episode in judged]).numpy()
    frames_score = torch.cat([episode.scores for episode in judged]).double().numpy()
    return {
        "frames": _table(frames_truth, frames_score, threshold),
        "episodes": _table(outcomes(judged), peaks(judged), threshold),
    }


def _table(truth: Bool[np.ndarray, "n"], scores: Float64[np.ndarray, "n"], threshold: float) -> dict:
    called = scores > threshold
    auc = None
    if truth.any() and not truth.all():
        from torchmetrics.functional.classification import binary_auroc  # slow to import

        # Ranks, because binary_auroc treats scores outside 0..1 as logits.
        ranks = np.unique(scores, return_inverse=True)[1] / len(scores)
        auc = float(binary_auroc(torch.from_numpy(ranks), torch.from_numpy(truth).long()))
    return {
        "n": len(truth),
        "successes": float(truth.mean()),
        "called": float(called.mean()),
        "auc": auc,
        "accuracy": float((called == truth).mean()),
        "confusion": {
            "true_success": int((called & truth).sum()),
            "false_success": int((called & ~truth).sum()),
            "false_failure": int((~called & truth).sum()),
            "true_failure": int((~called & ~truth).sum()),
        },
    }
