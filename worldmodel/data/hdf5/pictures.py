"""Frames inside HDF5 files: arrays, or encoded pictures of any length."""

import io
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from worldmodel.data.checks import fail
from worldmodel.data.hdf5.files import BROKEN_FILE, opened
from worldmodel.data.source import Rows


@dataclass(frozen=True)
class Stored:
    """The pictures of one camera of one episode.

    Attributes:
        name: Path of the data set in the file.
        size: `(H, W)`.
        encoded: Whether every row is a JPEG or PNG file.
        compression: For people.
    """

    name: str
    size: tuple[int, int]
    encoded: bool
    compression: str
    num_frames: int


@dataclass(frozen=True)
class Demo:
    """One episode: where it lies, and what it holds.

    Attributes:
        cameras: By name.
        left_out: For cameras whose pictures are not RGB, what they are instead.
        notes: What is odd, or not read.
        ends_early: Whether the file has no action for the last frame.
    """

    file: Path
    cameras: Mapping[str, Stored]
    length: int
    rows: Rows
    left_out: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    ends_early: bool = False


@dataclass(frozen=True)
class HDF5Pictures:
    """Frames as arrays in HDF5 files; see `worldmodel.data.source.Pictures`."""

    demos: tuple[Demo, ...]
    views: tuple[str, ...]

    def read(self, episode: int, camera: int, indices: np.ndarray) -> UInt8[np.ndarray, "t h w 3"]:
        """Read frames at evenly spaced `indices`."""
        demo, first, last = self.demos[episode], int(indices[0]), int(indices[-1])
        stored = demo.cameras[self.views[camera]]
        step = int(indices[1]) - first if len(indices) > 1 else 1
        with opened(demo.file) as file:
            try:
                rows = file[stored.name][first : last + 1 : step]
                return np.stack([decode(row) for row in rows]) if stored.encoded else rows
            except BROKEN_FILE as error:
                raise ValueError(f"{demo.file}: {stored.name} cannot be read: {error}") from error

    def file(self, episode: int, camera: int) -> Path:
        """The HDF5 file."""
        return self.demos[episode].file

    def codec(self, episode: int, camera: int) -> str:
        """The compression of the array, or of the pictures in it."""
        return self.demos[episode].cameras[self.views[camera]].compression


def decode(row: object) -> UInt8[np.ndarray, "h w 3"]:
    """A JPEG or PNG file, with its channels in the order that ALOHA stored them in.

    ALOHA encodes its RGB pictures with OpenCV, which treats them as BGR. All readers but OpenCV therefore see red and
    blue exchanged; they are exchanged back here.

    Raises:
        ValueError: It is not a picture.
    """
    with Image.open(io.BytesIO(_bytes(row))) as picture:
        return np.ascontiguousarray(np.asarray(picture.convert("RGB"))[..., ::-1])


def are_pictures(values: h5py.Dataset) -> bool:
    """Whether a data set is an array of RGB frames."""
    return values.dtype == np.uint8 and values.ndim == 4 and values.shape[3] == 3 and bool(values.size)


def not_rgb(values: h5py.Dataset) -> str:
    """What pictures are instead of RGB frames of 8 bits, such as depth or labels; empty for RGB frames."""
    if values.ndim < 3 and encodes_depth(values):
        return "pictures of more than 8 bits"
    other = values.ndim in (3, 4) and values.dtype.kind in "fiub" and not are_pictures(values)
    return f"{values.dtype} (frames, {', '.join(map(str, values.shape[1:]))})" if other else ""


def left_out_notes(left_out: Mapping[str, str], views: Collection[str]) -> list[str]:
    """A note on cameras that are not read."""
    named = [f"{name} ({kind})" for name, kind in left_out.items() if name not in views]
    return [f"cameras left out, because they are not RGB of 8 bits: {', '.join(named)}"] if named else []


def encodes_depth(values: h5py.Dataset) -> bool:
    """Whether the first encoded picture has more than 8 bits a pixel."""
    try:
        with Image.open(io.BytesIO(_bytes(values[0]))) as picture:
            return picture.mode.startswith(("I", "F"))
    except (*BROKEN_FILE, IndexError):
        return False


def _bytes(row: object) -> bytes:
    return row.tobytes() if isinstance(row, np.ndarray) else bytes(row)  # type: ignore[call-overload]


def array_of_frames(file: Path, values: h5py.Dataset, episode: int) -> Stored:
    """A camera whose frames are an array.

    Raises:
        ValueError: It is another array.
    """
    if not are_pictures(values):
        fail(file, f"{values.name}", f"{values.dtype} {values.shape}", "uint8 (frames, height, width, 3)", episode)
    size = int(values.shape[1]), int(values.shape[2])
    return Stored(values.name, size, False, values.compression or "raw", len(values))


def encoded_frames(file: Path, values: h5py.Dataset, episode: int) -> Stored:
    """A camera whose frames are encoded one by one.

    Raises:
        ValueError: They are not.
    """
    padded = values.dtype == np.uint8 and values.ndim == 2
    of_bytes = values.dtype.kind in "SVO" and values.ndim == 1
    if not (padded or of_bytes) or not values.size:
        expected = "uint8 (frames, height, width, 3), or JPEG files"
        fail(file, f"{values.name}", f"{values.dtype} {values.shape}", expected, episode)
    try:
        first = decode(values[0])
    except BROKEN_FILE as error:
        raise ValueError(f"{file}: frame 0 of {values.name} cannot be decoded: {error}") from error
    return Stored(values.name, (int(first.shape[0]), int(first.shape[1])), True, "jpeg", len(values))


def common_length(file: Path, cameras: Mapping[str, Stored], episode: int) -> int:
    """The number of frames that all cameras have.

    Raises:
        ValueError: They differ.
    """
    first = next(iter(cameras.values()))
    for stored in cameras.values():
        if stored.num_frames != first.num_frames:
            expected = f"{first.num_frames} as in {first.name}"
            fail(file, f"number of frames of {stored.name}", stored.num_frames, expected, episode)
    return first.num_frames
