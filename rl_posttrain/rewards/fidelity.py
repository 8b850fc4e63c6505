"""Fidelity to the recording on every camera (PersistWorld, 2603.25685), as rewards of imagined rollouts.

A reward is a callable from a `Rollout` to one number per candidate.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from rl_posttrain.rewards.reward import Rollout
from worldmodel.data.clip import Clip
from worldmodel.fidelity.metrics import MSE_FLOOR, change_mask, psnr, ssim, valid_region

Distance = Callable[[UInt8[Tensor, "*b H W 3"], UInt8[Tensor, "*b H W 3"]], Float[Tensor, "*b"]]
"""Perceptual distance of pictures, 0 for equal ones; `worldmodel.fidelity.metrics.Lpips` is one."""


@dataclass(frozen=True)
class Fidelity:
    """`-LPIPS + SSIM + PSNR / 32`, the mean over frames, then over the cameras that are there.

    PersistWorld's reward. Without LPIPS weights it is SSIM + PSNR / 32.

    Attributes:
        lpips: The distance, or `None`.
    """

    lpips: Distance | None = None

    def __call__(self, rollout: Rollout) -> Float[Tensor, "b"]:
        """Scores, higher is better; about 1 at 25 dB."""
        frames, truth = rollout.imagined.frames[:, 1:], rollout.reference.frames[:, 1:]
        mask, scores = rollout.reference.pixel_mask, []
        for view in range(frames.shape[2]):
            rows, columns = (slice(None),) * 2 if mask is None else valid_region(mask[0, view])
            pair = [x[:, :, view, rows, columns] for x in (frames, truth)]
            score = ssim(*pair) + psnr(*pair) / 32
            if self.lpips is not None:
                score = score - self.lpips(*pair)
            scores.append(score.mean(dim=1))
        return mean_over_views(torch.stack(scores, dim=1), rollout.reference)


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
