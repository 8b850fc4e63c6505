"""The verdict of a judge on a frame, and the observation of an environment in the form that a judge reads."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from worldmodel.streaming.state import Observation


@dataclass(frozen=True)
class Verdict:
    """The verdict of a judge on one frame of every stream.

    Attributes:
        rewards: Reward for reaching the frame.
        successes: Whether the task is solved.
        unsure: Whether the judge cannot tell; then it calls nothing a success there. `None`: it is always sure.

    Raises:
        ValueError: A success is marked as unsure.
    """

    rewards: Float[Tensor, "b"]
    successes: Bool[Tensor, "b"]
    unsure: Bool[Tensor, "b"] | None = None

    def __post_init__(self):
        if self.unsure is not None and (self.unsure & self.successes).any():
            raise ValueError("a verdict is either a success or unsure, and one is both")


Judge = Callable[[Observation], Verdict]
"""Looks at the latest frame of every stream, all cameras."""


def observed(observation: Mapping[str, np.ndarray], views: Sequence[str], task: Sequence[str] = ()) -> Observation:
    """The observation of a Gymnasium environment in the form that the world model and judges read."""
    pictures = [observation[f"observation.images.{view}"] for view in views]
    states = observation.get("observation.state")
    return Observation(
        torch.from_numpy(np.stack(pictures, axis=1)), None if states is None else torch.from_numpy(states), tuple(task)
    )
