"""The recorded frames that a judge learns from, with what is known of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from worldmodel.data import EpisodeSource

NEAR_MISSES = 0.2
"""Share of the failed frames, those of the highest reward, that are drawn more often."""


@dataclass(frozen=True)
class Frames:
    """Labelled frames.

    Attributes:
        frames: All cameras.
        successes: Whether the task is solved there.
        rewards: Reward of the step that led there.
        tasks: The task of each frame in words.
    """

    frames: UInt8[Tensor, "n v H W 3"]
    successes: Bool[Tensor, "n"]
    rewards: Float[Tensor, "n"]
    tasks: tuple[str, ...] = ()

    def join(self, other: "Frames") -> "Frames":
        """These frames, then the others."""
        names = ("frames", "successes", "rewards")
        joined = {name: torch.cat([getattr(each, name) for each in (self, other)]) for name in names}
        return Frames(**joined, tasks=self.tasks + other.tasks)


def read_frames(
    source: EpisodeSource,
    episodes: Sequence[int],
    pictures: Sequence[UInt8[Tensor, "t v H W 3"]] | None = None,
    stride: int = 1,
) -> Frames:
    """Every frame of the episodes but the first; in data without rewards, success is the reward.

    If `pictures` of each episode are given, from `dream_again`, they get the recorded labels of the frames that
    they show; `stride` is that of the world model.

    Raises:
        ValueError: There is no `next.success`, or it is the same for all frames.
    """
    clips = [source.read(e, 0, source.lengths[e]) for e in episodes]
    if clips[0].successes is None:
        raise ValueError(f"{source.name}: no next.success to learn from")
    labels = [clip.successes[stride - 1 :: stride] for clip in clips]
    successes = torch.cat(labels)
    if successes.all() or not successes.any():
        raise ValueError(
            f"{source.name}: a judge learns from successes and failures, got "
            f"{int(successes.sum())} successes in {len(successes)} frames"
        )
    rewards = [c.successes.float() if c.rewards is None else c.rewards for c in clips]
    frames = torch.cat(list(pictures or (clip.frames[stride::stride] for clip in clips)))
    tasks = [source.task(episode) for episode, each in zip(episodes, labels, strict=True) for _ in each]
    return Frames(frames, successes, torch.cat([each[stride - 1 :: stride] for each in rewards]), tuple(tasks))


def batch_pools(rows: Frames, batch: int) -> list[tuple[Int64[Tensor, "_"], int]]:
    """Indices of frames, and how many of them a batch has: solved ones, near misses, all failed ones."""
    solved, failed = rows.successes.nonzero()[:, 0], (~rows.successes).nonzero()[:, 0]
    order = rows.rewards[failed].argsort(descending=True)
    near = failed[order[: max(round(NEAR_MISSES * len(failed)), 1)]]
    return [(solved, batch // 2), (near, batch // 4), (failed, batch - batch // 2 - batch // 4)]
