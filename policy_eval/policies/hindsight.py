"""Learn from what was reached: any later frame of an episode is a goal, and the actions before it lead there.

Hindsight relabelling (Andrychowicz et al. 2017, Hindsight Experience Replay, arXiv 1707.01495) for cloning, as in goal-
conditioned supervised learning (Ghosh et al. 2019, arXiv 1912.06088). No reward and no success is read.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from policy_eval.policies.cloned import ClonedPolicy

FRAMES = 8
"""Frames of each drawn episode; each is paired with every later one."""


@dataclass(frozen=True)
class Pairs:
    """Some frames of a data set, and which of them is the goal of which.

    Attributes:
        rows: Index of each frame in the data set.
        start: Index into `rows` of the frame that a pair begins at; likewise `goal`, of the later frame of its episode.
    """

    rows: Int64[Tensor, "n"]
    start: Int64[Tensor, "p"]
    goal: Int64[Tensor, "p"]

    def some(self, pairs: slice) -> "Pairs":
        """Some of the pairs, with the frames that they need."""
        used, index = torch.cat([self.start[pairs], self.goal[pairs]]).unique(return_inverse=True)
        start, goal = index.chunk(2)
        return Pairs(self.rows[used], start, goal)


def draw_pairs(lengths: Sequence[int], batch: int, generator: torch.Generator) -> Pairs:
    """`FRAMES` different frames of each of a few episodes, drawn uniformly, each paired with every later one.

    Args:
        lengths: Frames of each episode; the episodes lie one after the other. Episodes of one frame have no pair.
        batch: About how many frames are drawn; at least one episode is.
        generator: Draws episodes, the longer ones more often, and frames.

    Raises:
        ValueError: No episode has two frames.
    """
    each = torch.tensor(lengths)
    if each.max() < 2:
        raise ValueError(f"the longest of {len(lengths)} episodes has {each.max()} frames to learn from, 2 are needed")
    firsts = each.cumsum(0) - each
    drawn = torch.multinomial(
        (each - 1).clamp_min(0).double(), max(batch // FRAMES, 1), replacement=True, generator=generator
    )
    rows, start, goal, done = [], [], [], 0
    for episode in drawn.tolist():
        length = int(each[episode])
        frames = torch.randperm(length, generator=generator)[:FRAMES].sort().values
        earlier, later = torch.triu_indices(len(frames), len(frames), offset=1)
        rows.append(firsts[episode] + frames)
        start.append(done + earlier)
        goal.append(done + later)
        done += len(frames)
    return Pairs(torch.cat(rows), torch.cat(start), torch.cat(goal))


def hindsight_loss(
    policy: ClonedPolicy,
    looked: Float[Tensor, "n l"],
    states: Float[Tensor, "n s"] | None,
    plans: Float[Tensor, "n k a"],
    pairs: Pairs,
    generator: torch.Generator,
    rows: slice = slice(None),
    total: int | None = None,
) -> Float[Tensor, ""]:
    """Mean loss of the plan at the first frame of each pair, towards the later one.

    Args:
        policy: Is shown goals.
        looked: Keypoints of the frames `pairs.rows`, see `ClonedPolicy.look`.
        states: The states then.
        plans: The normalised actions that followed.
        pairs: Which frame is the goal of which.
        generator: Draws what the loss of the policy needs.
        rows: Which ones of more pairs they are, as in `ClonedPolicy.loss`.
        total: Number of all.
    """
    at = pairs.start.to(looked.device)
    seen = None if states is None else states[at]
    features = policy.join(looked[at], seen, looked[pairs.goal.to(looked.device)])
    return policy.loss(features, plans[at], generator, rows, total).mean()
