"""Convolutional stem and head for streaming, with channels last and nothing computed twice.

Every stage of the head concatenates upsampled tokens and a feature map of the current frame, and
applies a 1x1 convolution. This is a sum of two linear maps: the one of the feature map is computed
once per frame, not once per denoising step, and the one of the tokens before the pixel shuffle, on
a quarter of the rows. So the channels of both are the 2x2 pixels of a place, and the pixels are
shuffled once, after the sum.
"""

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from worldmodel.model.stem_head import ConvHead, ConvStem
from worldmodel.streaming.onednn import Convolution, Matrix


def shuffled_matrix(weight: Float[Tensor, "o c"]) -> Float[Tensor, "four_o four_c"]:
    """The linear map before `F.pixel_shuffle(x, 2)` that equals `weight` after it.

    Columns are the channels before the shuffle; rows are `(row, column, output channel)`.
    """
    identity = torch.eye(4, device=weight.device)
    blocks = weight[None, :, :, None] * identity[:, None, None, :]
    return rearrange(blocks, "q o c p -> (q o) (c p)")


def paired_convolution(weight: Float[Tensor, "o i 3 3"]) -> Float[Tensor, "four_o i 4 4"]:
    """A 4x4 convolution of stride 2 whose channels are the 2x2 pixels of a 3x3 convolution.

    A convolution with few output channels does not fill the vector units, one with four times as
    many does. The channels are `(row, column, output channel)`.
    """
    outputs, inputs = weight.shape[:2]
    wide = weight.new_zeros(2, 2, outputs, inputs, 4, 4)
    for row in range(2):
        for column in range(2):
            wide[row, column, :, :, row : row + 3, column : column + 3] = weight
    return wide.flatten(0, 2)


def gathered_convolution(weight: Float[Tensor, "o i"]) -> Float[Tensor, "four_o i 2 2"]:
    """A 2x2 convolution of stride 2 whose channels are the 2x2 pixels of a linear map."""
    outputs, inputs = weight.shape
    wide = weight.new_zeros(2, 2, outputs, inputs, 2, 2)
    for row in range(2):
        for column in range(2):
            wide[row, column, :, :, row, column] = weight
    return wide.flatten(0, 2)


class GatheredMatrix:
    """A strided convolution of many channels on a small map, as one matrix product.

    oneDNN has no fast kernel for it on some processors, where it took 40% of the time of a frame.

    Args:
        convolution: 4x4 with stride 2 and padding 1, as in `ConvStem`.
        dtype: Number format of the weights.
    """

    def __init__(self, convolution: nn.Conv2d, dtype: torch.dtype):
        self.matrix = Matrix(rearrange(convolution.weight, "o i p q -> o (p q i)").to(dtype))
        self.bias = convolution.bias.to(dtype)

    def __call__(self, x: Float[Tensor, "f h w i"]) -> Float[Tensor, "f y x o"]:
        """The convolution."""
        windows = F.pad(x, (0, 0, 1, 1, 1, 1)).unfold(1, 4, 2).unfold(2, 4, 2)
        return self.matrix(rearrange(windows, "f y x i p q -> f y x (p q i)")) + self.bias


class FoldedStem:
    """`ConvStem` with prepared weights."""

    def __init__(self, stem: ConvStem, dtype: torch.dtype):
        *fine, coarsest = stem.stages
        self.stages = [Convolution(stage.weight, stage.bias, dtype, stride=2, padding=1) for stage in fine]
        self.stages.append(GatheredMatrix(coarsest, dtype))

    def __call__(
        self, latent: Float[Tensor, "f h w c"]
    ) -> tuple[Float[Tensor, "f y x d"], list[Float[Tensor, "f ..."]]]:
        """Tokens of a latent, and the feature maps between latent and tokens, finest first."""
        x, maps = latent, []
        for stage in self.stages[:-1]:
            x = F.silu(stage(x), inplace=True)
            maps.append(x)
        return self.stages[-1](x), maps


@dataclass(frozen=True)
class HeadStage:
    """One doubling of the resolution.

    Attributes:
        up: Matrix for the coarse map, applied before the pixel shuffle.
        skip: Convolution of the feature map that is added, with channels in the same order.
        convolution: Convolution after the shuffle.
    """

    up: Matrix
    skip: Convolution
    convolution: Convolution


class FoldedHead:
    """`ConvHead` in two parts: once per frame, and once per denoising step."""

    def __init__(self, head: ConvHead, width: int, dtype: torch.dtype):
        self.stages, self.reference = [], head.reference
        channels, coming = head.last.out_channels, width
        for merge, convolution in zip(head.merges, head.convolutions, strict=True):
            weight = merge.weight[:, :, 0, 0]
            up, skip = shuffled_matrix(weight[:, : coming // 4]), weight[:, coming // 4 :]
            if merge is head.merges[-1]:  # current, noisy, reference
                noisy = gathered_convolution(skip[:, channels : 2 * channels])
                self.noisy = Convolution(noisy, None, dtype, stride=2)
                skip = torch.cat([skip[:, :channels], skip[:, 2 * channels :]], dim=1)
            self.stages.append(
                HeadStage(
                    Matrix(up.to(dtype)),
                    Convolution(gathered_convolution(skip), merge.bias.repeat(4), dtype, stride=2),
                    Convolution(convolution.weight, convolution.bias, dtype, padding=1),
                )
            )
            coming = convolution.out_channels
        last = paired_convolution(head.last.weight), head.last.bias.repeat(4)
        self.last = Convolution(*last, dtype, stride=2, padding=1)

    def skips(
        self, maps: list[Float[Tensor, "f ..."]], current: Float[Tensor, "f h w c"], reference: Float[Tensor, "f h w c"]
    ) -> list[Float[Tensor, "f ..."]]:
        """The term that each stage adds, coarse to fine; computed once per frame."""
        pictures = torch.cat([current, reference], dim=-1) if self.reference else current
        joined = zip(self.stages, [*reversed(maps), pictures], strict=True)
        return [stage.skip(each) for stage, each in joined]

    def __call__(
        self,
        tokens: Float[Tensor, "f y x d"],
        skips: list[Float[Tensor, "f ..."]],
        current: Float[Tensor, "f c h w"],
        noisy: Float[Tensor, "f h w c"] | None,
    ) -> Float[Tensor, "f c h w"]:
        """The clean next latent; `noisy` is already multiplied by tau, and `None` where tau is 0."""
        x = tokens
        for stage, skip in zip(self.stages, skips, strict=True):
            if stage is self.stages[-1] and noisy is not None:
                skip = self.noisy.plus(noisy, skip)
            joined = rearrange(
                F.silu(stage.up.plus(x, skip), inplace=True), "f h w (p q o) -> f (h p) (w q) o", p=2, q=2
            )
            x = F.silu(stage.convolution(joined), inplace=True)
        # Channels last, the layout in which the next frame is read.
        clean = torch.empty_like(current, memory_format=torch.channels_last)
        shuffled = "f c (h p) (w q) -> f h w p q c"
        residual = rearrange(self.last(x), "f h w (p q c) -> f h w p q c", p=2, q=2)
        now, out = (rearrange(each, shuffled, p=2, q=2) for each in (current, clean))
        torch.add(now, residual, out=out)
        return clean
