"""What `meta/info.json` of a LeRobot folder says."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worldmodel.data.checks import fail
from worldmodel.data.lerobot.findings import Findings
from worldmodel.data.lerobot.tables import read_json

CODEBASE_VERSIONS = ("v2.0", "v2.1", "v3.0")
LAYOUTS = "a LeRobot data set with meta/info.json, folders of videos such as episode_*/top.mp4, or HDF5 files"
PREFIX = "observation.images."
CHUNK_SIZE = 1000


@dataclass(frozen=True)
class Feature:
    """One entry of `features` in `meta/info.json`; `shape` is `None` where it is not declared as a list.

    Attributes:
        dtype: `float32`, `int64`, `bool`, `video`, ...; empty where not declared.
        shape: As declared; channels last for pictures, whatever the declared order.
        details: `info` or `video_info`, such as `video.fps`.
    """

    dtype: str
    shape: tuple[int, ...] | None
    details: dict[str, Any]

    @property
    def is_picture(self) -> bool:
        """Whether it is a camera: a video, a picture, or an array with three channels."""
        if self.dtype in ("video", "image"):
            return True
        return self.dtype == "uint8" and self.shape is not None and len(self.shape) == 3 and self.shape[2] in (1, 3)

    @property
    def size(self) -> tuple[int, int] | None:
        """Declared `(H, W)`."""
        return self.shape[:2] if self.shape is not None and len(self.shape) >= 2 else None

    @property
    def depth(self) -> str:
        """Why it is not a colour camera; empty if it is one."""
        for name in ("video.is_depth_map", "is_depth_map"):
            if self.details.get(name) is True:
                return f"{name} is true"
        pixels = self.details.get("video.pix_fmt")
        if isinstance(pixels, str) and pixels.startswith("gray"):
            return f"video.pix_fmt is {pixels}"
        if self.shape is not None and (len(self.shape) == 2 or (len(self.shape) == 3 and self.shape[2] == 1)):
            return "it has one channel"
        return ""


@dataclass(frozen=True)
class Info:
    """The checked content of `meta/info.json`.

    Attributes:
        totals: The `total_*` numbers as declared.
        data_path: Template of the tables' names; empty where not declared, as is `video_path`.
    """

    file: Path
    version: str
    robot_type: str
    fps: float
    totals: dict[str, Any]
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
        return not self.version.startswith("v3")

    @property
    def cameras(self) -> tuple[str, ...]:
        """Keys of the pictures and videos."""
        return tuple(key for key, value in self.features.items() if value.is_picture)


def read_info(folder: Path, findings: Findings) -> Info:
    """Read and check `meta/info.json`.

    Raises:
        ValueError: It is missing or unreadable, or version, features or frames per second are not known.
    """
    file = folder / "meta" / "info.json"
    if not file.is_file():
        fail(file, "file", "missing", LAYOUTS)
    raw = read_json(file, findings)
    if not isinstance(raw, dict):
        fail(file, "content", type(raw).__name__, "a JSON object")
    features = raw.get("features")
    if not isinstance(features, dict) or not features:
        fail(file, "features", repr(features), "a JSON object")
    info = Info(
        file=file,
        version=_version(file, raw.get("codebase_version"), findings),
        robot_type=_text(file, raw, "robot_type", findings),
        fps=_fps(file, raw.get("fps"), findings),
        totals={name: value for name, value in raw.items() if name.startswith("total_")},
        chunks_size=_chunks_size(file, raw.get("chunks_size", CHUNK_SIZE), findings),
        data_path=_text(file, raw, "data_path", findings),
        video_path=_text(file, raw, "video_path", findings),
        features={key: _feature(file, key, value, findings) for key, value in features.items()},
    )
    for key in info.cameras:
        declared = info.features[key].details.get("video.fps")
        if declared is not None and declared != info.fps:
            findings.note(f"{file}: video.fps of {key} is {declared!s:.20}, fps is {info.fps:g}")
    return info


def _version(file: Path, version: object, findings: Findings) -> str:
    if version in CODEBASE_VERSIONS:
        return version
    layout = "v3.0" if (file.parent / "episodes").is_dir() else "v2.1"
    if version is None:
        findings.note(f"{file}: codebase_version is missing; read as {layout}, whose layout it has")
        return layout
    if isinstance(version, str) and re.fullmatch(r"v?[23](\.\d+)*", version):
        known = "v3.0" if version.lstrip("v").startswith("3") else "v2.1"
        findings.note(f"{file}: codebase_version is {version}, read as {known}")
        return known
    fail(file, "codebase_version", repr(version), " or ".join(CODEBASE_VERSIONS))


def _text(file: Path, raw: dict[str, Any], name: str, findings: Findings) -> str:
    value = raw.get(name)
    if isinstance(value, str):
        return value
    if value is not None:
        findings.note(f"{file}: {name} is {value!r:.50}, not a string")
    return ""


def _fps(file: Path, value: object, findings: Findings) -> float:
    number = value
    if isinstance(value, str):
        findings.note(f"{file}: fps is a string, {value!r:.20}")
        try:
            number = float(value)
        except ValueError:
            number = None
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 < number < 1e9:
        fail(file, "fps", repr(value), "a positive number")
    return float(number)


def _chunks_size(file: Path, value: object, findings: Findings) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    findings.note(f"{file}: chunks_size is {value!r:.20}, read as {CHUNK_SIZE}")
    return CHUNK_SIZE


def _feature(file: Path, key: str, raw: object, findings: Findings) -> Feature:
    if not isinstance(raw, dict):
        findings.note(f"{file}: feature {key} is {raw!r:.50}, not a JSON object")
        return Feature("", None, {})
    dtype, shape = raw.get("dtype"), raw.get("shape")
    if not isinstance(dtype, str):
        findings.note(f"{file}: dtype of {key} is {dtype!r:.50}, not a string")
        dtype = ""
    if isinstance(shape, int) and not isinstance(shape, bool):
        shape = [shape]
    sides = shape if isinstance(shape, list) else [None]
    if not all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in sides):
        findings.note(f"{file}: shape of {key} is {shape!r:.50}, not a list of sizes")
        return Feature(dtype, None, _details(raw))
    return Feature(dtype, _channels_last(tuple(sides), raw.get("names")), _details(raw))


def _details(raw: dict[str, Any]) -> dict[str, Any]:
    found = [raw.get(name) for name in ("info", "video_info")]
    return next((details for details in found if isinstance(details, dict) and details), {})


def _channels_last(shape: tuple[int, ...], names: object) -> tuple[int, ...]:
    """`(H, W, C)` from the names of the axes, or from the one axis that can be channels."""
    if len(shape) != 3:
        return shape
    while isinstance(names, dict) and names:
        names = list(names) if len(names) > 1 else next(iter(names.values()))
    if isinstance(names, list) and len(names) == 1 and isinstance(names[0], list):
        names = names[0]
    named = [str(name).lower() for name in names] if isinstance(names, list) else []
    by_name = bool(named) and named[0].startswith(("channel", "c", "rgb"))
    by_size = shape[0] in (1, 3, 4) and shape[2] not in (1, 3, 4)
    return (*shape[1:], shape[0]) if (by_name and shape[0] in (1, 3, 4)) or by_size else shape
