"""Reading JSON and parquet of a LeRobot folder, every fault reported as a `ValueError`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Shaped

from worldmodel.data.checks import fail

CODEBASE_VERSIONS = ("v2.0", "v2.1", "v3.0")
KINDS = {"float": "f", "int": "iu", "uint": "iu", "bool": "b"}
LAYOUTS = "a LeRobot data set with meta/info.json, folders episode_*/ with mp4 files, or HDF5 files"
BROKEN_FILE = (OSError, ValueError, MemoryError, RecursionError, OverflowError, pa.ArrowException)


@dataclass(frozen=True)
class Feature:
    """One entry of `features` in `meta/info.json`.

    Attributes:
        dtype: `float32`, `int64`, `bool`, `video`, ...
        shape: As declared; `(H, W, 3)` for a video whatever the declared order.
        fps: Frames per second of a video where declared.
    """

    dtype: str
    shape: tuple[int, ...]
    fps: float | None = None


@dataclass(frozen=True)
class Info:
    """The checked content of `meta/info.json`; `total_videos` is `None` where not declared."""

    file: Path
    version: str
    robot_type: str
    fps: float
    total_episodes: int
    total_frames: int
    total_videos: int | None
    chunks_size: int
    data_path: str
    video_path: str
    features: dict[str, Feature]

    @property
    def folder(self) -> Path:
        """Root of the data set."""
        return self.file.parent.parent

    @property
    def per_episode(self) -> bool:
        """Whether every episode has files of its own, as before v3.0."""
        return self.version != "v3.0"

    @property
    def cameras(self) -> tuple[str, ...]:
        """Keys of the video features."""
        return tuple(key for key, value in self.features.items() if value.dtype == "video")

    def resolve(self, field: str, **values: object) -> Path:
        """Fill in `data_path` or `video_path`; the file must exist.

        Raises:
            ValueError: If the template cannot be filled in or the file is missing.
        """
        template = getattr(self, field)
        try:
            path = self.folder / template.format(**values)
            exists = path.is_file()
        except (KeyError, IndexError, AttributeError, TypeError, ValueError, OSError) as error:
            reason = f"a template of {sorted(values)} ({error})"
            fail(self.file, field, repr(template), reason)
        if not exists:
            fail(path, f"file named by {field}", "missing", "a file", values.get("episode_index"))
        return path


def read_json(file: Path) -> Any:
    """Parse one JSON file."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except BROKEN_FILE as error:
        raise ValueError(f"{file}: content is not readable JSON: {error}") from error


def read_json_lines(file: Path) -> list[dict[str, Any]]:
    """Parse one JSON object per line; blank lines are skipped."""
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
        rows = [json.loads(line) for line in lines if line.strip()]
    except BROKEN_FILE as error:
        raise ValueError(f"{file}: content is not readable JSON lines: {error}") from error
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            fail(file, f"row {number}", type(row).__name__, "a JSON object")
    return rows


def read_table(file: Path, *, without: str = "stats/") -> pa.Table:
    """Read the columns of a parquet file whose names do not start with `without`."""
    try:
        names = [n for n in pq.read_schema(file).names if not n.startswith(without)]
        with pq.ParquetFile(file, page_checksum_verification=True) as parquet:
            table = parquet.read(columns=names)
        table.validate(full=True)
    except BROKEN_FILE as error:
        raise ValueError(f"{file}: content is not readable parquet: {error}") from error
    if len(set(table.column_names)) != len(table.column_names):
        fail(file, "columns", table.column_names, "distinct names")
    return table


def read_info(folder: Path) -> Info:
    """Read and check `meta/info.json`."""
    file = folder / "meta" / "info.json"
    if not file.is_file():
        fail(file, "file", "missing", LAYOUTS)
    raw = read_json(file)
    if not isinstance(raw, dict):
        fail(file, "content", type(raw).__name__, "a JSON object")
    version = raw.get("codebase_version")
    if version not in CODEBASE_VERSIONS:
        fail(file, "codebase_version", repr(version), " or ".join(CODEBASE_VERSIONS))
    robot_type = raw.get("robot_type")
    if not isinstance(robot_type, str | None):
        fail(file, "robot_type", repr(robot_type), "a string or null")
    features = raw.get("features")
    if not isinstance(features, dict):
        fail(file, "features", repr(features), "a JSON object")
    total_videos = raw.get("total_videos")
    info = Info(
        file=file,
        version=version,
        robot_type=robot_type or "",
        fps=positive_number(file, "fps", raw.get("fps")),
        total_episodes=whole_number(file, "total_episodes", raw.get("total_episodes"), least=1),
        total_frames=whole_number(file, "total_frames", raw.get("total_frames"), least=1),
        total_videos=None if total_videos is None else whole_number(file, "total_videos", total_videos),
        chunks_size=whole_number(file, "chunks_size", raw.get("chunks_size", 1000), least=1),
        data_path=text(file, "data_path", raw.get("data_path")),
        video_path=text(file, "video_path", raw.get("video_path")),
        features={key: _feature(file, key, value) for key, value in features.items()},
    )
    _check_cameras(info)
    return info


def _check_cameras(info: Info) -> None:
    if not info.cameras:
        fail(info.file, "number of video features", 0, "at least one camera")
    for key in info.cameras:
        declared = info.features[key].fps
        if declared is not None and abs(declared / info.fps - 1) > 0.01:
            fail(info.file, f"video.fps of {key}", declared, f"fps {info.fps:g}")


def _feature(file: Path, key: str, raw: object) -> Feature:
    if not isinstance(raw, dict):
        fail(file, f"feature {key}", repr(raw), "a JSON object")
    dtype = text(file, f"dtype of {key}", raw.get("dtype"))
    shape = raw.get("shape")
    if not isinstance(shape, list):
        fail(file, f"shape of {key}", repr(shape), "a list")
    shape = tuple(whole_number(file, f"shape of {key}", side, least=1) for side in shape)
    if dtype == "image":
        fail(file, f"dtype of {key}", dtype, "video: pictures inside tables are not supported")
    if dtype != "video":
        return Feature(dtype, shape)
    details = raw.get("info") or raw.get("video_info") or {}
    fps = details.get("video.fps") if isinstance(details, dict) else None
    if fps is not None:
        fps = positive_number(file, f"video.fps of {key}", fps)
    return Feature(dtype, _picture_shape(file, key, shape, raw.get("names")), fps)


def _picture_shape(file: Path, key: str, shape: tuple[int, ...], names: object) -> tuple[int, ...]:
    """`(H, W, 3)` from a shape whose axes are named, or channels last by default."""
    if len(shape) != 3:
        fail(file, f"shape of {key}", shape, "three axes")
    if isinstance(names, list) and names and str(names[0]).startswith("channel"):
        shape = (*shape[1:], shape[0])
    if shape[2] != 3:
        fail(file, f"channels of {key}", shape[2], 3)
    return shape


def text(file: Path, field: str, value: object, episode: int | None = None) -> str:
    """`value` as a string that is not empty."""
    if not isinstance(value, str) or not value:
        fail(file, field, repr(value), "a string", episode)
    return value


def whole_number(file: Path, field: str, value: object, *, least: int = 0, episode: int | None = None) -> int:
    """`value` as an integer of at least `least`."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 2**63:
        fail(file, field, repr(value), f"an integer of at least {least}", episode)
    return value


def positive_number(file: Path, field: str, value: object, episode: int | None = None) -> float:
    """`value` as a finite float above 0."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1e9:
        fail(file, field, repr(value), "a positive number", episode)
    return float(value)


def column(
    file: Path, table: pa.Table, name: str, feature: Feature, episode: int | None = None
) -> Shaped[np.ndarray, "rows width"]:
    """A column of scalars or 1-D lists as a matrix, in its own precision.

    Raises:
        ValueError: If the column is missing, has another type or width than declared, or holds
            nulls.
    """
    if name not in table.column_names:
        fail(file, f"column {name}", "missing", f"one of {table.column_names}", episode)
    if len(feature.shape) > 1:
        fail(file, f"shape of {name}", feature.shape, "at most one axis", episode)
    width = feature.shape[0] if feature.shape else 1
    values = table.column(name).combine_chunks()
    if isinstance(values, pa.ChunkedArray):
        values = pa.concat_arrays(values.chunks) if values.chunks else pa.array([], values.type)
    if values.null_count:
        fail(file, f"nulls in {name}", values.null_count, 0, episode)
    kind = values.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        sizes = pc.unique(pc.list_value_length(values)).to_pylist()
        if sizes != [width] and len(values):
            fail(file, f"width of {name}", sizes, width, episode)
        values = values.flatten()
    elif width != 1:
        fail(file, f"width of {name}", 1, width, episode)
    declared = KINDS.get(feature.dtype.rstrip("0123456789"), "")
    array = _numbers(file, name, values, feature.dtype, episode)
    if array.dtype.kind not in declared:
        fail(file, f"dtype of {name}", array.dtype, feature.dtype, episode)
    return array.reshape(len(table), width)


def _numbers(file: Path, name: str, values: pa.Array, expected: str, episode: int | None) -> np.ndarray:
    kind = values.type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        fail(file, f"dtype of {name}", kind, expected, episode)
    if values.null_count:
        fail(file, f"nulls in {name}", values.null_count, 0, episode)
    return values.to_numpy(zero_copy_only=False)
