"""LeRobot folders, v2.0, v2.1 and v3.0."""

from pathlib import Path

import numpy as np

from worldmodel.data.lerobot.episodes import Episode, check_totals, read_episodes, read_rows, recorded_shift, reset_seed
from worldmodel.data.lerobot.tables import Info, fail, read_info
from worldmodel.data.options import Request
from worldmodel.data.source import TableSource, VideoPictures, fingerprint, letterboxes
from worldmodel.data.video.decoders import VideoInfo, video_info

PREFIX = "observation.images."
PARTS = ("meta", "data", "videos")


def open_lerobot(path: Path, request: Request) -> TableSource:
    """Open a LeRobot data set and check everything that needs no decoding.

    Args:
        path: Folder that holds `meta/info.json`.
        request: What to read of it.

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
    size, boxes = letterboxes((info.features[key].shape[:2] for key in info.cameras), request.size)
    videos = tuple(tuple(episode.videos[key] for key in info.cameras) for episode in episodes)
    return TableSource(
        name=str(path),
        views=tuple(key.removeprefix(PREFIX) for key in info.cameras),
        fps=info.fps,
        size=size,
        robot_type=info.robot_type,
        fingerprint=fingerprint(folder, (f for part in PARTS for f in (folder / part).rglob("*"))),
        lengths=tuple(episode.length for episode in episodes),
        boxes=boxes,
        cameras=info.cameras,
        pictures=VideoPictures(videos),
        rows=tuple(rows),
        seeds=tuple(reset_seed(episode) for episode in episodes),
        shift=recorded_shift(episodes),
    )


def recorded_policies(path: Path | str) -> tuple[str | None, ...]:
    """Who acted in each episode of a LeRobot data set; `None` where `meta/` names no `policy`.

    Raises:
        ValueError: If the folder is malformed.
    """
    return tuple(episode.row.get("policy") for episode in read_episodes(read_info(Path(path))))


def _check_videos(info: Info, episodes: list[Episode]) -> None:
    """Check that every video file holds the frames of its episodes, in the declared size."""
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
        exact = info.per_episode
        if video.num_frames < end or (exact and video.num_frames != end):
            expected = end if exact else f"at least {end}"
            fail(path, f"number of frames of {key}", video.num_frames, expected, index)
        if video.num_frames > 1 and abs(video.fps / info.fps - 1) > 0.01:
            fail(path, f"fps of {key}", f"{video.fps:g}", f"{info.fps:g}", index)
        if not exact:
            _check_times(info, path, key, video)


def _check_times(info: Info, path: Path, key: str, video: VideoInfo) -> None:
    """Check that frame n is shown at n / fps seconds, where frames are named by time stamps."""
    late = np.abs(video.seconds * info.fps - np.arange(video.num_frames)) > 0.5
    if late.any():
        frame = int(late.argmax())
        found, expected = f"{video.seconds[frame]:.4g} s", f"{frame / info.fps:.4g} s"
        fail(path, f"time of frame {frame} of {key}", found, expected)
