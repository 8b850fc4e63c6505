"""A judge without training: how close a frame is to pictures of the goal."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from worldmodel.dreams.verdict import Verdict
from worldmodel.streaming.state import Observation


class GoalImageJudge:
    """Similarity to pictures of the goal, without any training.

    The score, and the reward, is minus the root mean square difference to the nearest goal in grey
    levels over 255: -1 to 0.

    Args:
        goals: Pictures of success, all cameras.
        threshold: Score above which a frame is called a success.
    """

    def __init__(self, goals: UInt8[Tensor, "g v H W 3"], threshold: float = -0.05):
        if not len(goals):
            raise ValueError("a goal-image judge needs at least one goal, got 0")
        self.goals, self.threshold = goals.flatten(1).float() / 255, threshold

    def score(self, frames: UInt8[Tensor, "n v H W 3"]) -> Float[Tensor, "n"]:
        """Minus the distance to the nearest goal."""
        pictures = frames.flatten(1).float().to(self.goals.device) / 255
        distances = torch.cdist(pictures, self.goals) / pictures.shape[1] ** 0.5
        return -distances.amin(1)

    def __call__(self, observation: Observation) -> Verdict:
        """The verdict on the latest frame of every stream."""
        scores = self.score(observation.frames)
        return Verdict(scores, scores > self.threshold)
