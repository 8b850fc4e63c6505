"""The bound on the decoded frames of all data sets in the cache folder."""

import fcntl
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout

GB = 10**9
MARK = "index.json"  # of a cache; whoever uses the cache holds it open, with a shared lock


def in_use(folder: Path) -> IO[bytes]:
    """Keep a cache from being removed for as long as the returned file is open."""
    mark = (folder / MARK).open("rb")
    fcntl.flock(mark, fcntl.LOCK_SH)
    os.utime(folder / MARK, ns=(time.time_ns(), os.fstat(mark.fileno()).st_mtime_ns))
    return mark


def make_room(root: Path, folder: Path, need: int, limit: int | None) -> None:
    """Remove the caches of other data sets, the least recently used first, until `need` more bytes fit.

    Args:
        root: The folder of all caches.
        folder: The cache to make room for.
        need: Its bytes.
        limit: Most bytes of all caches; `None` leaves all where they are. Caches in use are never removed.
    """
    if limit is None:
        return
    others, sizes = [], {}
    for mark in root.glob(f"*/{MARK}"):
        with suppress(FileNotFoundError):  # another process removes it now
            if mark.parent != folder:
                others.append((mark.stat().st_atime_ns, mark.parent))
                sizes[mark.parent] = _size(mark.parent)
    total = need + sum(sizes.values())
    for _, other in sorted(others):
        if total <= limit:
            return
        if _removed(other):
            total -= sizes[other]


def _size(folder: Path) -> int:
    """Bytes of all files in a folder; other processes may remove some meanwhile."""
    total = 0
    for at, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += os.stat(Path(at, name)).st_size
    return total


def _removed(folder: Path) -> bool:
    """Whether a cache was removed; it is not if somebody uses it, or makes or opens it at this moment."""
    try:
        with FileLock(f"{folder}.lock", timeout=0), (folder / MARK).open("rb") as mark:
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
            return True
    except (Timeout, FileNotFoundError, BlockingIOError):
        return False
