"""Frames disturbed as dreams disturb them, so that a judge that learned from real frames can look at dreams."""

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.nn.functional import avg_pool2d


def disturb(frames: UInt8[Tensor, "n v H W 3"], generator: torch.Generator) -> UInt8[Tensor, "n v H W 3"]:
    """Imitate what dreams do to pictures: half of them are smoothed; all get noise and another brightness."""
    number, views = frames.shape[:2]
    pictures = frames.flatten(0, 1).permute(0, 3, 1, 2).float()
    smooth = avg_pool2d(pictures, 3, stride=1, padding=1, count_include_pad=False)
    mix = torch.rand(number, generator=generator) * (torch.rand(number, generator=generator) < 0.5)
    mix = mix.repeat_interleave(views)[:, None, None, None]
    sigma = 8 * torch.rand(len(pictures), 1, 1, 1, generator=generator)
    shade = 6 * torch.randn(len(pictures), 1, 1, 1, generator=generator)
    noise = torch.randn(pictures.shape, generator=generator)
    pictures = (1 - mix) * pictures + mix * smooth + sigma * noise + shade
    return pictures.clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).unflatten(0, (number, views))
