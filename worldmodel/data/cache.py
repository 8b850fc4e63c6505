"""A data set decoded once into one file."""

import hashlib
import json
import math
import os
import shutil
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from filelock import FileLock
from jaxtyping import UInt8
from torch import Tensor

from worldmodel.data.clip import Clip, EpisodeSource, columns_at
from worldmodel.data.video.read import release_readers
from worldmodel.display.progress import ProgressLine
from worldmodel.files import default_cache_folder

FORMAT = 2
"""Version of the cache; it changes with the way in which frames are read from files or stored."""
TABLES = ("actions", "states", "rewards", "successes")
PIECE_FRAMES = 128
PIECE_BYTES = 2**26  # of decoded pictures; long episodes and large pictures do not fill the memory


class EpisodeCache:
    """An `EpisodeSource` whose frames are decoded once into a file of bytes.

    The first use decodes every episode, several at a time, with a progress bar; later ones open the
    file. Its size is compared with the free space of the disk before anything is decoded. The cache is
    built in another folder and then moved into place, so a killed build leaves none. It is built again
    when the fingerprint of the source has changed. When several processes need the same cache, one
    builds it and the others wait.

    Args:
        source: Any episode source; `read` is called from several threads.
        folder: The folder of all caches; by default `default_cache_folder()`.

    Raises:
        ValueError: From the source, when an episode cannot be read; or the cache does not fit on the disk.
    """

    def __init__(self, source: EpisodeSource, folder: Path | None = None):
        self.name, self.views, self.fps = source.name, source.views, source.fps
        self.lengths, self.size, self.own_size = source.lengths, source.size, source.own_size
        self.action_dim, self.state_dim = source.action_dim, source.state_dim
        self.pixel_mask, self.robot_type = source.pixel_mask, source.robot_type
        self.fingerprint, self.origins = source.fingerprint, source.origins
        self._tasks = tuple(source.task(i) for i in range(len(source)))
        self._seeds = tuple(source.reset_seed(i) for i in range(len(source)))
        self._clip_mask = None if bool(self.pixel_mask.all()) else self.pixel_mask
        self._first = np.concatenate([[0], np.cumsum(self.lengths)]).tolist()
        episodes = [(str(Path(each.name).resolve()), each.number) for each in source.origins]
        key = f"{episodes} {tuple(source.size)} {tuple(source.views)}"
        root = default_cache_folder() if folder is None else folder
        root.mkdir(parents=True, exist_ok=True)
        self.folder = root / hashlib.sha256(key.encode()).hexdigest()[:16]
        with FileLock(f"{self.folder}.lock"):
            if not self._is_current():
                self._build(source)
            self._frames = FramesReader(self.folder / "frames.npy")
        self._tables = _tables(source)

    def __len__(self) -> int:
        """Number of episodes."""
        return len(self.lengths)

    def task(self, episode: int) -> str:
        """The task in words, or an empty string."""
        self._check_episode(episode)
        return self._tasks[episode]

    def reset_seed(self, episode: int) -> int | None:
        """The simulator seed of the episode's start, when it was recorded."""
        self._check_episode(episode)
        return self._seeds[episode]

    def read(self, episode: int, start: int, stop: int, stride: int = 1) -> Clip:
        """Frames `start, start + stride, ... < stop` of an episode, and the actions between them.

        Raises:
            ValueError: If there is no such episode, or the range is empty or leaves the episode.
        """
        self._check_episode(episode)
        if not 0 <= start < stop <= self.lengths[episode] or stride < 1:
            raise ValueError(
                f"{self.name}: episode {episode}, frames {start}:{stop}:{stride} are not within "
                f"0:{self.lengths[episode]} with a stride of at least 1"
            )
        first = self._first[episode] + start
        frames = torch.from_numpy(self._frames.read(range(first, first + stop - start, stride)))
        columns = columns_at(self._tables, range(first, first + stop - start, stride))
        return Clip(frames=frames, pixel_mask=self._clip_mask, task=self._tasks[episode], **columns)

    def columns(self, episode: int, stride: int = 1) -> Clip:
        """The tables of a whole episode as in `read`, without a picture: `frames` has no pixels."""
        self._check_episode(episode)
        first = self._first[episode]
        frames = range(first, first + self.lengths[episode], stride)
        empty = torch.empty(len(frames), 0, 0, 0, 3, dtype=torch.uint8)
        return Clip(empty, task=self._tasks[episode], **columns_at(self._tables, frames))

    def _check_episode(self, episode: int) -> None:
        if not 0 <= episode < len(self):
            raise ValueError(f"{self.name}: episode {episode} is not within 0..{len(self) - 1}")

    def _is_current(self) -> bool:
        index = self.folder / "index.json"
        if not index.is_file():
            return False
        return json.loads(index.read_text()) == self._index

    @property
    def _index(self) -> dict[str, object]:
        """What the frames depend on, besides what is in the name of the folder."""
        return {"format": FORMAT, "fingerprint": self.fingerprint, "lengths": list(self.lengths)}

    def _build(self, source: EpisodeSource) -> None:
        aside = self.folder.with_name(f"{self.folder.name}.building")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        try:
            self._decode(source, aside)
            (aside / "index.json").write_text(json.dumps(self._index))
            shutil.rmtree(self.folder, ignore_errors=True)
            aside.rename(self.folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def _decode(self, source: EpisodeSource, folder: Path) -> None:
        shape = (sum(self.lengths), len(self.views), *self.size, 3)
        frames = FramesFile(folder / "frames.npy", shape)
        spans = _spans(self.lengths, piece_frames(source))
        stopped = threading.Event()

        def decode(part: range) -> None:
            """Read some of the spans, until another thread has failed."""
            for number in part:
                if stopped.is_set():
                    return
                episode, start, stop = spans[number]
                row = self._first[episode] + start
                frames.write(row, source.read(episode, start, stop).frames.numpy())
                release_readers(keep=len(self.views))
                progress.advance()

        num_threads = os.cpu_count() or 1
        shown = ProgressLine(f"decoding {source.name}", len(spans), unit="stretches")
        with shown as progress, ThreadPoolExecutor(num_threads) as pool:
            # Neighbours go to one thread, so that it reads a video from front to back.
            size = -(-len(spans) // num_threads)
            parts = [range(len(spans))[at : at + size] for at in range(0, len(spans), size)]
            futures = [pool.submit(decode, part) for part in parts]
            try:
                for future in as_completed(futures):
                    future.result()
            finally:
                stopped.set()
        frames.close()


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


def piece_frames(source: EpisodeSource) -> int:
    """How many frames of a source are decoded at once."""
    frame = math.prod(source.own_size) * 3 * len(source.views)
    return max(min(PIECE_FRAMES, PIECE_BYTES // frame), 1)


def _spans(lengths: Sequence[int], longest: int) -> list[tuple[int, int, int]]:
    """Episode, first frame and end of spans of at most `longest` frames."""
    return [
        (episode, start, min(start + longest, length))
        for episode, length in enumerate(lengths)
        for start in range(0, length, longest)
    ]


def _tables(source: EpisodeSource) -> dict[str, Tensor]:
    """One row per frame of every table; rows that a table lacks are 0, and are never read."""
    parts: dict[str, list[Tensor]] = {}
    for episode, length in enumerate(source.lengths):
        clip = source.columns(episode)
        for name in TABLES:
            values = getattr(clip, name)
            if values is not None:
                rest = values.new_zeros(length - len(values), *values.shape[1:])
                parts.setdefault(name, []).append(torch.cat([values, rest]))
    return {name: torch.cat(rows) for name, rows in parts.items()}
