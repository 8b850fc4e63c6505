"""How close a predicted frame is to the recorded one: SSIM, LPIPS and masked PSNR; `worldmodel.model.psnr` has PSNR.

Every function compares single frames, so the leading axes of the inputs are the axes of the result.
Letterbox padding is cut off with `valid_region` before anything is compared. torchmetrics, lpips and torchvision are
imported where they are used, because together they take longer to import than PyTorch.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from einops import rearrange, reduce
from jaxtyping import Bool, Float32, UInt8
from torch import Tensor

from worldmodel.model.psnr import decibel, squared_error, unit

CHANGE_THRESHOLD = 0.1
"""A pixel counts as changed when one of its channels differs by more than this, on [0, 1]."""

LPIPS_MIN_SIDE = 31
"""Smallest side of a picture in pixels; AlexNet's two poolings leave nothing of a smaller one."""


def valid_region(pixel_mask: Bool[Tensor, "H W"]) -> tuple[slice, slice]:
    """Rows and columns of a view without its letterbox padding.

    Args:
        pixel_mask: False on the padding.

    Returns:
        Slices of the height and the width.

    Raises:
        ValueError: The pixels that are not padding do not form a rectangle.
    """
    rows, columns = pixel_mask.any(1).nonzero(), pixel_mask.any(0).nonzero()
    if len(rows) == 0 or int(pixel_mask.sum()) != len(rows) * len(columns):
        raise ValueError(
            f"pixel_mask: {int(pixel_mask.sum())} valid pixels in {len(rows)} rows and "
            f"{len(columns)} columns; letterboxing leaves a rectangle"
        )
    return (slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))


def ssim(prediction: UInt8[Tensor, "*b H W 3"], truth: UInt8[Tensor, "*b H W 3"]) -> Float32[Tensor, "*b"]:
    """Structural similarity of each frame (Wang et al. 2004; Gaussian window, sigma 1.5).

    Exact to 5e-4: in float32 the variance of a flat patch, a difference of nearly equal numbers,
    is rounding noise; float64 convolutions are ten times as slow on a CPU.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    pictures = [rearrange(unit(x), "... H W c -> (...) c H W") for x in (prediction, truth)]
    values = structural_similarity_index_measure(*pictures, data_range=1.0, reduction="none")
    return values.reshape(prediction.shape[:-3])


def change_mask(
    truth: UInt8[Tensor, "*b H W 3"],
    predictions: Mapping[str, UInt8[Tensor, "*b H W 3"]],
    last_context: UInt8[Tensor, "*b H W 3"],
) -> Bool[Tensor, "*b H W"]:
    """Pixels where the truth or any prediction differs from the last context frame, dilated by 1.

    A change is a difference of more than 0.1 (on [0, 1]) in some channel. The union over the truth
    and all the predictions means that every model is scored on the same pixels, and that changes
    which a model invents count as well as changes which it misses.
    """
    reference = unit(last_context)
    changed = torch.stack(
        [
            reduce((unit(x) - reference).abs(), "... H W c -> ... H W", "max") > CHANGE_THRESHOLD
            for x in (truth, *predictions.values())
        ]
    ).any(0)
    flat = rearrange(changed.float(), "... H W -> (...) 1 H W")
    dilated = torch.nn.functional.max_pool2d(flat, 3, stride=1, padding=1)
    return dilated.bool().reshape(changed.shape)


def masked_psnr(
    truth: UInt8[Tensor, "*b H W 3"],
    predictions: Mapping[str, UInt8[Tensor, "*b H W 3"]],
    last_context: UInt8[Tensor, "*b H W 3"],
) -> dict[str, Float32[Tensor, "*b"]]:
    """PSNR of each model over the pixels of `change_mask`, the same ones for all the models.

    Args:
        truth: Recorded frames.
        predictions: Predicted frames by model name.
        last_context: The last frame the models were shown, for each predicted frame.

    Returns:
        By model name, in dB; NaN where nothing changed.
    """
    mask = change_mask(truth, predictions, last_context)
    pixels = reduce(mask.float(), "... H W -> ...", "sum")
    values = {}
    for name, prediction in predictions.items():
        error = reduce(squared_error(prediction, truth), "... H W c -> ... H W", "mean")
        masked = reduce(error * mask, "... H W -> ...", "sum") / pixels
        values[name] = decibel(masked)
    return values


class Lpips:
    """Learned perceptual distance (Zhang et al. 2018) with the AlexNet trunk; 0 is identical.

    The trunk's ImageNet weights come from the torch hub cache and are never downloaded here: check
    `missing_reason` first.
    """

    def __init__(self, device: torch.device | str = "cpu"):
        reason = self.missing_reason()
        if reason is not None:
            raise ValueError(reason)
        from lpips import LPIPS

        with warnings.catch_warnings():  # lpips still uses torchvision's old `pretrained`
            warnings.simplefilter("ignore", UserWarning)
            self._network = LPIPS(net="alex", verbose=False).to(device)
        self._device = device

    @classmethod
    def trunk_path(cls) -> Path:
        """The file in which the AlexNet weights are expected."""
        file_name = cls._trunk_url().rsplit("/", 1)[1]
        return Path(torch.hub.get_dir()) / "checkpoints" / file_name

    @classmethod
    def missing_reason(cls) -> str | None:
        """Why LPIPS cannot be measured, and what to do about it; `None` when it can."""
        path, url = cls.trunk_path(), cls._trunk_url()
        if path.exists():
            return None
        if path.is_relative_to(Path.home()):  # reports carry this line, and are shared
            path = "~" / path.relative_to(Path.home())
        return f"LPIPS is left out: its AlexNet trunk is missing; download {url} to {path}"

    @staticmethod
    def _trunk_url() -> str:
        from torchvision.models import AlexNet_Weights

        return AlexNet_Weights.IMAGENET1K_V1.url

    @torch.no_grad()
    def __call__(
        self, prediction: UInt8[Tensor, "*b H W 3"], truth: UInt8[Tensor, "*b H W 3"]
    ) -> Float32[Tensor, "*b"]:
        """Distance of each frame.

        Raises:
            ValueError: The frames are too small for the network.
        """
        if min(truth.shape[-3:-1]) < LPIPS_MIN_SIDE:
            size = "x".join(str(side) for side in truth.shape[-3:-1])
            raise ValueError(f"LPIPS needs {LPIPS_MIN_SIDE} pixels a side, the frames are {size}")
        pictures = [rearrange(unit(x.to(self._device)), "... H W c -> (...) c H W") for x in (prediction, truth)]
        distance = self._network(*pictures, normalize=True)
        return distance.reshape(truth.shape[:-3]).to(truth.device)
