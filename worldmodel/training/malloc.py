"""Memory of training on a CPU: how much a step needs, and how freed memory is kept for the next step."""

import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the command line imports this module before torch
    from worldmodel.model.dit import DiTConfig

BYTES_PER_CHANNEL = 89
BYTES_PER_PAIR = 3.5  # of tokens of a frame, for each head and layer
TUNABLES = {
    "glibc.malloc.hugetlb": 1,  # huge pages where the kernel offers them
    "glibc.malloc.mmap_threshold": 1 << 32,  # large tensors come from the heap, too,
    "glibc.malloc.trim_threshold": 1 << 34,  # which is not cut when they are freed
}


def keep_freed_memory() -> None:
    """Restart this program in the same process, with a C library that keeps freed memory.

    By default glibc maps new memory for every large tensor, and the kernel clears its pages: this
    takes 85,000 page faults and an eighth of the time of a training step on a CPU. The C library
    reads these settings when a program starts, so a running one cannot change them. Where there is
    no glibc, or `GLIBC_TUNABLES` has been set already, nothing happens.
    """
    if platform.libc_ver()[0] != "glibc" or "GLIBC_TUNABLES" in os.environ:
        return
    settings = ":".join(f"{name}={value}" for name, value in TUNABLES.items())
    os.environ["GLIBC_TUNABLES"] = settings
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def training_bytes(dit: "DiTConfig", *, views: int, size: tuple[int, int], clips: int, frames: int) -> float:
    """Estimate the memory that a training step takes on a CPU, within about a third.

    The two factors were fitted to the peaks of five runs of the preset `tiny` (`docs/log.md`).

    Args:
        dit: The transformer.
        views: Cameras.
        size: `(H, W)` of the latent pictures; without a codec, that of the frames.
        clips: Clips in a batch.
        frames: Frames per clip.
    """
    tokens = views * (size[0] // dit.patch) * (size[1] // dit.patch)
    depth, heads = dit.encoder_depth + dit.decoder_depth, dit.width // dit.head_width
    per_token = BYTES_PER_CHANNEL * dit.width * depth + BYTES_PER_PAIR * heads * depth * tokens
    return clips * (frames - 1) * tokens * per_token


def check_memory(need: float) -> None:
    """Raise a `ValueError` when a training step needs more memory than this machine has left.

    Nothing is checked where the system does not say how much that is.
    """
    left = available_bytes()
    if left is not None and need > left:
        raise ValueError(
            f"a training step takes about {need / 1e9:.1f} GB of memory, {left / 1e9:.1f} GB are free; "
            "lower --batch, --frames, or --size"
        )


def available_bytes() -> int | None:
    """Memory that new programs can have (Linux), or `None` where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return found[0] if found else None
