"""Number formats: bf16 where the hardware computes in it, fp32 elsewhere."""

from contextlib import AbstractContextManager

import torch

NARROW_KINDS = ("cuda", "cpu")
"""Kinds of devices that compute in bf16 where their hardware can; all others compute in fp32."""


def compute_dtype(device: torch.device | str) -> torch.dtype:
    """bf16 on CUDA devices and CPUs that have bf16 arithmetic, else fp32 (there bf16 is slower)."""
    kind = torch.device(device).type
    fast = kind in NARROW_KINDS and _has_bf16(kind)
    return torch.bfloat16 if fast else torch.float32


def _has_bf16(kind: str) -> bool:
    if kind == "cuda":
        return torch.cuda.is_bf16_supported()
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def autocast(device: torch.device | str) -> AbstractContextManager:
    """Autocast to `compute_dtype(device)`."""
    kind, dtype = torch.device(device).type, compute_dtype(device)
    return torch.autocast(kind, dtype=dtype, enabled=dtype != torch.float32)


def default_device() -> torch.device:
    """CUDA when there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
