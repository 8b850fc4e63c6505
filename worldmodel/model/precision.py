"""Number formats: bf16 where the hardware computes in it, fp32 elsewhere."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar

import torch

_full: ContextVar[bool] = ContextVar("full precision", default=False)


@contextmanager
def full_precision() -> Iterator[None]:
    """Compute in fp32 inside, whatever the hardware: slower, to compare with."""
    token = _full.set(True)
    try:
        yield
    finally:
        _full.reset(token)


def compute_dtype(device: torch.device | str) -> torch.dtype:
    """bf16 on CUDA devices and CPUs that have bf16 arithmetic, else fp32 (there bf16 is slower).

    Inside `full_precision` it is fp32.
    """
    kind = torch.device(device).type
    if _full.get():
        fast = False
    elif kind == "cuda":
        fast = torch.cuda.is_bf16_supported()
    elif kind == "cpu":
        fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    else:
        fast = False
    return torch.bfloat16 if fast else torch.float32


def autocast(device: torch.device | str) -> AbstractContextManager:
    """Autocast to `compute_dtype(device)`."""
    kind, dtype = torch.device(device).type, compute_dtype(device)
    return torch.autocast(kind, dtype=dtype, enabled=dtype != torch.float32)


def default_device() -> torch.device:
    """CUDA when there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
