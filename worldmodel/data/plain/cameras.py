"""The pictures of a plain folder: video files, and folders of numbered pictures."""

import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from worldmodel.data.checks import fail
from worldmodel.data.plain.layout import PICTURES, files_of, skeleton
from worldmodel.data.remote.tree import held
from worldmodel.data.video.decoders import video_header, video_info
from worldmodel.data.video.mp4 import outlined
from worldmodel.data.video.read import read_frames

DEEP = ("I", "F")  # modes of PIL with more than 8 bits


@dataclass(frozen=True)
class Camera:
    """One camera of one episode.

    Attributes:
        path: The video, or the folder of pictures.
        pictures: The pictures in their order; empty for a video.
        codec: As ffmpeg or PIL calls it.
        size: `(H, W)` as shown.
        fps: Frames per second; 0 for pictures, which do not tell.
        note: What is odd about it; may be empty.
    """

    path: Path
    pictures: tuple[Path, ...]
    codec: str
    size: tuple[int, int]
    fps: float
    num_frames: int
    note: str = ""

    @property
    def files(self) -> tuple[Path, ...]:
        """All files it is read from."""
        return self.pictures or (self.path,)


@dataclass(frozen=True)
class PlainPictures:
    """Frames of cameras, by episode and camera; see `worldmodel.data.source.Pictures`."""

    cameras: tuple[tuple[Camera, ...], ...]

    def read(self, episode: int, camera: int, indices: np.ndarray) -> UInt8[np.ndarray, "t h w 3"]:
        """Frames at `indices`."""
        chosen = self.cameras[episode][camera]
        if not chosen.pictures:
            return read_frames(chosen.path, indices.tolist())
        frames = [_read_picture(chosen.pictures[index]) for index in indices.tolist()]
        for index, frame in zip(indices.tolist(), frames, strict=True):
            if frame.shape[:2] != chosen.size:
                fail(chosen.pictures[index], "size", frame.shape[:2], chosen.size, episode)
        return np.stack(frames)

    def file(self, episode: int, camera: int) -> Path:
        """The video, or the first picture."""
        return self.cameras[episode][camera].files[0]

    def codec(self, episode: int, camera: int) -> str:
        """How the pictures are compressed."""
        return self.cameras[episode][camera].codec


def open_camera(path: Path) -> Camera:
    """Read what a video's header, or the first picture of a folder, says.

    Raises:
        ValueError: It is not readable, or a picture is missing between others.
    """
    if path.is_dir():
        return _picture_folder(path)
    with outlined(path) as file:
        header = video_header(file)
        frames = video_info(file).num_frames if header.num_frames is None else header.num_frames
    note = ""
    if header.pixel_aspect != 1:
        note = f"pixels of {path.name} are {header.pixel_aspect} times as wide as high, which is not corrected"
    if not header.fps > 0:
        fail(path, "frames per second", header.fps, "a positive number")
    return Camera(path, (), header.codec, header.size, header.fps, frames, note)


def _picture_folder(folder: Path) -> Camera:
    pictures = _in_order(folder, files_of(folder, PICTURES))
    try:
        with held(pictures[0]) as content, Image.open(content) as picture:
            codec = str(picture.format).lower()
    except (OSError, ValueError, UnidentifiedImageError) as error:
        raise ValueError(f"{pictures[0]}: content is not a readable picture: {error}") from error
    size = _read_picture(pictures[0]).shape[:2]
    return Camera(folder, tuple(pictures), codec, (int(size[0]), int(size[1])), 0.0, len(pictures))


def _in_order(folder: Path, pictures: list[Path]) -> list[Path]:
    """Pictures by the one number in their names that changes; it counts without gaps.

    Raises:
        ValueError: A number is missing or there twice, or names differ in more than a number.
    """
    shapes = {skeleton(picture.name) for picture in pictures}
    numbers = [[int(part) for part in re.findall(r"\d+", picture.stem)] for picture in pictures]
    if len(pictures) == 1:
        return pictures
    changing = [
        place for place in range(len(numbers[0])) if len({row[place] for row in numbers if len(row) > place}) > 1
    ]
    if len(shapes) > 1 or len(changing) != 1:
        shown = ", ".join(picture.name for picture in pictures[:3])
        fail(folder, "names of pictures", shown, "names that differ in one number only, such as 000000.png")
    ordered = sorted((row[changing[0]], picture) for row, picture in zip(numbers, pictures, strict=True))
    for (before, _), (number, picture) in pairwise(ordered):
        if number != before + 1:
            fail(folder, "picture after number " + str(before), picture.name, f"number {before + 1}")
    return [picture for _, picture in ordered]


def _read_picture(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    try:
        with held(path) as content, Image.open(content) as picture:
            if picture.mode.startswith(DEEP):
                fail(path, "mode", picture.mode, "a picture of 8 bits a colour")
            return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        if str(error).startswith(str(path)):
            raise
        raise ValueError(f"{path}: content is not a readable picture: {error}") from error
