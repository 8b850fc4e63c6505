"""LeRobot folders, v2.1 and v3.0, as an `EpisodeSource`."""

from dataclasses import dataclass
from hashlib import file_digest, sha256
from pathlib import Path

import numpy as np
import torch
from einops import rearrange, reduce
from jaxtyping import Bool, UInt8
from torch import Tensor

from worldmodel.data.clip import Clip, EpisodeSource
from worldmodel.data.lerobot_episodes import (
    Episode,
    Rows,
    check_totals,
    read_episodes,
    read_rows,
    reset_seed,
)
from worldmodel.data.lerobot_tables import Info, fail, read_info
from worldmodel.data.letterbox import Letterbox
from worldmodel.data.video import read_frames
from worldmodel.data.video_decoders import VideoInfo, video_info

PREFIX = "observation.images."


def open_episodes(path: Path | str, size: tuple[int, int] | None = None) -> EpisodeSource:
    """Open a LeRobot data set and check everything that needs no decoding.

    Args:
        path: Folder that holds `meta/info.json`.
        size: `(H, W)` of the frames to read; by default the cameras' own size where they agree,
            else the largest height and the largest width. Aspect is kept, the rest is padding.

    Raises:
        ValueError: If the folder is malformed in any way; the message names file, episode, field
            and both values.
    """
    folder = Path(path)
    info = read_info(folder)
    episodes = read_episodes(info)
    rows = read_rows(info, episodes)
    _check_videos(info, episodes)
    check_totals(info, episodes)
    seeds = tuple(reset_seed(episode) for episode in episodes)
    sizes = [info.features[key].shape[:2] for key in info.cameras]
    if size is None:
        size = max(height for height, _ in sizes), max(width for _, width in sizes)
    return LeRobotSource(
        name=str(path),
        views=tuple(key.removeprefix(PREFIX) for key in info.cameras),
        fps=info.fps,
        lengths=tuple(episode.length for episode in episodes),
        action_dim=0 if rows[0].actions is None else rows[0].actions.shape[1],
        state_dim=0 if rows[0].states is None else rows[0].states.shape[1],
        size=size,
        robot_type=info.robot_type,
        fingerprint=fingerprint(folder),
        boxes=tuple(Letterbox(own, size) for own in sizes),
        cameras=info.cameras,
        episodes=tuple(episodes),
        rows=tuple(rows),
        seeds=seeds,
    )


@dataclass(frozen=True, eq=False)
class LeRobotSource:
    """The checked tables in memory, frames decoded when read; satisfies `EpisodeSource`.

    Attributes:
        boxes: Per camera, how its picture fits into `size`.
        cameras: Camera names with their prefix.
        rows: Actions, states, rewards, successes and task of every episode.
    """

    name: str
    views: tuple[str, ...]
    fps: float
    lengths: tuple[int, ...]
    action_dim: int
    state_dim: int
    size: tuple[int, int]
    robot_type: str
    fingerprint: str
    boxes: tuple[Letterbox, ...]
    cameras: tuple[str, ...]
    episodes: tuple[Episode, ...]
    rows: tuple[Rows, ...]
    seeds: tuple[int | None, ...]

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
            ValueError: If the range lies outside the episode, or a video cannot be decoded.
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
            **_columns(self.rows[episode], indices, stride),
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
        for key, box in zip(self.cameras, self.boxes, strict=True):
            path, first = self.episodes[episode].videos[key]
            try:
                frames = read_frames(path, (first + indices).tolist())
            except ValueError as error:
                raise ValueError(
                    f"{self.name}: episode {episode}, camera {key}, frames "
                    f"{indices[0]}..{indices[-1]}: {error}"
                ) from error
            expected = (len(indices), *box.source, 3)
            if frames.shape != expected:
                fail(path, f"shape of {key}", frames.shape, expected, episode)
            views.append(box.fit(torch.from_numpy(frames)))
        return torch.stack(views, dim=1)


def _columns(rows: Rows, indices: np.ndarray, stride: int) -> dict[str, Tensor]:
    """States at the frames; actions, rewards and successes of the strides between them."""
    first, last = int(indices[0]), int(indices[-1])
    columns = {}
    if rows.states is not None:
        columns["states"] = torch.from_numpy(rows.states[indices])
    if rows.actions is not None:
        actions = torch.from_numpy(rows.actions[first:last])
        columns["actions"] = rearrange(actions, "(t k) a -> t (k a)", k=stride).clone()
    if rows.rewards is not None:
        rewards = torch.from_numpy(rows.rewards[first:last])
        columns["rewards"] = reduce(rewards, "(t k) -> t", "sum", k=stride)
    if rows.successes is not None:
        successes = torch.from_numpy(rows.successes[first:last])
        columns["successes"] = rearrange(successes, "(t k) -> t k", k=stride).any(dim=1)
    return columns


def _check_videos(info: Info, episodes: list[Episode]) -> None:
    """Every container holds the frames that the episodes take from it, of the declared size."""
    ends: dict[Path, tuple[str, int, int]] = {}
    for episode in episodes:
        for key, (path, first) in episode.videos.items():
            end = first + episode.length
            if path not in ends or end > ends[path][2]:
                ends[path] = key, episode.index, end
    for path, (key, index, end) in ends.items():
        video = video_info(path)
        height, width, _ = info.features[key].shape
        if video.size != (height, width):
            fail(path, f"size of {key}", video.size, f"{(height, width)} as in {info.file}", index)
        exact = info.version == "v2.1"
        if video.num_frames < end or (exact and video.num_frames != end):
            expected = end if exact else f"at least {end}"
            fail(path, f"number of frames of {key}", video.num_frames, expected, index)
        if video.num_frames > 1 and abs(video.fps / info.fps - 1) > 0.01:
            fail(path, f"fps of {key}", f"{video.fps:g}", f"{info.fps:g}", index)
        if not exact:
            _check_times(info, path, key, video)


def _check_times(info: Info, path: Path, key: str, video: VideoInfo) -> None:
    """Where time stamps name frames, frame n is shown at n / fps seconds."""
    late = np.abs(video.seconds * info.fps - np.arange(video.num_frames)) > 0.5
    if late.any():
        frame = int(late.argmax())
        found, expected = f"{video.seconds[frame]:.4g} s", f"{frame / info.fps:.4g} s"
        fail(path, f"time of frame {frame} of {key}", found, expected)


def fingerprint(folder: Path) -> str:
    """Hash of the names and the content of a data set's files, wherever the folder lies."""
    digest = sha256()
    files = [path for part in ("meta", "data", "videos") for path in (folder / part).rglob("*")]
    for path in sorted(path for path in files if path.is_file()):
        with path.open("rb") as stream:
            content = file_digest(stream, "sha256").hexdigest()
        digest.update(f"{path.relative_to(folder).as_posix()}\0{content}\0".encode())
    return digest.hexdigest()
