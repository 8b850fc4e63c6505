"""A data set decoded once into a memory-mapped file."""

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from filelock import FileLock
from safetensors.torch import load_file, save_file
from torch import Tensor

from worldmodel.data.clip import Clip, EpisodeSource
from worldmodel.progress import ProgressLine

TABLES = ("actions", "states", "rewards", "successes")
PIECE_FRAMES = 128


def default_cache_folder() -> Path:
    """`$WORLDMODEL_CACHE`, or `~/.cache/worldmodel`."""
    return Path(os.environ.get("WORLDMODEL_CACHE", Path.home() / ".cache" / "worldmodel"))


class EpisodeCache:
    """An `EpisodeSource` whose frames are decoded once into a memory-mapped uint8 file.

    The first use decodes every episode, several at a time, with a progress bar; later ones open the
    file. The cache is built in another folder and then moved into place, so a killed build leaves
    none. It is built again when the fingerprint of the source has changed. When several processes
    need the same cache, one builds it and the others wait.

    Args:
        source: Any episode source; `read` is called from several threads.
        folder: The folder of all caches; by default `default_cache_folder()`.

    Raises:
        ValueError: From the source, when an episode cannot be read.
    """

    def __init__(self, source: EpisodeSource, folder: Path | None = None):
        self.name, self.views, self.fps = source.name, source.views, source.fps
        self.lengths, self.size = source.lengths, source.size
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
            self._frames = np.load(self.folder / "frames.npy", mmap_mode="r")
            self._tables = load_file(self.folder / "tables.safetensors")

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
        first = self._first[episode]
        at = slice(first + start, first + stop, stride)
        frames = torch.from_numpy(np.array(self._frames[at]))
        between = slice(first + start, first + start + (len(frames) - 1) * stride)
        chunks = {
            name: rearrange(self._tables[name][between], "(t k) ... -> t k ...", k=stride)
            for name in ("actions", "rewards", "successes")
            if name in self._tables
        }
        return Clip(
            frames=frames,
            actions=chunks["actions"].flatten(1).clone() if "actions" in chunks else None,
            states=self._tables["states"][at].clone() if "states" in self._tables else None,
            rewards=chunks["rewards"].sum(1) if "rewards" in chunks else None,
            successes=chunks["successes"].any(1) if "successes" in chunks else None,
            pixel_mask=self._clip_mask,
        )

    def _check_episode(self, episode: int) -> None:
        if not 0 <= episode < len(self):
            raise ValueError(f"{self.name}: episode {episode} is not within 0..{len(self) - 1}")

    def _is_current(self) -> bool:
        index = self.folder / "index.json"
        if not index.is_file():
            return False
        return json.loads(index.read_text())["fingerprint"] == self.fingerprint

    def _build(self, source: EpisodeSource) -> None:
        aside = self.folder.with_name(f"{self.folder.name}.building")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        try:
            self._decode(source, aside)
            (aside / "index.json").write_text(json.dumps({"fingerprint": self.fingerprint}))
            shutil.rmtree(self.folder, ignore_errors=True)
            aside.rename(self.folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def _decode(self, source: EpisodeSource, folder: Path) -> None:
        shape = (sum(self.lengths), len(self.views), *self.size, 3)
        frames = np.lib.format.open_memmap(folder / "frames.npy", "w+", np.uint8, shape)
        spans = _spans(self.lengths)
        columns: list[dict[str, Tensor]] = [{} for _ in spans]
        stopped = threading.Event()

        def decode(part: range) -> None:
            """Read some of the spans, until another thread has failed."""
            for number in part:
                if stopped.is_set():
                    return
                episode, start, stop = spans[number]
                row = self._first[episode] + start
                piece = source.read(episode, start, min(stop + 1, self.lengths[episode]))
                frames[row : row + stop - start] = piece.frames[: stop - start].numpy()
                columns[number] = _columns(piece, stop - start)
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
        frames.flush()
        tables = {name: torch.cat([part[name] for part in columns]) for name in columns[0]}
        save_file(tables, folder / "tables.safetensors")


def _spans(lengths: Sequence[int]) -> list[tuple[int, int, int]]:
    """Episode, first frame and end of spans that are short enough to decode at native size."""
    return [
        (episode, start, min(start + PIECE_FRAMES, length))
        for episode, length in enumerate(lengths)
        for start in range(0, length, PIECE_FRAMES)
    ]


def _columns(piece: Clip, rows: int) -> dict[str, Tensor]:
    """One row per frame of every table; rows that a table lacks are 0, and are never read."""
    columns = {}
    for name in TABLES:
        values = getattr(piece, name)
        if values is not None:
            values = values[:rows]
            rest = values.new_zeros(rows - len(values), *values.shape[1:])
            columns[name] = torch.cat([values, rest])
    return columns
