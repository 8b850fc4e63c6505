"""The peak speed of the hardware: arithmetic of one step, and the fastest matrix product of this device."""

import copy
import time
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from worldmodel.streaming.onednn import ONEDNN
from worldmodel.streaming.stream import Stream
from worldmodel.world_model import WorldModel

GEMM_SIZES = {"cpu": (256, 512, 1024, 2048), "gpu": (2048, 4096, 8192)}


def count_flops(function: Callable[[], object]) -> int:
    """Floating point operations of the matrix products, attentions and convolutions of a call."""
    formulas = {torch.ops.aten.addmm_: _product_in_place}
    if torch.backends.mkldnn.is_available():
        formulas |= {ONEDNN._linear_pointwise: _packed_product, ONEDNN._convolution_pointwise: _packed_convolution}
    with FlopCounterMode(display=False, custom_mapping=formulas) as counter:
        function()
    return counter.get_total_flops()


def _product_in_place(summed: torch.Size, a: torch.Size, b: torch.Size, **named: object) -> int:
    return 2 * a[0] * a[1] * b[1]


def _packed_product(x: torch.Size, *others: object, out_shape: torch.Size, **named: object) -> int:
    """Counted as PyTorch counts a plain product."""
    return 2 * x[-1] * out_shape.numel()


def _packed_convolution(x: torch.Size, *others: object, out_shape: torch.Size, **named: object) -> int:
    """Counted as PyTorch counts a plain convolution; a summand comes before the weight."""
    weight = [s for s in others if isinstance(s, torch.Size) and len(s) == 4][-1]
    return conv_flop_count(list(x), list(weight), list(out_shape))


def step_flops(stream: Stream, actions: Float[Tensor, "b a"] | None, num_steps: int) -> int:
    """Floating point operations of one step of all streams; the streams are not advanced.

    The engine pads its matrices with zeros, which should not count. So a step needs the smaller one
    of two numbers: the operations of the engine, and those of the modules that it replaces.
    """
    ways = [Stream(world, stream.snapshot().state) for world in (stream.world, plainly(stream.world))]
    return min(count_flops(lambda way=way: way.step(actions, num_steps=num_steps)) for way in ways)


def plainly(world: WorldModel) -> WorldModel:
    """The same world model with the same weights, which streams with the modules themselves."""
    other = copy.copy(world)
    other.fast = False
    return other


def best_gemm(
    device: torch.device,
    dtype: torch.dtype,
    *,
    sizes: Sequence[int] | None = None,
    seconds: float = 0.3,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Floating point operations per second of the fastest square matrix product.

    Main arguments: `device` and `dtype`.
    Other arguments: `sizes` to try (by default those that fill the device), `seconds` for each, and
    the `clock` to count them by.
    """
    best = 0.0
    for size in sizes or GEMM_SIZES["cpu" if device.type == "cpu" else "gpu"]:
        a = torch.randn(size, size, device=device).to(dtype)
        a @ a
        until = clock() + seconds
        while clock() < until:
            synchronize(device)
            begin = clock()
            a @ a
            synchronize(device)
            best = max(best, 2 * size**3 / (clock() - begin))
    return best


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done its work; a CPU has done it already."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
