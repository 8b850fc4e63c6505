"""Return memory that visitors no longer need to the system."""

import ctypes
import platform


def trim() -> None:
    """Return freed memory to the system where the C library is glibc, which otherwise keeps a good part of it."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
