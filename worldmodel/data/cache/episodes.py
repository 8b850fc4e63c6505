"""A data set decoded once: into one file, or piece by piece where it must not take as much of the disk."""

import hashlib
import json
import math
import os
import shutil
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from worldmodel.data.cache.bound import GB, in_use, make_room
from worldmodel.data.cache.frames import FramesFile, FramesReader
from worldmodel.data.cache.pieces import Pieces
from worldmodel.data.clip import Clip, EpisodeSource, columns_at
from worldmodel.data.remote.url import is_url
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

    With `cache_gb`, caches of other data sets that nobody uses are removed first, the least recently used ones at
    first. Frames that do not fit even then are decoded when they are read; see `Pieces`. What `read` returns is the
    same in all cases.

    Args:
        source: Any episode source; `read` is called from several threads.
        folder: The folder of all caches; by default `default_cache_folder()`.
        cache_gb: Most gigabytes of decoded frames in the folder; by default what the disk holds.

    Raises:
        ValueError: From the source, when an episode cannot be read; or the cache does not fit on the disk.
    """

    def __init__(self, source: EpisodeSource, folder: Path | None = None, cache_gb: float | None = None):
        self.name, self.views, self.fps = source.name, source.views, source.fps
        self.lengths, self.size, self.own_size = source.lengths, source.size, source.own_size
        self.action_dim, self.state_dim = source.action_dim, source.state_dim
        self.pixel_mask, self.robot_type = source.pixel_mask, source.robot_type
        self.fingerprint, self.origins = source.fingerprint, source.origins
        self._tasks = tuple(source.task(i) for i in range(len(source)))
        self._seeds = tuple(source.reset_seed(i) for i in range(len(source)))
        self._clip_mask = None if bool(self.pixel_mask.all()) else self.pixel_mask
        self._first = np.concatenate([[0], np.cumsum(self.lengths)]).tolist()
        episodes = [(_place(each.name), each.number) for each in source.origins]
        key = f"{episodes} {tuple(source.size)} {tuple(source.views)}"
        root = default_cache_folder() if folder is None else folder
        root.mkdir(parents=True, exist_ok=True)
        self.folder = root / hashlib.sha256(key.encode()).hexdigest()[:16]
        need = sum(self.lengths) * len(self.views) * math.prod(self.size) * 3
        limit = None if cache_gb is None else int(cache_gb * GB)
        self._frames: FramesReader | Pieces
        if limit is None or need <= limit:
            with FileLock(f"{self.folder}.lock"):
                if not self._is_current():
                    make_room(root, self.folder, need, limit)
                    self._build(source)
                self._used = in_use(self.folder)
                self._frames = FramesReader(self.folder / "frames.npy")
        else:
            self._frames = Pieces(source, root, self.folder.name, self._index, limit)
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


def _place(name: str) -> str:
    """The name of a data set, from whatever folder it was given."""
    return name if is_url(name) else str(Path(name).resolve())


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
