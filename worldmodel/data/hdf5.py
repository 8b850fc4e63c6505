"""HDF5 files in the layout of robomimic and LIBERO: `data/demo_*/obs/<camera>_image`, `actions`."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from jaxtyping import Float32, UInt8

from worldmodel.data.checks import fail, matrix, the_same
from worldmodel.data.options import Request
from worldmodel.data.source import Rows, TableSource, fingerprint, letterboxes

SUFFIXES = (".hdf5", ".h5")
CAMERA_SUFFIXES = ("_image", "_rgb")  # robomimic, LIBERO
PROPRIOCEPTION = (
    "robot0_eef_pos",
    "robot0_eef_quat",
    "robot0_gripper_qpos",  # robomimic
    "ee_pos",
    "ee_ori",
    "gripper_states",  # LIBERO
)
CONTROL_FREQUENCY = 20.0  # Hz; that of robosuite where the file does not say
BROKEN_FILE = (OSError, KeyError, RuntimeError, ValueError, TypeError, MemoryError)


@dataclass(frozen=True)
class Demo:
    """Where one demonstration lies, and what it holds.

    Attributes:
        file: The HDF5 file.
        group: Path of its group, `data/demo_3`.
        sizes: `(H, W)` of every camera's pictures, by the name of their data set.
        compression: Compression of the first camera's pictures.
    """

    file: Path
    group: str
    length: int
    sizes: dict[str, tuple[int, int]]
    compression: str
    rows: Rows


@dataclass(frozen=True)
class HDF5Pictures:
    """Frames as arrays in HDF5 files; see `worldmodel.data.source.Pictures`."""

    demos: tuple[Demo, ...]
    cameras: tuple[str, ...]

    def read(self, episode: int, camera: int, indices: np.ndarray) -> UInt8[np.ndarray, "t h w 3"]:
        """Read frames at evenly spaced `indices`."""
        demo, first, last = self.demos[episode], int(indices[0]), int(indices[-1])
        step = int(indices[1]) - first if len(indices) > 1 else 1
        name = f"{demo.group}/obs/{self.cameras[camera]}"
        with _opened(demo.file) as file:
            try:
                return file[name][first : last + 1 : step]
            except BROKEN_FILE as error:
                raise ValueError(f"{demo.file}: {name} cannot be read: {error}") from error

    def file(self, episode: int, camera: int) -> Path:
        """The HDF5 file."""
        return self.demos[episode].file

    def codec(self, episode: int, camera: int) -> str:
        """The compression of the array."""
        return self.demos[episode].compression


def hdf5_files(path: Path) -> list[Path]:
    """`path` itself, or the HDF5 files inside, in order of their names."""
    if path.is_file():
        return [path] if path.suffix in SUFFIXES else []
    return sorted(file for file in path.glob("*") if file.suffix in SUFFIXES)


def open_hdf5(path: Path, request: Request) -> TableSource:
    """Open demonstrations in the layout of robomimic (2108.03298) and LIBERO (2306.03310).

    Cameras are `obs/<camera>_image` (or `_rgb`), uint8, shown as they are stored: LIBERO stores
    them upside down. The state concatenates those keys of `PROPRIOCEPTION` that exist.
    `actions` and `rewards` are optional. Frames per second are `control_freq` of `env_args`, or 20.

    Args:
        path: An HDF5 file, or a folder of such files with the same robot.
        request: What to read of it.

    Raises:
        ValueError: If a file is malformed or differs from the others; the message names file,
            episode, field and both values.
    """
    root = Path(path)
    files = hdf5_files(root)
    if not files:
        fail(root, "number of HDF5 files", 0, "at least 1")
    demos: list[Demo] = []
    about = {}
    for file in files:
        with _opened(file) as content:
            data = _member(file, content, "data", h5py.Group)
            about[file] = _environment(file, data)
            for name in _demo_names(file, data):
                demos.append(_demo(file, data, name, len(demos), about[file]["task"]))
    places = [demo.file / demo.group for demo in demos]
    sizes = the_same("pictures", dict(zip(places, (tuple(d.sizes.items()) for d in demos), strict=True)))
    for table in ("actions", "states", "rewards"):
        widths = [np.shape(getattr(demo.rows, table))[1:] for demo in demos]
        present = [getattr(demo.rows, table) is not None for demo in demos]
        the_same(f"presence of {table}", dict(zip(places, present, strict=True)))
        the_same(f"width of {table}", dict(zip(places, widths, strict=True)))
    cameras = tuple(name for name, _ in sizes)
    size, boxes = letterboxes((own for _, own in sizes), request.size)
    return TableSource(
        name=str(path),
        views=tuple(_view(name) for name in cameras),
        fps=the_same("control_freq", {file: facts["fps"] for file, facts in about.items()}),
        size=size,
        robot_type=" / ".join(dict.fromkeys(facts["robot"] for facts in about.values())),
        fingerprint=fingerprint(files[0].parent, files),
        lengths=tuple(d.length for d in demos),
        boxes=boxes,
        cameras=cameras,
        pictures=HDF5Pictures(tuple(demos), cameras),
        rows=tuple(demo.rows for demo in demos),
        seeds=(None,) * len(demos),
    )


@contextmanager
def _opened(file: Path) -> Iterator[h5py.File]:
    try:
        content = h5py.File(file, "r")
    except BROKEN_FILE as error:
        raise ValueError(f"{file}: content is not readable HDF5: {error}") from error
    with content:
        yield content


def _member(file: Path, group: h5py.Group, name: str, kind: type, episode: int | None = None) -> Any:
    try:
        member = group.get(name)
    except BROKEN_FILE as error:
        raise ValueError(f"{file}: {group.name}/{name} cannot be read: {error}") from error
    if not isinstance(member, kind):
        found = "missing" if member is None else type(member).__name__
        fail(file, f"{group.name.rstrip('/')}/{name}", found, f"a {kind.__name__}", episode)
    return member


def _demo_names(file: Path, data: h5py.Group) -> list[str]:
    names = [name for name in data if re.fullmatch(r"demo_\d+", name)]
    if not names:
        fail(file, "number of data/demo_*", 0, "at least 1")
    return sorted(names, key=lambda name: int(name.removeprefix("demo_")))


def _demo(file: Path, data: h5py.Group, name: str, episode: int, task: str) -> Demo:
    demo = _member(file, data, name, h5py.Group, episode)
    pictures = _member(file, demo, "obs", h5py.Group, episode)
    cameras = sorted(key for key in pictures if key.endswith(CAMERA_SUFFIXES))
    if not cameras:
        fail(file, f"cameras in {pictures.name}", 0, "at least 1 named *_image or *_rgb", episode)
    views = [_view(camera) for camera in cameras]
    if len(set(views)) != len(views):
        fail(file, f"cameras in {pictures.name}", cameras, "one each", episode)
    sets = {key: _member(file, pictures, key, h5py.Dataset, episode) for key in cameras}
    length = sets[cameras[0]].shape[0] if sets[cameras[0]].shape else 0
    for key, values in sets.items():
        if values.dtype != np.uint8 or values.ndim != 4 or values.shape[3] != 3 or not values.size:
            found = f"{values.dtype} {values.shape}"
            fail(file, f"{values.name}", found, "uint8 (frames, height, width, 3)", episode)
        if len(values) != length:
            expected = f"{length} as in {cameras[0]}"
            fail(file, f"number of frames of {key}", len(values), expected, episode)
    keys = [key for key in PROPRIOCEPTION if key in pictures]
    states = [_table(file, pictures, key, (length,), episode) for key in keys]
    between = (length, max(length - 1, 1))
    actions, rewards = (
        _table(file, demo, key, between, episode) if key in demo else None for key in ("actions", "rewards")
    )
    if rewards is not None and rewards.shape[1] != 1:
        fail(file, f"width of rewards of {name}", rewards.shape[1], 1, episode)
    return Demo(
        file=file,
        group=f"data/{name}",
        length=length,
        sizes={key: tuple(values.shape[1:3]) for key, values in sets.items()},
        compression=sets[cameras[0]].compression or "raw",
        rows=Rows(
            task=task,
            actions=actions,
            states=np.concatenate(states, 1) if states else None,
            rewards=None if rewards is None else rewards[:, 0],
            successes=None,
        ),
    )


def _table(
    file: Path, group: h5py.Group, name: str, rows: tuple[int, ...], episode: int
) -> Float32[np.ndarray, "rows width"]:
    values = _member(file, group, name, h5py.Dataset, episode)
    if values.ndim > 2 or values.dtype.kind not in "fiub":
        found = f"{values.dtype} {values.shape}"
        fail(file, f"{group.name}/{name}", found, "numbers (frames, width)", episode)
    if values.ndim and len(values) not in rows:  # before memory is allocated for them
        expected = " or ".join(map(str, rows))
        fail(file, f"number of rows of {group.name}/{name}", len(values), expected, episode)
    try:
        numbers = values[()]
    except BROKEN_FILE as error:
        raise ValueError(f"{file}: {group.name}/{name} cannot be read: {error}") from error
    return matrix(file, f"{group.name}/{name}", np.asarray(numbers), rows, episode)


def _view(camera: str) -> str:
    return re.sub(r"(_image|_rgb)$", "", camera)


def _environment(file: Path, data: h5py.Group) -> dict[str, Any]:
    """Frames per second, robot and task from the attributes `env_args` and `problem_info`."""
    about = _json_attribute(file, data, "env_args")
    kwargs = about.get("env_kwargs", {})
    fps = kwargs.get("control_freq", CONTROL_FREQUENCY) if isinstance(kwargs, dict) else None
    if not isinstance(fps, int | float) or not 0 < fps < 1e4:
        fail(file, "control_freq of env_args", repr(fps), "a positive number")
    task = _json_attribute(file, data, "problem_info").get("language_instruction", "")
    if isinstance(task, list):
        task = "".join(str(part) for part in task)
    robot = about.get("env_name", "")
    for field, value in (("language_instruction", task), ("env_name", robot)):
        if not isinstance(value, str):
            fail(file, field, repr(value), "a string")
    return {"fps": float(fps), "robot": robot, "task": task}


def _json_attribute(file: Path, data: h5py.Group, name: str) -> dict[str, Any]:
    """A JSON object in an attribute of `data`; empty where there is none."""
    try:
        value = json.loads(data.attrs.get(name, "{}"))
    except (*BROKEN_FILE, RecursionError) as error:
        raise ValueError(f"{file}: attribute {name} is not readable JSON: {error}") from error
    if not isinstance(value, dict):
        fail(file, f"attribute {name}", repr(value), "a JSON object")
    return value
