"""One checked record per episode of a LeRobot data set, v2.0, v2.1 or v3.0."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Shaped

from worldmodel.data.checks import finite
from worldmodel.data.lerobot.tables import (
    Info,
    column,
    fail,
    positive_number,
    read_json_lines,
    read_table,
    text,
    whole_number,
)
from worldmodel.data.source import Rows

ROUNDING = 0.25  # of a frame: how far a time stamp may lie from the frame it names


@dataclass(frozen=True)
class Episode:
    """The facts about one episode in `meta/`; its row is kept for columns such as `reset_seed`.

    Attributes:
        file: The table or JSON-lines file that lists the episode.
        videos: For each camera key, the mp4 and the first frame of the episode in it.
    """

    index: int
    length: int
    file: Path
    row: dict[str, Any]
    data: Path
    videos: dict[str, tuple[Path, int]]


def read_episodes(info: Info) -> list[Episode]:
    """All episodes in order of their index, `0, 1, ...`.

    Raises:
        ValueError: If an episode is missing, listed twice or empty, a file is missing, or the
            numbers of one episode disagree.
    """
    episodes = _read_v2(info) if info.per_episode else _read_v30(info)
    episodes.sort(key=lambda episode: episode.index)
    for expected, episode in enumerate(episodes):
        if episode.index != expected:
            fail(episode.file, "episode_index", episode.index, expected, expected)
    _check_overlap(episodes)
    return episodes


def check_totals(info: Info, episodes: Sequence[Episode]) -> None:
    """Check the totals of `meta/info.json` against the episodes.

    Raises:
        ValueError: If they disagree.
    """
    if len(episodes) != info.total_episodes:
        fail(info.file, "total_episodes", info.total_episodes, f"{len(episodes)} as listed")
    frames = sum(episode.length for episode in episodes)
    if frames != info.total_frames:
        fail(info.file, "total_frames", info.total_frames, f"{frames}, the sum of all lengths")
    if info.total_videos is not None and info.per_episode:
        videos = len(episodes) * len(info.cameras)
        if info.total_videos != videos:
            fail(info.file, "total_videos", info.total_videos, f"{videos}, episodes x cameras")


def _read_v2(info: Info) -> list[Episode]:
    file = info.folder / "meta" / "episodes.jsonl"
    episodes = []
    for row in read_json_lines(file):
        index = whole_number(file, "episode_index", row.get("episode_index"))
        length = whole_number(file, "length", row.get("length"), least=1, episode=index)
        names = {"episode_chunk": index // info.chunks_size, "episode_index": index}
        videos = {key: (info.resolve("video_path", video_key=key, **names), 0) for key in info.cameras}
        episodes.append(Episode(index, length, file, row, info.resolve("data_path", **names), videos))
    return episodes


def _read_v30(info: Info) -> list[Episode]:
    folder = info.folder / "meta" / "episodes"
    files = sorted(folder.glob("chunk-*/file-*.parquet"))
    if not files:
        fail(folder, "number of chunk-*/file-*.parquet", 0, "at least 1")
    episodes = []
    for file in files:
        table = read_table(file)
        undeclared = {name.split("/")[1] for name in table.column_names if name.startswith("videos/")} - set(
            info.cameras
        )
        if undeclared:
            fail(file, "cameras", sorted(undeclared), f"only those of {info.file}")
        episodes += [_episode_v30(info, file, row) for row in _python_rows(file, table)]
    return episodes


def _python_rows(file: Path, table: pa.Table) -> list[dict[str, Any]]:
    try:
        return table.to_pylist()
    except (ValueError, OverflowError, pa.ArrowException) as error:
        raise ValueError(f"{file}: a cell is not readable: {error}") from error


def _episode_v30(info: Info, file: Path, row: dict[str, Any]) -> Episode:
    index = whole_number(file, "episode_index", row.get("episode_index"))
    number = partial(whole_number, file, episode=index)
    length = number("length", row.get("length"), least=1)
    data = _chunked_file(info, "data_path", file, row, "data", index)
    if "dataset_from_index" in row:
        first, last = (number(k, row.get(k)) for k in ("dataset_from_index", "dataset_to_index"))
        if last - first != length:
            fail(file, "dataset_to_index - dataset_from_index", last - first, length, index)
    videos = {}
    for key in info.cameras:
        prefix = f"videos/{key}"
        path = _chunked_file(info, "video_path", file, row, prefix, index, video_key=key)
        videos[key] = path, _first_frame(info, file, row, prefix, index, length)
    return Episode(index, length, file, row, data, videos)


def _chunked_file(
    info: Info, field: str, file: Path, row: dict[str, Any], prefix: str, index: int, **names: str
) -> Path:
    numbers = {
        name: whole_number(file, f"{prefix}/{name}", row.get(f"{prefix}/{name}"), episode=index)
        for name in ("chunk_index", "file_index")
    }
    return info.resolve(field, **numbers, **names)


def _first_frame(info: Info, file: Path, row: dict[str, Any], prefix: str, index: int, length: int) -> int:
    """The frame that `from_timestamp` names, checked against `to_timestamp`."""
    start, stop = (row.get(f"{prefix}/{end}_timestamp") for end in ("from", "to"))
    if start != 0:
        start = positive_number(file, f"{prefix}/from_timestamp", start, index)
    stop = positive_number(file, f"{prefix}/to_timestamp", stop, index)
    first = round(start * info.fps)
    if abs(start * info.fps - first) > ROUNDING:
        expected = f"a multiple of 1 / {info.fps:g}"
        fail(file, f"{prefix}/from_timestamp", start, expected, index)
    frames = (stop - start) * info.fps
    if abs(frames - length) > 2 * ROUNDING:
        fail(file, f"frames between {prefix} time stamps", f"{frames:.4g}", length, index)
    return first


def _check_overlap(episodes: Sequence[Episode]) -> None:
    """Check that no frame of a video belongs to two episodes."""
    spans: dict[Path, list[tuple[int, Episode, str]]] = {}
    for episode in episodes:
        for key, (path, first) in episode.videos.items():
            spans.setdefault(path, []).append((first, episode, key))
    for path, uses in spans.items():
        uses.sort(key=lambda use: use[0])
        for (first, before, _), (start, episode, key) in pairwise(uses):
            if start < first + before.length:
                free = f"at least {first + before.length}, the end of episode {before.index}"
                fail(path, f"first frame of {key}", start, free, episode.index)


def read_tasks(info: Info) -> dict[int, str]:
    """Task texts by `task_index`; empty where the data set has none."""
    if info.per_episode:
        file = info.folder / "meta" / "tasks.jsonl"
        rows = read_json_lines(file) if file.is_file() else []
    else:
        file = info.folder / "meta" / "tasks.parquet"
        rows = _python_rows(file, read_table(file)) if file.is_file() else []
    tasks = {}
    for row in rows:
        index = whole_number(file, "task_index", row.get("task_index"))
        task = row.get("task", row.get("__index_level_0__"))
        if index in tasks:
            fail(file, "task_index", f"{index} twice", "distinct numbers")
        if not isinstance(task, str):
            fail(file, f"task of task_index {index}", repr(task), "a string")
        tasks[index] = task
    return tasks


def read_rows(info: Info, episodes: Sequence[Episode]) -> list[Rows]:
    """The table rows of every episode, each file read once.

    Raises:
        ValueError: If a column is missing or of the wrong kind, a value is not finite, or rows
            and lengths disagree.
    """
    tasks = read_tasks(info)
    by_file: dict[Path, list[Episode]] = {}
    for episode in episodes:
        by_file.setdefault(episode.data, []).append(episode)
    rows: dict[int, Rows] = {}
    for file, members in by_file.items():
        for episode, table in _split(info, file, members):
            rows[episode.index] = _rows(info, episode, table, tasks)
    return [rows[episode.index] for episode in episodes]


def _split(info: Info, file: Path, members: Sequence[Episode]) -> Iterator[tuple[Episode, pa.Table]]:
    """Cut the table of one file into the episodes it must hold, no row left over."""
    table = read_table(file, without="observation.images.")
    declared = {key for key, value in info.features.items() if value.dtype != "video"}
    if set(table.column_names) != declared:
        fail(file, "columns", sorted(table.column_names), f"{sorted(declared)} as in {info.file}")
    if "episode_index" not in declared or "frame_index" not in declared:
        fail(info.file, "features", sorted(declared), "among them episode_index and frame_index")
    indices = column(file, table, "episode_index", info.features["episode_index"])[:, 0]
    found, firsts, counts = np.unique(indices, return_index=True, return_counts=True)
    expected = [episode.index for episode in members]
    if found.tolist() != expected:
        fail(file, "episode_index", found.tolist(), expected, expected[0])
    for episode, first, count in zip(members, firsts.tolist(), counts.tolist(), strict=True):
        if count != episode.length:
            fail(file, "number of rows", count, f"{episode.length}, its length", episode.index)
        if not (indices[first : first + count] == episode.index).all():
            fail(file, "order of rows", "interleaved", "one block of rows", episode.index)
        yield episode, table.slice(first, count)


def _rows(info: Info, episode: Episode, table: pa.Table, tasks: dict[int, str]) -> Rows:
    _check_counters(info, episode, table)
    read = partial(_numbers, info, episode, table)
    rewards, successes = read("next.reward"), read("next.success")
    if rewards is not None and rewards.shape[1] != 1:
        fail(episode.data, "width of next.reward", rewards.shape[1], 1, episode.index)
    if successes is not None and successes.shape[1] != 1:
        fail(episode.data, "width of next.success", successes.shape[1], 1, episode.index)
    return Rows(
        task=_task(info, episode, table, tasks),
        actions=read("action"),
        states=read("observation.state"),
        rewards=None if rewards is None else rewards[:, 0],
        successes=None if successes is None else successes[:, 0] > 0,
    )


def _numbers(info: Info, episode: Episode, table: pa.Table, name: str) -> Float32[np.ndarray, "t width"] | None:
    if name not in info.features:
        return None
    values = column(episode.data, table, name, info.features[name], episode.index)
    return finite(episode.data, name, values, episode.index)


def _counter(info: Info, episode: Episode, table: pa.Table, name: str) -> Shaped[np.ndarray, " t"] | None:
    if name not in info.features:
        return None
    values = column(episode.data, table, name, info.features[name], episode.index)
    if values.shape[1] != 1:
        fail(episode.data, f"width of {name}", values.shape[1], 1, episode.index)
    return values[:, 0]


def _check_counters(info: Info, episode: Episode, table: pa.Table) -> None:
    """Check that `frame_index`, `timestamp` and `index` count the frames of the episode."""
    steps = np.arange(episode.length)
    first = episode.row.get("dataset_from_index")
    expectations = {
        "frame_index": (steps, 0.0),
        "timestamp": (steps / info.fps, ROUNDING / info.fps),
        "index": (None if first is None else first + steps, 0.0),
    }
    for name, (expected, tolerance) in expectations.items():
        found = _counter(info, episode, table, name)
        if found is None or expected is None:
            continue
        wrong = ~(np.abs(found - expected) <= tolerance) if tolerance else found != expected
        if wrong.any():
            frame = int(wrong.argmax())
            fail(episode.data, f"{name} of frame {frame}", found[frame], expected[frame], episode.index)


def _task(info: Info, episode: Episode, table: pa.Table, tasks: dict[int, str]) -> str:
    """The task of the first row, which must be among those that `meta/` lists."""
    listed = episode.row.get("tasks")
    if listed is not None and not isinstance(listed, list):
        fail(episode.file, "tasks", repr(listed), "a list", episode.index)
    indices = _counter(info, episode, table, "task_index")
    if indices is None:
        return text(episode.file, "tasks[0]", listed[0], episode.index) if listed else ""
    unknown = sorted(set(indices.tolist()) - set(tasks))
    if unknown:
        fail(episode.data, "task_index", unknown[0], f"one of {sorted(tasks)}", episode.index)
    task = tasks[int(indices[0])]
    if listed is not None and task not in listed:
        fail(episode.file, "tasks", listed, f"{task!r} among them", episode.index)
    return task


def reset_seed(episode: Episode) -> int | None:
    """The `reset_seed` of the episode's row in `meta/`, where there is one."""
    seed = episode.row.get("reset_seed")
    if seed is None:
        return None
    return whole_number(episode.file, "reset_seed", seed, episode=episode.index)


def recorded_shift(episodes: Sequence[Episode]) -> str:
    """The controlled shift that `meta/` names for every episode; empty for none.

    Raises:
        ValueError: If episodes were recorded with different shifts.
    """
    shift = episodes[0].row.get("shift") or ""
    for episode in episodes:
        found = episode.row.get("shift") or ""
        if found != shift or not isinstance(found, str):
            fail(episode.file, "shift", repr(found), repr(shift), episode.index)
    return shift
