"""The reward of a perceptual distance."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from rl_posttrain.rewards.predictions import Predictions
from worldmodel.fidelity.perceptual import Trunk


@dataclass(frozen=True)
class Perceptual:
    """Minus the perceptual distance of the picked predicted pictures from the recorded ones, as far as it can be seen.

    By itself it is hacked within minutes: the distance of its own trunk falls while that of another trunk rises.
    Always measure with another trunk than the rewarded one.

    Attributes:
        trunk: Computes the features.
    """

    trunk: Trunk

    def __call__(self, predictions: Predictions) -> Float[Tensor, "n"]:
        """Scores, 0 is best."""
        return -self.trunk.distance(predictions.visible, predictions.pick(predictions.recorded))
