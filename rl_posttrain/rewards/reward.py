"""What a reward is, and the rollouts that it scores."""

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from worldmodel.data.clip import Clip


@dataclass(frozen=True)
class Rollout:
    """Imagined frames and the recorded ones, under the same actions; rewards score this.

    Attributes:
        imagined: `t + 1` frames, the first the one at which the first action is applied, with the
            predicted states; its actions are the commanded ones.
        reference: The recorded frames and states of the same stretch.
    """

    imagined: Clip
    reference: Clip


Reward = Callable[[Rollout], Float[Tensor, "b"]]
