"""Decoded frames in one file of bytes."""

import math
import os
import shutil
import sys
from pathlib import Path
from typing import NoReturn

import numpy as np
from jaxtyping import UInt8


class FramesFile:
    """A npy file that several threads fill; it is not memory-mapped, so a full disk is an error, not a crash.

    Args:
        path: The file; its space on the disk is reserved at once.
        shape: Of the array of bytes.

    Raises:
        ValueError: The array does not fit on the disk.
    """

    def __init__(self, path: Path, shape: tuple[int, ...]):
        self.path, self.row = path, math.prod(shape[1:])
        need, free = math.prod(shape), shutil.disk_usage(path.parent).free
        if need > free:
            self._fail(f"needs {need / 1e6:,.1f} MB and {free / 1e6:,.1f} MB are free")
        with path.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            self.start = file.tell()
            file.truncate(self.start + need)
        self.file = os.open(path, os.O_WRONLY)
        if sys.platform == "linux":
            try:
                os.posix_fallocate(self.file, 0, self.start + need)
            except OSError as error:
                os.close(self.file)
                self._fail(f"needs {need / 1e6:,.1f} MB: {error.strerror}")

    def write(self, row: int, frames: UInt8[np.ndarray, "t v H W 3"]) -> None:
        """Write frames at rows `row, row + 1, ...`.

        Raises:
            ValueError: The disk is full.
        """
        left, at = memoryview(np.ascontiguousarray(frames)).cast("B"), self.start + row * self.row
        while left:
            try:
                done = os.pwrite(self.file, left, at)
            except OSError as error:
                self._fail(f"cannot be written: {error.strerror}")
            left, at = left[done:], at + done

    def close(self) -> None:
        """Close the file."""
        os.close(self.file)

    def _fail(self, what: str) -> NoReturn:
        raise ValueError(
            f"{self.path}: the cache of decoded frames {what}; set WORLDMODEL_CACHE to a folder on another disk, "
            "or choose a smaller --size or fewer --episodes"
        )


class FramesReader:
    """Rows of a npy file of bytes; they are read, not memory-mapped, so pages of the file are not counted as ours."""

    def __init__(self, path: Path):
        self.path = path
        array = np.load(path, mmap_mode="r")
        self.shape, self.start, self.row = array.shape[1:], array.offset, math.prod(array.shape[1:])
        self.file = path.open("rb", buffering=0)

    def read(self, rows: range) -> UInt8[np.ndarray, "t v H W 3"]:
        """The frames at `rows`."""
        frames = np.empty((len(rows), *self.shape), np.uint8)
        parts = [(frames, rows.start)] if rows.step == 1 else zip(frames, rows, strict=True)
        for part, row in parts:
            left, at = memoryview(part).cast("B"), self.start + row * self.row
            while left:
                done = os.preadv(self.file.fileno(), [left], at)
                if not done:
                    raise ValueError(f"{self.path}: is cut short; remove its folder, and it is made again")
                left, at = left[done:], at + done
        return frames
