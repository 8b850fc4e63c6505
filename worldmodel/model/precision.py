"""The device on which a command runs its networks, and their number format: bf16 where the device has it."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from functools import cache

import torch

_full: ContextVar[bool] = ContextVar("full precision", default=False)


@contextmanager
def full_precision() -> Iterator[None]:
    """Compute in fp32 inside this context on any hardware: slower, for comparisons."""
    token = _full.set(True)
    try:
        yield
    finally:
        _full.reset(token)


def compute_dtype(device: torch.device | str) -> torch.dtype:
    """bf16 on CUDA devices and CPUs that have bf16 arithmetic, else fp32 (bf16 would be slower).

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


def choose_device(name: str = "auto") -> torch.device:
    """For `auto`, CUDA where there is one, else the CPU; any other device, MPS included, by its name.

    Args:
        name: `auto`, or PyTorch's name of a device: `cpu`, `cuda`, `cuda:1`, `mps`, ...

    Raises:
        ValueError: There is no such device on this machine; the message names those that it has.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {name!r}: there is none here; choose auto or {_there()}") from error
    if device.type == "meta":
        raise ValueError(f"device {name!r} computes nothing; choose auto or {_there()}")
    return device


def command_device(name: str) -> torch.device:
    """`choose_device`, and print the device in one line; a process prints each device only once."""
    device = choose_device(name)
    say_device(device)
    return device


@cache  # a command that runs others prints it once
def say_device(device: torch.device) -> None:
    """Print the device and its number format."""
    print(f"device: {describe(device)}", flush=True)


def describe(device: torch.device) -> str:
    """A device, its threads or its model, and its number format, as in `cpu (2 threads, fp32)`."""
    details = ["bf16" if compute_dtype(device) == torch.bfloat16 else "fp32"]
    if device.type == "cpu":
        threads = torch.get_num_threads()
        details.insert(0, f"{threads} thread{'s' if threads > 1 else ''}")
    elif device.type == "cuda":
        details.insert(0, torch.cuda.get_device_name(device))
    return f"{device} ({', '.join(details)})"


def _there() -> str:
    """The devices of this machine that PyTorch knows."""
    names = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    return ", ".join([*names, "mps"] if torch.backends.mps.is_available() else names)
