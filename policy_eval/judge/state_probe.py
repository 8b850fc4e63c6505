"""A second task for networks that look at a robot: where it is, and how far it has moved."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import smooth_l1_loss

from conditioning.angles import Angles, shortest


class StateProbe(nn.Module):
    """Linear readings of the state from the code of a frame, and of its change from the codes of two frames.

    Positions are learned in units of the usual change between two frames, so that they must be
    known to a fraction of it. Dims that never move are left out, and so are the positions of angles.

    Args:
        episodes: States of the training episodes.
        code: Width of a code.
        angles: State dims that are angles.
    """

    def __init__(self, episodes: Sequence[Float[Tensor, "_ s"]], code: int, angles: Angles):
        super().__init__()
        self.angles = dict(angles)
        changes = torch.cat([shortest(states.diff(dim=0), self.angles) for states in episodes])
        scale = changes.square().mean(0).sqrt()
        moving = scale > 1e-6
        fixed = moving.clone()
        fixed[list(self.angles)] = False
        self.register_buffer("moving", moving)
        self.register_buffer("fixed", fixed)
        self.register_buffer("scale", torch.where(moving, scale, 1.0))
        self.register_buffer("middle", torch.cat(list(episodes)).mean(0))
        self.place, self.change = nn.Linear(code, len(scale)), nn.Linear(2 * code, len(scale))

    def forward(self, codes: Float[Tensor, "b t c"], states: Float[Tensor, "b t s"]) -> Float[Tensor, ""]:
        """The loss, a Huber loss of positions and changes in units of the usual change."""
        wanted = (states - self.middle) / self.scale
        moved = shortest(states.diff(dim=1), self.angles) / self.scale
        place = smooth_l1_loss(self.place(codes), wanted, reduction="none")[..., self.fixed]
        pairs = torch.cat([codes[:, :-1], codes[:, 1:]], dim=-1)
        change = smooth_l1_loss(self.change(pairs), moved, reduction="none")[..., self.moving]
        return sum(part.mean() for part in (place, change) if part.numel())
