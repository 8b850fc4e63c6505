"""States that are angles: differences the short way round, and values that wrap at the ends of an interval."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

Angles = Mapping[int, tuple[float, float]]
"""{state dim: (low, high)}: the dim is an angle, and `high` is the same angle as `low`."""
LARGEST_STEP = 3  # times the largest other step: how far a jump may be from a whole turn


def shortest(difference: Float[Tensor, "*b s"], angles: Angles) -> Float[Tensor, "*b s"]:
    """Differences of states, those of angles taken the short way round: within half a turn."""
    turned = difference.clone() if angles else difference
    for dim, (low, high) in angles.items():
        turn = high - low
        turned[..., dim] = torch.remainder(difference[..., dim] + turn / 2, turn) - turn / 2
    return turned


def wrapped(states: Float[Tensor, "*b s"], angles: Angles) -> Float[Tensor, "*b s"]:
    """States with every angle brought into its interval `[low, high)`."""
    moved = states.clone() if angles else states
    for dim, (low, high) in angles.items():
        moved[..., dim] = torch.remainder(states[..., dim] - low, high - low) + low
    return moved


def on_the_circle(states: Float[Tensor, "*b s"], angles: Angles) -> Float[Tensor, "*b c"]:
    """Cosine and sine of every angle, for a network that must not see a jump: one pair per angle, in order."""
    if not angles:
        return states[..., :0]
    turns = [(states[..., dim] - low) / (high - low) * 2 * torch.pi for dim, (low, high) in angles.items()]
    angle = torch.stack(turns, dim=-1)
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


def found_angles(episodes: Sequence[Float[Tensor, "_ s"]]) -> dict[int, tuple[float, float]]:
    """The dims that jump by a whole turn, in radians or degrees, while they move smoothly otherwise.

    Taken the short way round, a jump of an angle is a step like others; a switch between two values is not an angle.

    Args:
        episodes: The states of every episode.
    """
    found = {}
    changes = torch.cat([states.diff(dim=0) for states in episodes]).abs()
    values = torch.cat(list(episodes))
    for dim in range(values.shape[1]):
        for turn in (2 * torch.pi, 360.0):
            jumps = changes[:, dim] > 0.75 * turn
            within = (changes[:, dim] <= 1.01 * turn).all() and not (changes[:, dim][~jumps] > 0.25 * turn).any()
            low = 0.0 if values[:, dim].min() > -0.01 * turn else -turn / 2
            inside = ((values[:, dim] >= low - 0.01 * turn) & (values[:, dim] <= low + 1.01 * turn)).all()
            short = (turn - changes[:, dim][jumps]).abs().max() if jumps.any() else torch.tensor(0.0)
            usual = changes[:, dim][~jumps].max() if (~jumps).any() else torch.tensor(0.0)
            if jumps.any() and within and inside and short <= LARGEST_STEP * usual:
                found[dim] = (low, low + turn)
    return found
