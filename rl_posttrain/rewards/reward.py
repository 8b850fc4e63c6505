"""What a reward is, and the rollouts that it scores."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from worldmodel.data.clip import Clip


@dataclass(frozen=True)
class Rollout:
    """Imagined frames and the recorded ones, under the same actions; rewards score this.

    Attributes:
        imagined: `t + 1` frames, the first the one at which the first action is applied, with the
            predicted states; its actions are the commanded ones.
        reference: The recorded frames and states of the same stretch; `None` where there is no recording,
            as in `imagine`.
    """

    imagined: Clip
    reference: Clip | None


@runtime_checkable
class Reward(Protocol):
    """A reward is called with a rollout of `b` candidates; a plain function is enough.

    See `docs/extend/reward.md` for rewards of yours.
    """

    def __call__(self, rollout: Rollout) -> Float[Tensor, "b"]:
        """One number for each candidate; higher is better."""
        ...
