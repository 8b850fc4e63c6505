"""A judge of goals without training, for expectations worked out by hand: the difference in brightness is the steps."""

import torch

from policy_eval.judge.goals.judge import GoalJudge, GoalShape, first_steps


def grey(*levels: int) -> torch.Tensor:
    """Frames of two cameras of uniform grey."""
    return torch.tensor(levels, dtype=torch.uint8)[:, None, None, None, None].repeat(1, 2, 16, 16, 3)


class Differences(torch.nn.Module):
    """In place of a trained network: brightness is the only feature, and the bin is its difference in steps."""

    def __init__(self, farthest: int):
        super().__init__()
        self.bins = first_steps(farthest)
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def features(self, frames):
        return frames.flatten(1).float().mean(1, keepdim=True)

    def compare(self, frames, goals):
        steps = (goals - frames).abs().round().long()[..., 0]
        bins = torch.bucketize(steps, self.bins, right=True) - 1
        return 50 * torch.nn.functional.one_hot(bins, len(self.bins) + 1).float()


def by_brightness(goals: torch.Tensor, farthest: int = 8, **options) -> GoalJudge:
    """A judge for whom a grey level is a step."""
    return GoalJudge(GoalShape(("top", "wrist"), (16, 16), farthest), goals, network=Differences(farthest), **options)
