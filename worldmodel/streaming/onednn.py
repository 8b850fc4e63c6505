"""Matrices and convolutions with fixed weights, in the layout that the hardware reads.

oneDNN would change the layout of a bf16 weight at every call, which takes as long as the product
itself when a frame has few rows. Here it happens once, and the operation after a product is fused
into it. In fp32 and on other devices the plain operators run.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

ONEDNN = torch.ops.mkldnn  # fused operators, as torch.compile uses them


def packs(weight: Tensor) -> bool:
    """Whether this weight is packed for oneDNN."""
    cpu = weight.device.type == "cpu" and torch.backends.mkldnn.is_available()
    return cpu and weight.dtype == torch.bfloat16 and ONEDNN._is_mkldnn_bf16_supported()


class Matrix:
    """A linear map without bias.

    Args:
        weight: Kept as it is or packed.
    """

    def __init__(self, weight: Float[Tensor, "o i"]):
        self.packed, self.weight = packs(weight), weight.contiguous()
        if self.packed:
            self.weight = ONEDNN._reorder_linear_weight(self.weight)

    def __call__(self, x: Float[Tensor, "*b i"]) -> Float[Tensor, "*b o"]:
        """The product."""
        if not self.packed:
            return F.linear(x, self.weight)
        return ONEDNN._linear_pointwise(x, self.weight, None, "none", [], "")

    def gelu(self, x: Float[Tensor, "*b i"]) -> Float[Tensor, "*b o"]:
        """GELU of the product."""
        if not self.packed:
            return F.gelu(F.linear(x, self.weight))
        return ONEDNN._linear_pointwise(x, self.weight, None, "gelu", [], "none")

    def plus(self, x: Float[Tensor, "*b i"], y: Float[Tensor, "*b o"]) -> Float[Tensor, "*b o"]:
        """`y` plus the product."""
        if not self.packed:
            return torch.addmm(y.flatten(0, -2), x.flatten(0, -2), self.weight.t()).view_as(y)
        return ONEDNN._linear_pointwise.binary(x, y, self.weight, None, "add")


class Convolution:
    """A convolution of maps in channels-last order.

    Args:
        weight: Kept as it is or packed.
        bias: Of every output channel.
        dtype: Number format of both.
        stride: In pixels.
        padding: Zeros around the map.
    """

    def __init__(
        self,
        weight: Float[Tensor, "o i k k"],
        bias: Float[Tensor, "o"] | None,
        dtype: torch.dtype,
        *,
        stride: int = 1,
        padding: int = 0,
    ):
        self.weight = weight.to(dtype, memory_format=torch.channels_last)
        self.bias = None if bias is None else bias.to(dtype)
        self.packed, self.stride, self.padding = packs(self.weight), stride, padding
        self.geometry = [padding, padding], [stride, stride], [1, 1], 1
        if self.packed:
            self.weight = ONEDNN._reorder_convolution_weight(self.weight, *self.geometry, None)

    def __call__(self, x: Float[Tensor, "f h w i"]) -> Float[Tensor, "f y x o"]:
        """The convolution."""
        x = x.permute(0, 3, 1, 2)
        if self.packed:
            y = ONEDNN._convolution_pointwise(x, self.weight, self.bias, *self.geometry, "none", [], "")
        else:
            y = F.conv2d(x, self.weight, self.bias, stride=self.stride, padding=self.padding)
        return y.permute(0, 2, 3, 1)

    def plus(self, x: Float[Tensor, "f h w i"], y: Float[Tensor, "f y x o"]) -> Float[Tensor, "f y x o"]:
        """`y` plus the convolution."""
        if not self.packed:
            return self(x).add_(y)
        x, y = x.permute(0, 3, 1, 2), y.permute(0, 3, 1, 2)
        z = ONEDNN._convolution_pointwise.binary(
            x, y, self.weight, self.bias, *self.geometry, "add", None, None, [], None
        )
        return z.permute(0, 2, 3, 1)
