"""What a policy needs of the cameras, states and actions around it, compared with what an environment gives."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from gymnasium import spaces
from jaxtyping import Float

from policy_eval.policies.policy import Policy
from worldmodel.envs.policy import optional

IMAGES = "observation.images."
STATE = "observation.state"
LEAST_SHARE = 0.1
"""Smallest share of a policy's range of actions that lies within the action space; the rest would be clipped."""
LEAST_WIDTH = 0.02
"""Smallest width of a policy's range of actions, as a share of the action space, in at least one dim."""


@dataclass(frozen=True)
class Needs:
    """What a policy needs. A field that is `None` is not compared, because the policy does not state it.

    A policy states it by an attribute `needs`.

    Attributes:
        views: Height and width of the pictures of each camera that the policy looks at; (0, 0) for any size.
        resizes: Whether the policy resizes pictures of another size that have the same aspect ratio.
        state_dim: Width of `observation.state`; 0 for a policy that does not look at it.
        action_dim: Width of an action.
        action_low: The lowest action of each dim that the policy learned from, in raw units; likewise `action_high`.
        action_high: The highest ones.
        task: Whether the policy needs the task in words.

    Raises:
        ValueError: The bounds of the actions do not have one number for each dim, or only one of them is given.
    """

    views: dict[str, tuple[int, int]] | None = None
    resizes: bool = False
    state_dim: int | None = None
    action_dim: int | None = None
    action_low: tuple[float, ...] | None = None
    action_high: tuple[float, ...] | None = None
    task: bool = False

    def __post_init__(self):
        widths = [None if bound is None else len(bound) for bound in (self.action_low, self.action_high)]
        if widths != [None, None] and widths != [self.action_dim] * 2:
            raise ValueError(
                f"needs: action_dim is {self.action_dim}, action_low has {widths[0]} numbers, action_high {widths[1]}"
            )


def check_fits(
    policy: Policy,
    observation_space: spaces.Space,
    action_space: spaces.Box,
    name: str,
    tasks: Sequence[str] | None = None,
) -> None:
    """Compare what a policy needs with what one environment gives; a policy that states nothing is not checked.

    Args:
        policy: The policy.
        observation_space: The space of one observation, a `Dict` with LeRobot's keys.
        action_space: The space of one action.
        name: Name of the policy, for the message.
        tasks: The tasks of the episodes in words, if they are known.

    Raises:
        ValueError: Something does not fit; one line names every mismatch with both values.
    """
    needs = optional(policy, "needs")
    if needs is None:
        return
    if not isinstance(needs, Needs):
        raise ValueError(f"policy {name}: its attribute needs is {needs!r}, expected an object of the class Needs")
    wrong = [*_views(needs, observation_space), *_state(needs, observation_space), *_actions(needs, action_space)]
    if needs.task and tasks is not None and not all(tasks):
        wrong.append(
            f"it needs the task in words, {sum(not task for task in tasks)} of {len(tasks)} episodes have none"
        )
    if wrong:
        raise ValueError(f"policy {name} does not fit: {'; '.join(wrong)}")


def same_aspect(first: tuple[int, int], second: tuple[int, int]) -> bool:
    """Whether two sizes, height and width, have the same aspect ratio up to the rounding of one pixel."""
    (height, width), (larger_height, larger_width) = sorted((first, second))
    return abs(height * larger_width / larger_height - width) < 1


def _views(needs: Needs, space: spaces.Space) -> list[str]:
    """Cameras that are missing or show pictures of another size."""
    given = {key.removeprefix(IMAGES): part.shape[:2] for key, part in space.items() if key.startswith(IMAGES)}
    wrong = []
    for view, size in (needs.views or {}).items():
        if view not in given:
            wrong.append(f"it needs the camera {view}, there is {', '.join(given) or 'none'}")
        elif needs.resizes and 0 not in size and not same_aspect(given[view], size):
            wrong.append(
                f"it needs pictures of {view} with the aspect ratio of {_by(size)}, they are {_by(given[view])}"
            )
        elif not needs.resizes and size not in ((0, 0), given[view]):
            wrong.append(f"it needs pictures of {view} of {_by(size)}, they are {_by(given[view])}")
    return wrong


def _state(needs: Needs, space: spaces.Space) -> list[str]:
    given = space[STATE].shape[0] if STATE in space.spaces else 0
    if needs.state_dim in (None, 0, given):
        return []
    return [f"it needs {STATE} with {needs.state_dim} dims, there are {given}"]


def _actions(needs: Needs, space: spaces.Box) -> list[str]:
    """Differences in the number of dims and in the range; a dim with only one value in the action space is skipped."""
    given = space.shape[0]
    if needs.action_dim is not None and needs.action_dim != given:
        return [f"its actions have {needs.action_dim} dims, the action space {given}"]
    if needs.action_low is None or needs.action_high is None:
        return []
    low, high = np.array(needs.action_low), np.array(needs.action_high)
    outside = (space.high > space.low) & (shares(low, high, space) < LEAST_SHARE)
    bounded = np.isfinite(space.low) & np.isfinite(space.high)
    narrow = bounded & (high - low < LEAST_WIDTH * (space.high - space.low))
    if not outside.any() and not narrow.all():
        return []
    dim = int(outside.argmax())
    mine, theirs = (f"{a[dim]:g}..{b[dim]:g}" for a, b in ((low, high), (space.low, space.high)))
    return [f"dim {dim} of its actions has the range {mine}, that of the action space is {theirs}"]


def shares(low: Float[np.ndarray, "a"], high: Float[np.ndarray, "a"], space: spaces.Box) -> Float[np.ndarray, "a"]:
    """The share of the range `low..high` that lies within the action space; for a range of one value it is 0 or 1."""
    width = high - low
    inside = np.minimum(high, space.high) - np.maximum(low, space.low)
    return np.where(width > 0, inside.clip(0) / np.where(width > 0, width, 1), inside >= 0)


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
