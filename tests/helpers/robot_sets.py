"""LeRobot data sets made by code, whose pictures show which episode and frame they are.

The three fields of a picture are grey: `20 + 40 e`, `20 + 8 f` and `20 + 100 c` for frame `f` of episode `e` and
camera `c`; `action[f] = arange(4) + 100 e + f`, `state[f] = arange(5) + 100 e + f / 10`.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from worldmodel.data.formats import open_set
from worldmodel.data.options import Request
from worldmodel.data.source import TableSource
from worldmodel.data.video.write import concatenate_videos, encode_video

FPS = 10
LENGTHS = (21, 17, 25, 19)
SIZE = (32, 48)
PREFIX = "observation.images."
V2_PATHS = {
    "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
    "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
}
V3_PATHS = {
    "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
    "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
}


@dataclass(frozen=True)
class Kind:
    """What to write: cameras in videos and cameras whose pictures are in the tables."""

    version: str
    videos: tuple[str, ...] = ("top", "wrist")
    images: tuple[str, ...] = ()


KINDS = {
    "v2.1": Kind("v2.1"),
    "v3.0": Kind("v3.0"),
    "v3.0 images": Kind("v3.0", (), ("top", "wrist")),
    "v2.1 mixed": Kind("v2.1", ("top",), ("wrist",)),
}


def picture(episode: int, frame: int, camera: int) -> np.ndarray:
    """The picture of a frame."""
    greys = np.array([20 + 40 * episode, 20 + 8 * frame, 20 + 100 * camera], np.uint8)
    row = np.repeat(greys, SIZE[1] // 3)
    return np.broadcast_to(row[None, :, None], (*SIZE, 3)).copy()


def shown(pictures: np.ndarray) -> list[tuple[int, int]]:
    """Episode and frame that each picture of a camera shows."""
    third = SIZE[1] // 3
    greys = [pictures[:, 4:-4, third * i + 4 : third * (i + 1) - 4].mean((1, 2, 3)) for i in (0, 1)]
    episodes, frames = (np.rint((grey - 20) / step).astype(int) for grey, step in zip(greys, (40, 8), strict=True))
    return list(zip(episodes.tolist(), frames.tolist(), strict=True))


def write_set(folder: Path, kind: Kind, lengths: Sequence[int] = LENGTHS) -> Path:
    """Write a data set."""
    cameras = (*kind.videos, *kind.images)
    tables = [episode_table(kind, cameras, e, length, sum(lengths[:e])) for e, length in enumerate(lengths)]
    (folder / "meta").mkdir(parents=True)
    write = _write_v2 if kind.version != "v3.0" else _write_v3
    write(folder, kind, cameras, tables)
    content = {
        "codebase_version": kind.version,
        "robot_type": "testbot",
        "total_episodes": len(lengths),
        "total_frames": sum(lengths),
        "total_tasks": 1,
        "chunks_size": 1000,
        "fps": FPS,
        **(V2_PATHS if kind.version != "v3.0" else V3_PATHS),
        "features": features(kind, cameras),
    }
    (folder / "meta" / "info.json").write_text(json.dumps(content, indent=1))
    return folder


def features(kind: Kind, cameras: Sequence[str]) -> dict[str, dict]:
    """The `features` of `meta/info.json`."""
    found: dict[str, dict] = {}
    for camera in cameras:
        dtype = "video" if camera in kind.videos else "image"
        found[PREFIX + camera] = {"dtype": dtype, "shape": [*SIZE, 3], "names": ["height", "width", "channels"]}
        if dtype == "video":
            found[PREFIX + camera]["info"] = {"video.fps": FPS, "video.is_depth_map": False}
    found["action"] = {"dtype": "float32", "shape": [4], "names": ["a", "b", "c", "d"]}
    found["observation.state"] = {"dtype": "float32", "shape": [5], "names": None}
    found["timestamp"] = {"dtype": "float32", "shape": [1], "names": None}
    counters = ("frame_index", "episode_index", "index", "task_index")
    return found | {name: {"dtype": "int64", "shape": [1], "names": None} for name in counters}


def episode_table(kind: Kind, cameras: Sequence[str], episode: int, length: int, first: int) -> pa.Table:
    """The rows of an episode; `first` is the number of its first row in the data set."""
    frame = np.arange(length)
    columns: dict[str, pa.Array] = {}
    for camera in kind.images:
        cells = [_png(picture(episode, f, cameras.index(camera))) for f in frame]
        columns[PREFIX + camera] = pa.array(cells, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    columns["action"] = _vectors(np.arange(4) + 100 * episode + frame[:, None])
    columns["observation.state"] = _vectors(np.arange(5) + 100 * episode + frame[:, None] / 10)
    columns["timestamp"] = pa.array((frame / FPS).astype(np.float32))
    columns |= {"frame_index": pa.array(frame), "episode_index": pa.array(np.full(length, episode))}
    columns |= {"index": pa.array(first + frame), "task_index": pa.array(np.zeros(length, np.int64))}
    return pa.table(columns)


def _vectors(values: np.ndarray) -> pa.Array:
    flat = pa.array(values.astype(np.float32).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def _png(pixels: np.ndarray) -> dict[str, object]:
    content = BytesIO()
    Image.fromarray(pixels).save(content, "png")
    return {"bytes": content.getvalue(), "path": None}


def frames(episode: int, length: int, camera: int = 0) -> np.ndarray:
    """The first pictures of an episode."""
    return np.stack([picture(episode, frame, camera) for frame in range(length)])


def _write_v2(folder: Path, kind: Kind, cameras: Sequence[str], tables: Sequence[pa.Table]) -> None:
    listed = []
    for episode, table in enumerate(tables):
        names = {"episode_chunk": 0, "episode_index": episode}
        file = folder / V2_PATHS["data_path"].format(**names)
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, file)
        for camera in kind.videos:
            video = folder / V2_PATHS["video_path"].format(video_key=PREFIX + camera, **names)
            video.parent.mkdir(parents=True, exist_ok=True)
            encode_video(video, frames(episode, len(table), cameras.index(camera)), FPS)
        listed.append({"episode_index": episode, "tasks": ["do it"], "length": len(table)})
    (folder / "meta" / "episodes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in listed))
    (folder / "meta" / "tasks.jsonl").write_text(json.dumps({"task_index": 0, "task": "do it"}) + "\n")


def _write_v3(folder: Path, kind: Kind, cameras: Sequence[str], tables: Sequence[pa.Table]) -> None:
    place = {"chunk_index": 0, "file_index": 0}
    file = folder / V3_PATHS["data_path"].format(**place)
    file.parent.mkdir(parents=True)
    pq.write_table(pa.concat_tables(tables), file, row_group_size=20)
    lengths = [len(table) for table in tables]
    stops = np.cumsum(lengths)
    starts, zeros = stops - lengths, [0] * len(tables)
    listed = {"episode_index": list(range(len(tables))), "tasks": [["do it"]] * len(tables), "length": lengths}
    listed |= {"data/chunk_index": zeros, "data/file_index": zeros}
    listed |= {"dataset_from_index": starts.tolist(), "dataset_to_index": stops.tolist()}
    for camera in kind.videos:
        key = PREFIX + camera
        video = folder / V3_PATHS["video_path"].format(video_key=key, **place)
        video.parent.mkdir(parents=True)
        parts = [video.parent / f"part-{episode}.mp4" for episode in range(len(tables))]
        for episode, part in enumerate(parts):
            encode_video(part, frames(episode, lengths[episode], cameras.index(camera)), FPS)
        concatenate_videos(video, parts, lengths, FPS)
        for part in parts:
            part.unlink()
        listed |= {f"videos/{key}/chunk_index": zeros, f"videos/{key}/file_index": zeros}
        listed |= {f"videos/{key}/from_timestamp": (starts / FPS).tolist()}
        listed |= {f"videos/{key}/to_timestamp": (stops / FPS).tolist()}
    table = folder / "meta/episodes/chunk-000/file-000.parquet"
    table.parent.mkdir(parents=True)
    pq.write_table(pa.table(listed), table)
    pq.write_table(pa.table({"task_index": [0], "__index_level_0__": ["do it"]}), folder / "meta" / "tasks.parquet")


def faults(source, lengths: Sequence[int] = LENGTHS, *, chosen: bool = False) -> list[str]:
    """What an opened set returns that was not written; of episodes that were left out only what is said.

    Args:
        source: An opened data set; a `TableSource`.
        lengths: The lengths of all episodes that were written.
        chosen: Whether only some were asked for.
    """
    found = []
    numbers = source.numbers or tuple(range(len(source)))
    notes = " ".join(source.notes)
    if len(numbers) < len(lengths) and "left out" not in notes and not chosen:
        found.append(f"only episodes {numbers} are opened")
    for place, number in enumerate(numbers):
        length = source.lengths[place]
        if length > lengths[number] or (length < lengths[number] and "is cut" not in notes):
            found.append(f"episode {number} has {length} frames of {lengths[number]}")
        clip = source.read(place, 0, length)
        steps = np.arange(length)
        for view in range(clip.frames.shape[1]):
            if shown(clip.frames[:, view].numpy()) != [(number, f) for f in steps.tolist()]:
                found.append(f"episode {number}: pictures of {source.views[view]} are others")
        actions = np.arange(4) + 100 * number + steps[:-1, None]
        if clip.actions is None or not np.array_equal(clip.actions.numpy(), actions.astype(np.float32)):
            found.append(f"episode {number}: the actions are others")
        states = (np.arange(5) + 100 * number + steps[:, None] / 10).astype(np.float32)
        if clip.states is not None and not np.allclose(clip.states.numpy(), states, atol=1e-4):
            found.append(f"episode {number}: the states are others")
    return found


def rows_v2(episode: int) -> str:
    """Table of an episode of a set with files per episode."""
    return V2_PATHS["data_path"].format(episode_chunk=0, episode_index=episode)


def video_v2(episode: int, camera: str = "top") -> str:
    """Video of an episode of a set with files per episode."""
    return V2_PATHS["video_path"].format(episode_chunk=0, episode_index=episode, video_key=PREFIX + camera)


def each_table(folder: Path, edit: Callable[[pa.Table], pa.Table]) -> None:
    """Replace every table in `data/`."""
    for file in (folder / "data").rglob("*.parquet"):
        pq.write_table(edit(pq.ParquetFile(file).read()), file)


def opened(folder: Path, **request: object) -> TableSource:
    """The set; what it returns is compared with what was written."""
    source = open_set(folder, Request(**request))
    assert faults(source, chosen="episodes" in request) == []
    return source


def refusal(folder: Path, **request: object) -> str:
    """The one line, which names the folder, with which a set is refused."""
    with pytest.raises(ValueError) as error:
        open_set(folder, Request(**request))
    assert str(error.value).startswith(str(folder)) and "\n" not in str(error.value)
    return str(error.value)
