"""Episodes of any format: tables in memory, pictures read on demand."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float32, UInt8
from torch import Tensor

from worldmodel.data.checks import fail
from worldmodel.data.clip import Clip, Origin, columns_at
from worldmodel.data.remote.tree import find_place, told
from worldmodel.data.video.decoders import video_header
from worldmodel.data.video.letterbox import FrameBudget, Letterbox
from worldmodel.data.video.mp4 import outlined
from worldmodel.data.video.read import read_frames
from worldmodel.files import default_cache_folder, read_object, write_json


@dataclass(frozen=True)
class Rows:
    """The tables of one episode of `t` frames; `None` where the data set has no such column.

    Row `i` holds the state at frame `i` and the action applied there. Actions, rewards and
    successes may lack the last row, which leads out of the episode.
    """

    task: str
    actions: Float32[np.ndarray, "rows a"] | None
    states: Float32[np.ndarray, "t s"] | None
    rewards: Float32[np.ndarray, " rows"] | None
    successes: Bool[np.ndarray, " rows"] | None


@runtime_checkable
class Pictures(Protocol):
    """Where the frames come from."""

    def read(self, episode: int, camera: int, indices: np.ndarray) -> UInt8[np.ndarray, "t h w 3"]:
        """Frames of one camera, RGB 0..255, at ascending and evenly spaced `indices`.

        Raises:
            ValueError: If they cannot be read.
        """
        ...

    def file(self, episode: int, camera: int) -> Path:
        """The file that holds them."""
        ...

    def codec(self, episode: int, camera: int) -> str:
        """How they are compressed."""
        ...


@dataclass(frozen=True)
class VideoPictures:
    """Frames in video files; `videos[episode][camera]` is a file, and first frame and step of the episode in it."""

    videos: tuple[tuple[tuple[Path, int, int], ...], ...]

    def read(self, episode: int, camera: int, indices: np.ndarray) -> UInt8[np.ndarray, "t h w 3"]:
        """Decode frames; see `Pictures.read`."""
        path, first, step = self.videos[episode][camera]
        return read_frames(path, (first + step * indices).tolist())

    def file(self, episode: int, camera: int) -> Path:
        """The video."""
        return self.videos[episode][camera][0]

    def codec(self, episode: int, camera: int) -> str:
        """Name of the codec as ffmpeg calls it, such as `h264`."""
        with outlined(self.file(episode, camera)) as file:
            return video_header(file).codec


@dataclass(frozen=True)
class SelectedPictures:
    """Some cameras of `pictures`, in another order: camera `i` is camera `cameras[i]` of `pictures`."""

    pictures: Pictures
    cameras: tuple[int, ...]

    def read(self, episode: int, camera: int, indices: np.ndarray) -> UInt8[np.ndarray, "t h w 3"]:
        """Frames of a selected camera; see `Pictures.read`."""
        return self.pictures.read(episode, self.cameras[camera], indices)

    def file(self, episode: int, camera: int) -> Path:
        """The file that holds them."""
        return self.pictures.file(episode, self.cameras[camera])

    def codec(self, episode: int, camera: int) -> str:
        """How they are compressed."""
        return self.pictures.codec(episode, self.cameras[camera])


@dataclass(frozen=True, eq=False)
class TableSource:
    """The checked tables in memory, frames read on demand; satisfies `EpisodeSource`.

    Attributes:
        boxes: Per camera, how its picture fits into `size`.
        cameras: Names of the cameras in the files, for messages.
        pictures: Where the frames come from.
        rows: Actions, states, rewards, successes and task of every episode.
        seeds: The simulator seed of every episode, where it was recorded.
        shift: The controlled shift that the data was recorded with; empty for none.
        numbers: Number of every episode in the data set; empty where all of it was opened.
        notes: Oddities of the data set, and parts that were left out; one line each.
    """

    name: str
    views: tuple[str, ...]
    fps: float
    size: tuple[int, int]
    robot_type: str
    fingerprint: str
    lengths: tuple[int, ...]
    boxes: tuple[Letterbox, ...]
    cameras: tuple[str, ...]
    pictures: Pictures
    rows: tuple[Rows, ...]
    seeds: tuple[int | None, ...]
    shift: str = ""
    numbers: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def origins(self) -> tuple[Origin, ...]:
        """Where each episode comes from."""
        numbers = self.numbers or range(len(self))
        return tuple(Origin(self.name, self.fingerprint, number) for number in numbers)

    @property
    def own_size(self) -> tuple[int, int]:
        """The largest `(H, W)` of the cameras, before resizing."""
        return max(box.source[0] for box in self.boxes), max(box.source[1] for box in self.boxes)

    @property
    def action_dim(self) -> int:
        """Width of one action; 0 for unlabelled video."""
        return 0 if self.rows[0].actions is None else self.rows[0].actions.shape[1]

    @property
    def state_dim(self) -> int:
        """Width of the state; 0 when the data has none."""
        return 0 if self.rows[0].states is None else self.rows[0].states.shape[1]

    @property
    def pixel_mask(self) -> Bool[Tensor, "v H W"]:
        """False on letterbox padding."""
        return torch.stack([box.mask() for box in self.boxes])

    def __len__(self) -> int:
        """Number of episodes."""
        return len(self.lengths)

    def read(self, episode: int, start: int, stop: int, stride: int = 1) -> Clip:
        """Read frames `start, start + stride, ... < stop` of an episode, without a batch axis.

        Raises:
            ValueError: If the range lies outside the episode, or a picture cannot be decoded.
        """
        self._check_episode(episode)
        if not 0 <= start < stop <= self.lengths[episode] or stride < 1:
            raise ValueError(
                f"{self.name}: episode {episode}, frames {start}:{stop}:{stride} are not within "
                f"0:{self.lengths[episode]} with a stride of at least 1"
            )
        indices = np.arange(start, stop, stride)
        mask = self.pixel_mask
        return Clip(
            frames=self._frames(episode, indices),
            pixel_mask=None if bool(mask.all()) else mask,
            task=self.rows[episode].task,
            **columns_at(_tensors(self.rows[episode]), range(start, stop, stride)),
        )

    def columns(self, episode: int, stride: int = 1) -> Clip:
        """The tables of a whole episode as in `read`, without decoding a picture: `frames` has no pixels."""
        self._check_episode(episode)
        frames = range(0, self.lengths[episode], stride)
        no_pixels = torch.empty(len(frames), 0, 0, 0, 3, dtype=torch.uint8)
        return Clip(no_pixels, task=self.rows[episode].task, **columns_at(_tensors(self.rows[episode]), frames))

    def select(self, views: Sequence[str], size: tuple[int, int] | FrameBudget | None = None) -> "TableSource":
        """The same episodes with some of the cameras, in the given order; `size` is as in `open_episodes`.

        Raises:
            ValueError: If there is no such camera, or one is named twice.
        """
        if not set(views) <= set(self.views) or len(set(views)) < len(views) or not views:
            raise ValueError(
                f"{self.name}: cameras {list(views)} were asked for, each once, but the data has {list(self.views)}"
            )
        cameras = tuple(self.views.index(view) for view in views)
        size, boxes = letterboxes((self.boxes[camera].source for camera in cameras), size)
        return replace(
            self,
            views=tuple(views),
            size=size,
            boxes=boxes,
            cameras=tuple(self.cameras[camera] for camera in cameras),
            pictures=SelectedPictures(self.pictures, cameras),
        )

    def task(self, episode: int) -> str:
        """The task in words, or an empty string."""
        self._check_episode(episode)
        return self.rows[episode].task

    def reset_seed(self, episode: int) -> int | None:
        """The simulator seed that reproduces the episode's start, when it was recorded."""
        self._check_episode(episode)
        return self.seeds[episode]

    def _check_episode(self, episode: int) -> None:
        if not 0 <= episode < len(self):
            raise ValueError(f"{self.name}: episode {episode} is not within 0..{len(self) - 1}")

    def _frames(self, episode: int, indices: np.ndarray) -> UInt8[Tensor, "t v H W 3"]:
        views = []
        for camera, (key, box) in enumerate(zip(self.cameras, self.boxes, strict=True)):
            try:
                frames = self.pictures.read(episode, camera, indices)
            except ValueError as error:
                where = f"episode {episode}, camera {key}, frames {indices[0]}..{indices[-1]}"
                raise ValueError(f"{self.name}: {where}: {told(str(error))}") from error
            expected = (len(indices), *box.source, 3)
            if frames.shape != expected:
                file = told(str(self.pictures.file(episode, camera)))
                fail(file, f"shape of {key}", frames.shape, expected, episode)
            views.append(box.fit(torch.from_numpy(frames)))
        return torch.stack(views, dim=1)


def letterboxes(
    sizes: Iterable[tuple[int, int]], size: tuple[int, int] | FrameBudget | None
) -> tuple[tuple[int, int], tuple[Letterbox, ...]]:
    """The common frame size and how each camera's `(H, W)` fits into it.

    `size` by default is the largest height and the largest width; a `FrameBudget` may make it smaller.
    """
    sizes = list(sizes)
    own = max(height for height, _ in sizes), max(width for _, width in sizes)
    if isinstance(size, FrameBudget):
        size = size.size(own)
    elif size is None:
        size = own
    return tuple(size), tuple(Letterbox(own, tuple(size)) for own in sizes)


def fingerprint(folder: Path, files: Iterable[Path]) -> str:
    """Hash of the names and the content of a data set's files, wherever the folder lies.

    The content of a file is read again only when its size or its time of change differs from those
    that were noted in the cache folder. Files behind a URL are not fetched for it: what the listing says about
    them stands for their content, so the same files on the disk have another fingerprint.
    """
    files = sorted(files)
    if files and find_place(files[0]) is not None:
        return sha256("".join(place.file.key for path in files if (place := find_place(path))).encode()).hexdigest()
    notes = default_cache_folder() / "digests" / f"{sha256(str(folder.resolve()).encode()).hexdigest()[:16]}.json"
    known = _noted_digests(notes)
    digest, found = sha256(), {}
    for path in (path for path in files if path.is_file()):
        name, status = path.relative_to(folder).as_posix(), path.stat()
        stamp = [status.st_size, status.st_mtime_ns]
        noted = known.get(name)
        content = noted[2] if noted and noted[:2] == stamp else _content_hash(path)
        found[name] = [*stamp, content]
        digest.update(f"{name}\0{content}\0".encode())
    if found != known:
        with suppress(OSError):  # a cache folder that cannot be written to costs time only
            notes.parent.mkdir(parents=True, exist_ok=True)
            write_json(notes, found)
    return digest.hexdigest()


def _noted_digests(file: Path) -> dict[str, list]:
    try:
        return read_object(file)
    except (OSError, ValueError):
        return {}


def _content_hash(path: Path) -> str:
    with path.open("rb") as stream:
        return file_digest(stream, "sha256").hexdigest()


def _tensors(rows: Rows) -> dict[str, Tensor]:
    """The tables that exist."""
    tables = {name: getattr(rows, name) for name in ("actions", "states", "rewards", "successes")}
    return {name: torch.from_numpy(table) for name, table in tables.items() if table is not None}
