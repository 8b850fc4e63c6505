"""Decoded frames in small files, of which the least recently used ones go."""

import json
import math
import os
import shutil
import tempfile
import time
from bisect import bisect_right
from collections.abc import Mapping
from contextlib import suppress
from itertools import groupby
from pathlib import Path

import numpy as np
from filelock import FileLock
from jaxtyping import UInt8

from worldmodel.data.cache.bound import MARK, in_use, make_room
from worldmodel.data.clip import EpisodeSource
from worldmodel.files import write_text

PIECE_FRAMES = 32
PIECE_BYTES = 2**24
WAYS = 16  # pieces of a set, of which the least recently used one makes place for a new one


class Pieces:
    """Frames of a source, decoded when they are read, in pieces of an episode that stay on the disk while they fit.

    As in the caches of processors, each piece belongs to one of many sets, and a set holds a few pieces: so the bound
    holds at every moment, and nobody has to know the time of use of all pieces. Several threads and processes can
    read and write the same pieces.

    Args:
        source: Its `read` is called from any thread that reads here.
        root: The folder of all caches.
        name: Of the cache in it.
        index: What the frames depend on besides the name; other pieces are removed.
        limit: Most bytes.
    """

    def __init__(self, source: EpisodeSource, root: Path, name: str, index: Mapping[str, object], limit: int):
        self.source = source
        self.shape = (len(source.views), *source.size, 3)
        frame = math.prod(self.shape)
        self.piece = max(min(PIECE_FRAMES, PIECE_BYTES // frame), 1)
        slots = limit // (self.piece * frame)
        self.ways = min(slots, WAYS)
        self.sets = slots // WAYS or 1
        self.first = np.concatenate([[0], np.cumsum(source.lengths)]).tolist()
        self.folder = root / f"{name}-{self.sets}x{self.ways}"
        with FileLock(f"{self.folder}.lock"):
            make_room(root, self.folder, limit, limit)
            mark = self.folder / MARK
            if not mark.is_file() or json.loads(mark.read_text()) != index:
                shutil.rmtree(self.folder, ignore_errors=True)
                self.folder.mkdir()
                write_text(mark, json.dumps(index))
            self._used = in_use(self.folder)

    def read(self, rows: range) -> UInt8[np.ndarray, "t v H W 3"]:
        """The frames at `rows` of all frames; they lie in one episode."""
        episode = bisect_right(self.first, rows.start) - 1
        frames = np.empty((len(rows), *self.shape), np.uint8)
        inside = [row - self.first[episode] for row in rows]
        place = 0
        for number, wanted in groupby(inside, lambda frame: frame // self.piece):
            within = [frame - number * self.piece for frame in wanted]
            frames[place : place + len(within)] = self._piece(episode, number)[within]
            place += len(within)
        return frames

    def _piece(self, episode: int, number: int) -> UInt8[np.ndarray, "t v H W 3"]:
        start = number * self.piece
        stop = min(start + self.piece, self.source.lengths[episode])
        if not self.ways:
            return self.source.read(episode, start, stop).frames.numpy()
        file = self.folder / f"{self._set(episode, number):04x}" / f"{episode}-{number}"
        shape = (stop - start, *self.shape)
        with suppress(FileNotFoundError):
            content = file.read_bytes()
            if len(content) == math.prod(shape):  # else it is damaged, and decoded again
                with suppress(FileNotFoundError):
                    os.utime(file, ns=(time.time_ns(), 0))
                return np.frombuffer(content, np.uint8).reshape(shape)
        frames = self.source.read(episode, start, stop).frames.numpy()
        self._keep(file, frames)
        return frames

    def _set(self, episode: int, number: int) -> int:
        """Neighbours go to different sets."""
        return (self.first[episode] // self.piece + episode + number) % self.sets

    def _keep(self, file: Path, frames: UInt8[np.ndarray, "t v H W 3"]) -> None:
        """Write a piece, after the removal of those that were not read for the longest time."""
        file.parent.mkdir(exist_ok=True)
        with FileLock(f"{file.parent}.lock"):
            entries = {Path(entry.path): entry.stat().st_atime_ns for entry in os.scandir(file.parent)}
            others = sorted(entries.keys() - {file}, key=entries.__getitem__)
            for other in others[: len(others) - self.ways + 1] if len(others) >= self.ways else ():
                other.unlink()
            handle, name = tempfile.mkstemp(dir=self.folder, suffix=".part")
            try:
                with os.fdopen(handle, "wb") as part:
                    part.write(np.ascontiguousarray(frames).data)
                os.replace(name, file)
            except OSError as error:
                raise ValueError(
                    f"{self.folder}: decoded frames cannot be written: {error.strerror}; set WORLDMODEL_CACHE to a "
                    "folder on another disk, or choose a smaller --cache-gb"
                ) from error
            finally:
                Path(name).unlink(missing_ok=True)
