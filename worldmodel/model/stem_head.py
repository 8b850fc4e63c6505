"""Map latents to tokens and back: a convolutional stem and head, and plain patches for comparison."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

STAGE_CHANNELS = (16, 24, 64, 128)  # full, half, quarter, eighth resolution


@dataclass(frozen=True)
class StemOutput:
    """Tokens of a latent, and the feature maps between latent and tokens, finest first."""

    tokens: Float[Tensor, "f l d"]
    maps: tuple[Float[Tensor, "f ..."], ...]


class ConvStem(nn.Module):
    """Stride-2 convolutions down to the token grid; keeps the maps in between for the head."""

    def __init__(self, channels: int, width: int, num_stages: int):
        super().__init__()
        sizes = (channels, *STAGE_CHANNELS[1:num_stages], width)
        self.stages = nn.ModuleList(nn.Conv2d(i, o, 4, stride=2, padding=1) for i, o in pairwise(sizes))

    def forward(self, latent: Float[Tensor, "f c h w"]) -> StemOutput:
        """Encode latents, one per view and frame."""
        x, maps = self.stages[0](latent.contiguous(memory_format=torch.channels_last)), []
        for stage in self.stages[1:]:
            x = F.silu(x)
            maps.append(x)
            x = stage(x)
        return StemOutput(rearrange(x, "f d h w -> f (h w) d"), tuple(maps))


class ConvHead(nn.Module):
    """Map tokens to a latent; every stage also gets the stem's feature map of the current frame.

    The result is a residual on the current frame, zero at initialisation. With `reference` the head
    also sees the first frame of the stream at full resolution.
    """

    def __init__(self, channels: int, width: int, num_stages: int, *, reference: bool = False):
        super().__init__()
        self.reference = reference
        self.merges, self.convolutions = nn.ModuleList(), nn.ModuleList()
        coming = width
        for stage in reversed(range(num_stages)):
            skip = STAGE_CHANNELS[stage] if stage else (3 if reference else 2) * channels
            out = STAGE_CHANNELS[stage]
            self.merges.append(nn.Conv2d(coming // 4 + skip, out, 1))
            self.convolutions.append(nn.Conv2d(out, out, 3, padding=1))
            coming = out
        self.last = nn.Conv2d(coming, channels, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(
        self,
        tokens: Float[Tensor, "f l d"],
        stem: StemOutput,
        current: Float[Tensor, "f c h w"],
        noisy: Float[Tensor, "f c h w"],
        reference: Float[Tensor, "f c h w"],
    ) -> Float[Tensor, "f c h w"]:
        """Predict the clean next latent."""
        grid_height = current.shape[-2] >> len(self.merges)
        x = rearrange(tokens, "f (h w) d -> f d h w", h=grid_height)
        pictures = torch.cat([current, noisy, *([reference] if self.reference else [])], dim=1)
        skips = [*reversed(stem.maps), pictures.contiguous(memory_format=torch.channels_last)]
        for merge, convolution, skip in zip(self.merges, self.convolutions, skips, strict=True):
            x = torch.cat([F.pixel_shuffle(x, 2), skip.to(x.dtype)], dim=1)
            x = F.silu(convolution(F.silu(merge(x))))
        return current + self.last(x)


class PatchStem(nn.Module):
    """Plain linear patches (DiT)."""

    def __init__(self, channels: int, width: int, num_stages: int):
        super().__init__()
        self.patch = 2**num_stages
        self.project = nn.Linear(channels * self.patch**2, width)

    def forward(self, latent: Float[Tensor, "f c h w"]) -> StemOutput:
        """Encode latents, one per view and frame."""
        pattern = "f c (h p) (w q) -> f (h w) (c p q)"
        patches = rearrange(latent, pattern, p=self.patch, q=self.patch)
        return StemOutput(self.project(patches), ())


class PatchHead(nn.Module):
    """Map tokens to plain linear patches (DiT), without skips; zero at initialisation."""

    def __init__(self, channels: int, width: int, num_stages: int, *, reference: bool = False):
        super().__init__()
        self.patch = 2**num_stages
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, channels * self.patch**2)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(
        self,
        tokens: Float[Tensor, "f l d"],
        stem: StemOutput,
        current: Float[Tensor, "f c h w"],
        noisy: Float[Tensor, "f c h w"],
        reference: Float[Tensor, "f c h w"],
    ) -> Float[Tensor, "f c h w"]:
        """Predict the clean next latent."""
        patches = self.project(self.norm(tokens))
        pattern = "f (h w) (c p q) -> f c (h p) (w q)"
        height = current.shape[-2] // self.patch
        return rearrange(patches, pattern, h=height, p=self.patch, q=self.patch)
