"""Turn absolute targets into displacements from the state, which do not depend on where the robot is."""

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor

from conditioning.angles import Angles, shortest


def relative_actions(
    actions: Float[Tensor, "*b a"],
    states: Float[Tensor, "*#b s"],
    relative_to: Mapping[int, int],
    *,
    cap: float | None = None,
    angles: Angles | None = None,
) -> Float[Tensor, "*b a"]:
    """A copy of the actions in which the state is subtracted from the absolute targets.

    Args:
        actions: Raw actions.
        states: The state in which each action is carried out.
        relative_to: Action dim and state dim pairs of the absolute targets.
        cap: Longest displacement of these dims together; longer ones are shortened to it.
        angles: State dims that are angles; displacements from them are taken the short way round.
    """
    moved = actions.clone()
    for action, state in relative_to.items():
        moved[..., action] -= states[..., state]
    turning = {action: angles[state] for action, state in relative_to.items() if state in (angles or {})}
    moved = shortest(moved, turning)
    if cap is not None and relative_to:
        dims = list(relative_to)
        length = moved[..., dims].norm(dim=-1, keepdim=True).clamp_min(1e-6)
        moved[..., dims] *= (cap / length).clamp_max(1.0)
    return moved


def check_relative_to(relative_to: Mapping[int, int], *, data: str, action_dim: int, state_dim: int) -> None:
    """Raise a `ValueError` when the data set named `data` lacks a dim of `relative_to`."""
    for action, state in relative_to.items():
        if not (0 <= action < action_dim and 0 <= state < state_dim):
            raise ValueError(
                f"{data}: relative_to has {action}: {state}, the data has "
                f"{action_dim} action dims and {state_dim} state dims"
            )
