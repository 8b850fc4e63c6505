"""Convolutional stem and head for streaming, with channels last and nothing computed twice.

The head joins the tokens on their way up with feature maps of the current frame. A 1x1 convolution
of a concatenation is a sum of two linear maps: the one of the maps is computed once per frame, not
once per denoising step, and the other before the pixels are shuffled, on a quarter of the rows.
"""

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from worldmodel.pixels import ConvHead, ConvStem


def shuffled_matrix(weight: Float[Tensor, "o c"]) -> Float[Tensor, "four_o four_c"]:
    """The linear map before `F.pixel_shuffle(x, 2)` that equals `weight` after it.

    Columns are the channels before the shuffle; rows are `(row, column, output channel)`.
    """
    identity = torch.eye(4, device=weight.device)
    blocks = weight[None, :, :, None] * identity[:, None, None, :]
    return rearrange(blocks, "q o c p -> (q o) (c p)")


def paired_convolution(weight: Float[Tensor, "o i 3 3"]) -> Float[Tensor, "four_o i 4 4"]:
    """A 4x4 convolution of stride 2 whose channels are the 2x2 pixels of a 3x3 convolution.

    Four times the outputs of a thin convolution fill the vector units; its channels are `(row,
    column, output channel)`.
    """
    outputs, inputs = weight.shape[:2]
    wide = weight.new_zeros(2, 2, outputs, inputs, 4, 4)
    for row in range(2):
        for column in range(2):
            wide[row, column, :, :, row : row + 3, column : column + 3] = weight
    return wide.flatten(0, 2)


class FoldedStem:
    """`ConvStem` with weights cast once."""

    def __init__(self, stem: ConvStem, dtype: torch.dtype):
        self.stages = [_cast(stage, dtype) for stage in stem.stages]
        self.dtype = dtype

    def __call__(
        self, latent: Float[Tensor, "f c h w"]
    ) -> tuple[Float[Tensor, "f l d"], list[Float[Tensor, "f ..."]]]:
        """Tokens of a latent and the feature maps they came through, finest first."""
        x = latent.to(self.dtype, memory_format=torch.channels_last)
        maps = []
        for weight, bias in self.stages[:-1]:
            x = F.silu(F.conv2d(x, weight, bias, stride=2, padding=1), inplace=True)
            maps.append(x.permute(0, 2, 3, 1))
        x = F.conv2d(x, *self.stages[-1], stride=2, padding=1)
        return x.permute(0, 2, 3, 1).flatten(1, 2), maps


@dataclass(frozen=True)
class HeadStage:
    """One doubling of the resolution.

    Attributes:
        up: Of the coarse map, before the pixel shuffle.
        skip, skip_bias: Of what is joined.
        weight, bias: The 3x3 convolution.
    """

    up: Float[Tensor, "four_o c"]
    skip: Float[Tensor, "o s"]
    skip_bias: Float[Tensor, "o"]
    weight: Float[Tensor, "o o 3 3"]
    bias: Float[Tensor, "o"]


class FoldedHead:
    """`ConvHead` in two parts: once per frame, and once per denoising step."""

    def __init__(self, head: ConvHead, width: int, dtype: torch.dtype):
        self.stages, self.dtype, self.reference = [], dtype, head.reference
        channels, coming = head.last.out_channels, width
        for merge, convolution in zip(head.merges, head.convolutions, strict=True):
            weight = merge.weight[:, :, 0, 0]
            up, skip = shuffled_matrix(weight[:, : coming // 4]), weight[:, coming // 4 :]
            if merge is head.merges[-1]:  # current, noisy, reference
                self.noisy = shuffled_matrix(skip[:, channels : 2 * channels]).to(dtype)
                skip = torch.cat([skip[:, :channels], skip[:, 2 * channels :]], dim=1)
            parts = up.to(dtype), skip.to(dtype).contiguous(), merge.bias.to(dtype)
            self.stages.append(HeadStage(*parts, *_cast(convolution, dtype)))
            coming = convolution.out_channels
        weight = paired_convolution(head.last.weight)
        self.last = weight.to(dtype, memory_format=torch.channels_last)
        self.last_bias = head.last.bias.repeat(4).to(dtype)

    def skips(
        self, maps: list[Float[Tensor, "f ..."]], current: Float[Tensor, "f c h w"],
        reference: Float[Tensor, "f c h w"],
    ) -> list[Float[Tensor, "f ..."]]:  # fmt: skip
        """What each stage joins, coarse to fine; once per frame."""
        *coarse, finest = self.stages
        pictures = torch.cat([current, reference], dim=1) if self.reference else current
        pictures = pictures.to(self.dtype, memory_format=torch.channels_last)
        joined = zip(coarse, reversed(maps), strict=True)
        skips = [F.linear(each, stage.skip, stage.skip_bias) for stage, each in joined]
        # Few channels in many places: a convolution is faster than a matrix product.
        full = F.conv2d(pictures, finest.skip[:, :, None, None], finest.skip_bias)
        return [*skips, full.permute(0, 2, 3, 1)]

    def __call__(
        self, tokens: Float[Tensor, "f y x d"], skips: list[Float[Tensor, "f ..."]],
        current: Float[Tensor, "f c h w"], noisy: Float[Tensor, "f c h w"] | None,
    ) -> Float[Tensor, "f c h w"]:  # fmt: skip
        """The clean next latent; `noisy` is multiplied by tau already, `None` where that is 0."""
        x = tokens
        for stage, skip in zip(self.stages, skips, strict=True):
            up = F.linear(x, stage.up)
            if stage is self.stages[-1] and noisy is not None:
                patches = rearrange(
                    noisy.to(self.dtype), "f c (h p) (w q) -> f h w (c p q)", p=2, q=2
                )
                up.view(-1, up.shape[-1]).addmm_(patches.flatten(0, 2), self.noisy.t())
            shuffled = rearrange(up, "f h w (p q o) -> f h p w q o", p=2, q=2)
            grid = rearrange(skip, "f (h p) (w q) o -> f h p w q o", p=2, q=2)
            joined = F.silu(torch.add(grid, shuffled).view_as(skip), inplace=True)
            y = F.conv2d(joined.permute(0, 3, 1, 2), stage.weight, stage.bias, padding=1)
            x = F.silu(y, inplace=True).permute(0, 2, 3, 1)
        residual = F.conv2d(x.permute(0, 3, 1, 2), self.last, self.last_bias, stride=2, padding=1)
        return current + rearrange(residual, "f (p q c) h w -> f c (h p) (w q)", p=2, q=2)


def _cast(layer: nn.Conv2d, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    weight = layer.weight.to(dtype, memory_format=torch.channels_last)
    return weight, layer.bias.to(dtype)
