"""Fidelity to the recording on every camera (PersistWorld, 2603.25685), as rewards of imagined rollouts."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from einops import rearrange, reduce
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from rl_posttrain.rewards.credit import Credit, Values, numbers
from rl_posttrain.rewards.reward import Rollout
from worldmodel.data.clip import Clip
from worldmodel.fidelity.metrics import change_mask, ssim, valid_region
from worldmodel.model.psnr import MSE_FLOOR, psnr

Distance = Callable[[UInt8[Tensor, "*b H W 3"], UInt8[Tensor, "*b H W 3"]], Float[Tensor, "*b"]]
"""Perceptual distance of pictures, 0 for equal ones; `worldmodel.fidelity.metrics.Lpips` is one."""
Pictures = UInt8[Tensor, "b t H W 3"]
"""Frames of one camera."""


@dataclass(frozen=True)
class Fidelity:
    """`-LPIPS + SSIM + PSNR / 32`, the mean over frames, then over the cameras that are there.

    PersistWorld's reward. Without LPIPS weights it is SSIM + PSNR / 32. Of a cell it is `PSNR / 32` of the cell's
    mean square error plus the mean of the SSIM map there; LPIPS, which has no cells, is that of the frame.

    Attributes:
        lpips: The distance, or `None`.
        credit: How fine the map is; `clip` for one number.
        cell: Side of a cell in pixels, for the credit `cell`.
    """

    lpips: Distance | None = None
    credit: Credit = "clip"
    cell: int = 8

    def __call__(self, rollout: Rollout) -> Values:
        """Scores, higher is better; about 1 at 25 dB. A map of frames and cameras, or of cells, if the credit is finer.

        Raises:
            ValueError: The cells do not fill the frames.
        """
        frames, truth = rollout.imagined.frames[:, 1:], rollout.reference.frames[:, 1:]
        of_views = self._cells if self.credit == "cell" else self._frames
        mask = rollout.reference.pixel_mask
        scores = []
        for view in range(frames.shape[2]):
            pair = [x[:, :, view] for x in (frames, truth)]
            score = of_views(*pair, None if mask is None else mask[0, view])
            scores.append(score if self.lpips is None else score - self._distance(*pair, mask, view))
        values = torch.stack(scores, dim=2)
        return numbers(values, rollout.reference) if self.credit == "clip" else values

    def _frames(self, frames: Pictures, truth: Pictures, mask: Bool[Tensor, "H W"] | None) -> Float[Tensor, "b t 1 1"]:
        """Of whole frames of one camera, without padding."""
        pair = _valid(frames, truth, mask)
        return (ssim(*pair) + psnr(*pair) / 32)[..., None, None]

    def _cells(self, frames: Pictures, truth: Pictures, mask: Bool[Tensor, "H W"] | None) -> Float[Tensor, "b t h w"]:
        """Of the cells of one camera; padding is the same in both."""
        height, width = frames.shape[2:4]
        if height % self.cell or width % self.cell:
            raise ValueError(f"cell={self.cell}: frames of {height} x {width} cannot be divided into such cells")
        if mask is not None:
            frames, truth = (x * mask[..., None] for x in (frames, truth))
        error = ((frames.float() - truth.float()) / 255).square()
        error = reduce(error, "b t (h p) (w q) c -> b t h w", "mean", p=self.cell, q=self.cell)
        structure = reduce(ssim_map(frames, truth), "b t (h p) (w q) -> b t h w", "mean", p=self.cell, q=self.cell)
        return structure - 10 * error.clamp_min(MSE_FLOOR).log10() / 32

    def _distance(
        self, frames: Pictures, truth: Pictures, mask: Bool[Tensor, "b v H W"] | None, view: int
    ) -> Float[Tensor, "b t 1 1"]:
        return self.lpips(*_valid(frames, truth, None if mask is None else mask[0, view]))[..., None, None]


def _valid(frames: Pictures, truth: Pictures, mask: Bool[Tensor, "H W"] | None) -> list[UInt8[Tensor, "b t h w 3"]]:
    """Both without padding."""
    rows, columns = (slice(None),) * 2 if mask is None else valid_region(mask)
    return [x[:, :, rows, columns] for x in (frames, truth)]


def ssim_map(frames: Pictures, truth: Pictures) -> Float[Tensor, "b t H W"]:
    """Structural similarity around every pixel, the mean over the colours; see `ssim`."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    pictures = [rearrange(x.float() / 255, "b t h w c -> (b t) c h w") for x in (frames, truth)]
    _, values = structural_similarity_index_measure(*pictures, data_range=1.0, reduction="none", return_full_image=True)
    return reduce(values, "(b t) c h w -> b t h w", "mean", b=len(frames))


def mean_over_views(values: Float[Tensor, "b v"], clip: Clip) -> Float[Tensor, "b"]:
    """The mean over the cameras that are there."""
    if clip.view_mask is None:
        return values.mean(dim=1)
    return (values * clip.view_mask).sum(dim=1) / clip.view_mask.sum(dim=1).clamp(min=1)


def moving_fidelity(rollout: Rollout) -> Float[Tensor, "b"]:
    """PSNR where something moves, in dB, the mean over the cameras that are there.

    The error is measured in the `change_mask` of recording and dream against the recorded frame at
    which the dream begins, so a small object weighs as much as a large background. The squared error in it,
    over all frames, is divided by the area that changes in the recording alone: a masked PSNR would
    rise with every faint change that a dream invents, because they dilute the other errors. 50 dB
    where nothing changes.
    """
    frames, truth = rollout.imagined.frames[:, 1:], rollout.reference.frames[:, 1:]
    start, padding = rollout.reference.frames[:, :1].expand_as(truth), rollout.reference.pixel_mask
    moving, counted = (change_mask(truth, x, start) for x in ({}, {"dream": frames}))
    if padding is not None:
        counted = counted & padding[:, None]
    error = ((frames.float() - truth.float()) / 255).square().mean(dim=-1) * counted
    area = moving.sum(dim=(1, 3, 4)).clamp(min=1)
    decibel = -10 * (error.sum(dim=(1, 3, 4)) / area).clamp_min(MSE_FLOOR).log10()
    return mean_over_views(decibel, rollout.reference)
