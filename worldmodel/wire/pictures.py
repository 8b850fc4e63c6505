"""Frames as they are sent: arrays, or the bytes of JPEG or PNG files."""

import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image

FORMATS = ("raw", "jpeg", "png")
"""How frames are sent: an array, or one file for each."""


def encode(
    frames: UInt8[np.ndarray, "*b H W 3"], form: str, quality: int
) -> UInt8[np.ndarray, "*b H W 3"] | list | bytes:
    """Frames in the form in which they are sent; files are in lists nested like the axes before `H W 3`."""
    if form == "raw":
        return frames
    if frames.ndim > 3:
        return [encode(each, form, quality) for each in frames]
    file = io.BytesIO()
    options = {"quality": quality} if form == "jpeg" else {"compress_level": 1}
    Image.fromarray(frames).save(file, form, **options)
    return file.getvalue()


def decode(sent: np.ndarray | bytes | Sequence, size: tuple[int, int]) -> UInt8[np.ndarray, "*b H W 3"]:
    """The frames that `encode` was given, as far as the form keeps them.

    Raises:
        ValueError: A file is not a picture, or has another size.
    """
    if isinstance(sent, np.ndarray):
        return sent
    if isinstance(sent, bytes):
        with Image.open(io.BytesIO(sent), formats=("JPEG", "PNG")) as picture:
            if picture.size != (size[1], size[0]):
                raise ValueError(f"a picture of {picture.size[::-1]} was sent, the frames are {tuple(size)}")
            return np.asarray(picture.convert("RGB"))
    return np.stack([decode(each, size) for each in sent])
