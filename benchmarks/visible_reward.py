"""A perceptual reward that a world model cannot meet by what nobody sees; a plug for `--pathwise.extra`.

The features of the trunk have unit length everywhere, so on a white background a difference of one level of 255
counts as much as a wrong shape elsewhere. The plain reward spends its gradient on such differences, and another trunk
then finds the pictures further away than before.
"""

import functools

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softshrink

from rl_posttrain.rewards.perceptual import Trunk
from rl_posttrain.rewards.predictions import Predictions

UNSEEN = 3 / 127.5
"""Differences of up to so much, in pictures from -1 to 1, count as none: three of 255 levels."""


@functools.cache
def trunk() -> Trunk:
    """EfficientNet-lite0; the tables use lite2."""
    return Trunk(0)


def seen_perceptual(predictions: Predictions) -> Float[Tensor, "n"]:
    """Minus the perceptual distance, after differences that cannot be seen are taken away; 0 is best."""
    predicted, recorded = (predictions.pick(x) for x in (predictions.predicted, predictions.recorded))
    return -trunk().distance(recorded + softshrink(predicted - recorded, UNSEEN), recorded)
