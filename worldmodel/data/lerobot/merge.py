"""Merge staged episodes into the few files of a LeRobot v3.0 data set."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from einops import rearrange
from jaxtyping import Shaped

from worldmodel.data.lerobot.schema import (
    CHUNK_FILES,
    DATA_FILE_MB,
    DATA_PATH,
    EPISODES_PATH,
    IMAGE_PREFIX,
    VIDEO_FILE_MB,
    VIDEO_PATH,
    LeRobotSchema,
)
from worldmodel.data.lerobot.statistics import column_statistics, image_statistics
from worldmodel.data.video.write import concatenate_videos, video_properties
from worldmodel.files import write_json

Columns = dict[str, np.ndarray]  # `rows` or `rows dim` each


@dataclass(frozen=True)
class StagedEpisode:
    """One episode waiting to be merged.

    Attributes:
        folder: Holds `<view>.mp4` for every view.
        columns: Arrays of `length` rows by column name.
        histograms: How often each colour value occurs, `3 256`, by view.
        task: The task in words.
        length: Number of rows and frames.
        metadata: Facts for `meta/episodes`.
    """

    folder: Path
    columns: Columns
    histograms: dict[str, Shaped[np.ndarray, "3 256"]]
    task: str
    length: int
    metadata: dict[str, int | float | str]

    @property
    def fields(self) -> list[str]:
        """Names of the columns and of the metadata."""
        return sorted([*self.columns, *self.metadata])


def merge_episodes(folder: Path, schema: LeRobotSchema, episodes: Sequence[StagedEpisode]) -> None:
    """Write `data`, `videos` and `meta` of a LeRobot v3.0 data set into `folder`.

    Raises:
        ValueError: A staged video does not hold `length` frames.
    """
    lengths = [each.length for each in episodes]
    tasks = list(dict.fromkeys(each.task for each in episodes))
    tables = _number_rows(schema.fps, tasks, episodes)
    table = {
        "episode_index": list(range(len(episodes))),
        "tasks": [[each.task] for each in episodes],
        "length": lengths,
    }
    table |= _write_data(folder, tables, lengths)
    features = schema.features(has_rewards="next.reward" in tables[0], has_successes="next.success" in tables[0])
    for view in schema.views:
        key = f"{IMAGE_PREFIX}{view}"
        parts = [each.folder / f"{view}.mp4" for each in episodes]
        table |= _write_videos(folder, key, parts, lengths, schema.fps)
        first = folder / VIDEO_PATH.format(video_key=key, chunk_index=0, file_index=0)
        features[key]["info"] = video_properties(first)
    _write_meta(folder, table, tables, episodes)
    _write_tasks(folder / "meta" / "tasks.parquet", tasks)
    info = schema.info(episodes=len(lengths), frames=sum(lengths), tasks=len(tasks), features=features)
    write_json(folder / "meta" / "info.json", info)


def _number_rows(fps: int, tasks: Sequence[str], episodes: Sequence[StagedEpisode]) -> list[Columns]:
    """The columns of every episode with time, frame, episode, row and task numbers added."""
    tables, first = [], 0
    for number, episode in enumerate(episodes):
        frame = np.arange(episode.length)
        numbers = {
            "timestamp": (frame / fps).astype(np.float32),
            "frame_index": frame,
            "episode_index": np.full(episode.length, number),
            "index": first + frame,
            "task_index": np.full(episode.length, tasks.index(episode.task)),
        }
        tables.append(episode.columns | numbers)
        first += episode.length
    return tables


def _groups(sizes: Sequence[int], limit_mb: int) -> list[range]:
    """Consecutive episodes that share a file of at most `limit_mb`, or of one episode."""
    starts, filled = [0], 0
    for number, size in enumerate(sizes):
        if filled and filled + size > limit_mb * 1024**2:
            starts.append(number)
            filled = 0
        filled += size
    return [range(a, b) for a, b in zip(starts, [*starts[1:], len(sizes)], strict=True)]


def _places(prefix: str, groups: Sequence[range]) -> dict[str, list[int]]:
    """The chunk and file number of every episode."""
    files = [number for number, group in enumerate(groups) for _ in group]
    return {
        f"{prefix}/chunk_index": [number // CHUNK_FILES for number in files],
        f"{prefix}/file_index": [number % CHUNK_FILES for number in files],
    }


def _write_data(folder: Path, tables: Sequence[Columns], lengths: Sequence[int]) -> dict[str, list[int]]:
    sizes = [sum(values.nbytes for values in table.values()) for table in tables]
    groups = _groups(sizes, DATA_FILE_MB)
    for number, group in enumerate(groups):
        chunk, file = divmod(number, CHUNK_FILES)
        arrays = {name: _arrow(np.concatenate([tables[i][name] for i in group])) for name in tables[0]}
        _write_parquet(folder / DATA_PATH.format(chunk_index=chunk, file_index=file), pa.table(arrays))
    stops = np.cumsum(lengths)
    rows = {"dataset_from_index": (stops - lengths).tolist(), "dataset_to_index": stops.tolist()}
    return _places("data", groups) | rows


def _arrow(values: Shaped[np.ndarray, "rows ..."]) -> pa.Array:
    """A column of numbers, or of vectors; LeRobot stores vectors of one number as numbers."""
    if values.ndim == 1:
        return pa.array(values)
    flat = pa.array(rearrange(values, "rows dim -> (rows dim)"))
    return flat if values.shape[1] == 1 else pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def _write_videos(
    folder: Path, key: str, parts: Sequence[Path], lengths: Sequence[int], fps: int
) -> dict[str, list[int | float]]:
    groups = _groups([part.stat().st_size for part in parts], VIDEO_FILE_MB)
    starts, stops = [], []
    for number, group in enumerate(groups):
        chunk, file = divmod(number, CHUNK_FILES)
        video = folder / VIDEO_PATH.format(video_key=key, chunk_index=chunk, file_index=file)
        video.parent.mkdir(parents=True, exist_ok=True)
        inside = lengths[group.start : group.stop]
        concatenate_videos(video, parts[group.start : group.stop], inside, fps)
        ends = np.cumsum(inside)
        starts += ((ends - inside) / fps).tolist()
        stops += (ends / fps).tolist()
    times = {f"videos/{key}/from_timestamp": starts, f"videos/{key}/to_timestamp": stops}
    return _places(f"videos/{key}", groups) | times


def _write_meta(
    folder: Path, table: dict[str, list], tables: Sequence[Columns], episodes: Sequence[StagedEpisode]
) -> None:
    """Write `meta/stats.json`, and `meta/episodes` from the columns so far."""
    for name in episodes[0].metadata:
        table[name] = [each.metadata[name] for each in episodes]
    each_one = [
        _statistics(rows, episode.histograms, episode.length) for rows, episode in zip(tables, episodes, strict=True)
    ]
    for feature, values in each_one[0].items():
        for name in values:
            table[f"stats/{feature}/{name}"] = [each[feature][name] for each in each_one]
    table |= _places("meta/episodes", [range(len(episodes))])
    _write_parquet(folder / EPISODES_PATH.format(chunk_index=0, file_index=0), pa.table(table))
    rows = {name: np.concatenate([each[name] for each in tables]) for name in tables[0]}
    histograms = {view: sum(each.histograms[view] for each in episodes) for view in episodes[0].histograms}
    write_json(folder / "meta" / "stats.json", _statistics(rows, histograms, len(rows["index"])))


def _statistics(
    rows: Columns, histograms: Mapping[str, Shaped[np.ndarray, "3 256"]], num_frames: int
) -> dict[str, dict[str, list]]:
    images = {
        f"{IMAGE_PREFIX}{view}": image_statistics(histogram, num_frames) for view, histogram in histograms.items()
    }
    columns = {
        name: column_statistics(values if values.ndim == 2 else values[:, None]) for name, values in rows.items()
    }
    return images | columns


def _write_parquet(file: Path, table: pa.Table) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file)


def _write_tasks(file: Path, tasks: Sequence[str]) -> None:
    """Write the tasks as a table that pandas reads with the task as its index."""
    index = "__index_level_0__"
    columns = [
        {
            "name": "task_index",
            "field_name": "task_index",
            "pandas_type": "int64",
            "numpy_type": "int64",
            "metadata": None,
        },
        {"name": None, "field_name": index, "pandas_type": "unicode", "numpy_type": "object", "metadata": None},
    ]
    pandas = {"index_columns": [index], "column_indexes": [], "columns": columns}
    table = pa.table({"task_index": list(range(len(tasks))), index: list(tasks)})
    _write_parquet(file, table.replace_schema_metadata({"pandas": json.dumps(pandas)}))
