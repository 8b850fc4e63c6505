"""Decoded cache of a data set, its statistics, and random clips from it."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float32
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import Tensor

from worldmodel.data.clip import Clip, EpisodeSource, stack_clips

TABLES = ("actions", "states", "rewards", "successes")


def default_cache_folder() -> Path:
    """`$WORLDMODEL_CACHE`, or `~/.cache/worldmodel`."""
    return Path(os.environ.get("WORLDMODEL_CACHE", Path.home() / ".cache" / "worldmodel"))


class EpisodeCache:
    """An `EpisodeSource` whose frames are decoded once into a memory-mapped uint8 file.

    The first use decodes every episode, with a progress bar; later ones open the file. It is built
    aside and moved into place, and built again when the fingerprint of the source has changed.

    Args:
        source: Any episode source.
        folder: Where caches live; by default `default_cache_folder()`.

    Raises:
        ValueError: From the source, when an episode cannot be read.
    """

    def __init__(self, source: EpisodeSource, folder: Path | None = None):
        self.name, self.views, self.fps = source.name, source.views, source.fps
        self.lengths, self.size = source.lengths, source.size
        self.action_dim, self.state_dim = source.action_dim, source.state_dim
        self.pixel_mask, self.robot_type = source.pixel_mask, source.robot_type
        self.fingerprint = source.fingerprint
        self._tasks = tuple(source.task(i) for i in range(len(source)))
        self._seeds = tuple(source.reset_seed(i) for i in range(len(source)))
        key = f"{Path(source.name).resolve()} {source.size}"
        root = default_cache_folder() if folder is None else folder
        self.folder = root / hashlib.sha256(key.encode()).hexdigest()[:16]
        if not self._is_current():
            self._build(source)
        self.frames = np.load(self.folder / "frames.npy", mmap_mode="r")
        self.tables = load_file(self.folder / "tables.safetensors")
        self.first = np.concatenate([[0], np.cumsum(self.lengths)]).tolist()

    def __len__(self) -> int:
        """Number of episodes."""
        return len(self.lengths)

    def task(self, episode: int) -> str:
        """The task in words, or an empty string."""
        return self._tasks[episode]

    def reset_seed(self, episode: int) -> int | None:
        """The simulator seed of the episode's start, when it was recorded."""
        return self._seeds[episode]

    def read(self, episode: int, start: int, stop: int, stride: int = 1) -> Clip:
        """Frames `start, start + stride, ... < stop` of an episode, and what lies between them.

        Raises:
            ValueError: If the range is empty or leaves the episode.
        """
        if not 0 <= start < stop <= self.lengths[episode]:
            raise ValueError(
                f"{self.name}: episode {episode}: frames {start}..{stop} are not within its "
                f"{self.lengths[episode]} frames"
            )
        first = self.first[episode]
        frames = torch.from_numpy(np.array(self.frames[first + start : first + stop : stride]))
        between = slice(first + start, first + start + (len(frames) - 1) * stride)
        chunks = {
            name: rearrange(self.tables[name][between], "(t k) ... -> t k ...", k=stride)
            for name in ("actions", "rewards", "successes")
            if name in self.tables
        }
        states = self.tables.get("states")
        return Clip(
            frames=frames,
            actions=chunks["actions"].flatten(1) if "actions" in chunks else None,
            states=None if states is None else states[first + start : first + stop : stride],
            rewards=chunks["rewards"].sum(1) if "rewards" in chunks else None,
            successes=chunks["successes"].any(1) if "successes" in chunks else None,
            pixel_mask=None if bool(self.pixel_mask.all()) else self.pixel_mask,
        )

    def _is_current(self) -> bool:
        index = self.folder / "index.json"
        if not index.is_file():
            return False
        return json.loads(index.read_text())["fingerprint"] == self.fingerprint

    def _build(self, source: EpisodeSource) -> None:
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=self.folder.parent, prefix=".building-"))
        try:
            shape = (sum(self.lengths), len(self.views), *self.size, 3)
            frames = np.lib.format.open_memmap(aside / "frames.npy", "w+", np.uint8, shape)
            tables: dict[str, list[Tensor]] = {}
            row = 0
            for episode in track(range(len(source)), f"Decoding {source.name}"):
                clip = source.read(episode, 0, self.lengths[episode])
                frames[row : row + self.lengths[episode]] = clip.frames.numpy()
                row += self.lengths[episode]
                for name in TABLES:
                    value = getattr(clip, name)
                    if value is not None:
                        padded = value if name == "states" else _pad_last(value)
                        tables.setdefault(name, []).append(padded)
            frames.flush()
            save_file({k: torch.cat(v) for k, v in tables.items()}, aside / "tables.safetensors")
            (aside / "index.json").write_text(json.dumps({"fingerprint": self.fingerprint}))
            shutil.rmtree(self.folder, ignore_errors=True)
            aside.chmod(0o755)
            aside.rename(self.folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def _pad_last(values: Tensor) -> Tensor:
    """One more row, so that every frame has one; the row after the last frame is never read."""
    return torch.cat([values, torch.zeros_like(values[:1]) if len(values) else values.new_zeros(
        1, *values.shape[1:])])  # fmt: skip


@dataclass(frozen=True)
class Range:
    """Per-dimension statistics of a table of rows."""

    low: Float32[Tensor, "d"]
    high: Float32[Tensor, "d"]
    mean: Float32[Tensor, "d"]
    std: Float32[Tensor, "d"]
    q01: Float32[Tensor, "d"]
    q99: Float32[Tensor, "d"]

    @classmethod
    def of(cls, rows: Float32[Tensor, "n d"]) -> "Range":
        """Statistics of the rows."""
        quantiles = np.quantile(rows.numpy(), [0.01, 0.99], axis=0).astype(np.float32)
        return cls(
            low=rows.amin(0), high=rows.amax(0), mean=rows.mean(0), std=rows.std(0, correction=0),
            q01=torch.from_numpy(quantiles[0]), q99=torch.from_numpy(quantiles[1]),
        )  # fmt: skip


@dataclass(frozen=True)
class Statistics:
    """Ranges of actions and states and the spread of the change of state between frames.

    Each is `None` when the data has no actions or states.
    """

    action: Range | None
    state: Range | None
    displacement: Range | None


def action_state_statistics(
    source: EpisodeSource, *, episodes: Sequence[int] | None = None,
    relative_to: Mapping[int, int] | None = None, stride: int = 1,
) -> Statistics:  # fmt: skip
    """Statistics over episodes, as the model sees them.

    Main arguments: `source` and its `episodes` (all by default).
    Other arguments: action dims in `relative_to` have the state at the frame subtracted, in every
    element of a chunk of `stride` actions.
    """
    actions, states, displacements = [], [], []
    for episode in range(len(source)) if episodes is None else episodes:
        clip = source.read(episode, 0, source.lengths[episode], stride)
        if clip.states is not None:
            states.append(clip.states)
            displacements.append(clip.states.diff(dim=0))
        if clip.actions is not None:
            chunks = rearrange(clip.actions, "t (k a) -> t k a", k=stride).clone()
            for action, state in (relative_to or {}).items():
                chunks[..., action] -= clip.states[:-1, None, state]
            actions.append(rearrange(chunks, "t k a -> t (k a)"))
    parts = [torch.cat(rows) if rows else None for rows in (actions, states, displacements)]
    ranges = [None if rows is None or len(rows) == 0 else Range.of(rows) for rows in parts]
    return Statistics(*ranges)


def sample_clips(
    source: EpisodeSource, *, batch: int, length: int, stride: int, seed: int, index: int,
    episodes: Sequence[int],
) -> Clip:  # fmt: skip
    """Batch `index` of random clips: a pure function of `seed` and `index`.

    Every window of `length` frames of the given episodes is equally likely.

    Raises:
        ValueError: If no episode is long enough.
    """
    span = (length - 1) * stride + 1
    windows = np.array([max(source.lengths[e] - span + 1, 0) for e in episodes])
    if windows.sum() == 0:
        longest = max((source.lengths[e] for e in episodes), default=0)
        raise ValueError(f"{source.name}: the longest episode has {longest} frames, need {span}")
    ends = np.cumsum(windows)
    picks = np.random.default_rng((seed, index)).integers(ends[-1], size=batch)
    clips = []
    for pick in picks:
        which = int(np.searchsorted(ends, pick, side="right"))
        start = int(pick - ends[which] + windows[which])
        clips.append(source.read(episodes[which], start, start + span, stride))
    return stack_clips(clips)
