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
        unsure: Whether the judge cannot tell; such a frame never counts as a success. `None` for a judge that is always
            sure.

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
"""Looks at the latest frame of every stream, all cameras. If it has an attribute `doubts_last` that is true, a trial in
which it was unsure once stays so until a success; otherwise only its last frame counts."""


def scored_verdict(
    scores: Float[Tensor, "b"], rewards: Float[Tensor, "b"], threshold: float, doubt: float | None
) -> Verdict:
    """A success above `threshold`; otherwise unsure from `doubt` on, or never if that is `None`."""
    successes = scores > threshold
    return Verdict(rewards, successes, None if doubt is None else (scores >= doubt) & ~successes)


def as_verdict(answer: object, number: int, *, threshold: float = 0.5, name: str = "judge") -> Verdict:
    """The answer of somebody's judge as a verdict.

    Args:
        answer: A `Verdict`; or for each of the streams a truth value, which is the success and the reward, or a
            score, which is the reward, and a success above `threshold`. A score of NaN means unsure.
        number: Number of streams.
        threshold: Score above which a frame is called a success.
        name: Of the judge, for messages.

    Raises:
        ValueError: It has none of these forms, or there is not one answer per stream.
    """
    if isinstance(answer, Verdict):
        if len(answer.rewards) != number or len(answer.successes) != number:
            raise ValueError(f"{name}: {len(answer.rewards)} verdicts for {number} streams")
        return answer
    try:
        values = torch.as_tensor(answer)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{name}: returns {type(answer).__name__}, expected a Verdict, or a truth value or a score for each stream"
        ) from error
    if tuple(values.shape) != (number,):
        raise ValueError(f"{name}: returns the shape {tuple(values.shape)}, expected one answer for {number} streams")
    if values.dtype is torch.bool:
        return Verdict(values.float(), values)
    unsure = values.float().isnan()
    return Verdict(values.float().nan_to_num(0.0), (values > threshold) & ~unsure, unsure)


def observed(observation: Mapping[str, np.ndarray], views: Sequence[str], task: Sequence[str] = ()) -> Observation:
    """The observation of a Gymnasium environment in the form that the world model and judges read."""
    pictures = [observation[f"observation.images.{view}"] for view in views]
    states = observation.get("observation.state")
    return Observation(
        torch.from_numpy(np.stack(pictures, axis=1)), None if states is None else torch.from_numpy(states), tuple(task)
    )
