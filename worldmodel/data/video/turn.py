"""How a player turns the pictures of a video before it shows them."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
from jaxtyping import UInt8

CONTAINERS = (b"moov", b"trak", b"mdia", b"edts")
FIXED_POINT = 1 << 16


@dataclass(frozen=True)
class Turn:
    """A turn by a multiple of 90 degrees, or a mirror image; in this order.

    Attributes:
        transposed: Rows become columns.
        columns_reversed: Left and right change places.
        rows_reversed: Top and bottom change places.
    """

    transposed: bool = False
    columns_reversed: bool = False
    rows_reversed: bool = False

    def size(self, stored: tuple[int, int]) -> tuple[int, int]:
        """`(H, W)` as shown, of a picture that is stored as `(H, W)`."""
        return (stored[1], stored[0]) if self.transposed else stored

    def apply(self, picture: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "H W 3"]:
        """The picture as a player shows it."""
        turned = picture.swapaxes(0, 1) if self.transposed else picture
        columns, rows = (-1 if back else 1 for back in (self.columns_reversed, self.rows_reversed))
        return np.ascontiguousarray(turned[::rows, ::columns])


UPRIGHT = Turn()
BY_DEGREES = {
    0: UPRIGHT,
    90: Turn(transposed=True, columns_reversed=True),
    180: Turn(columns_reversed=True, rows_reversed=True),
    270: Turn(transposed=True, rows_reversed=True),
}
"""Turns clockwise."""


def stream_turn(path: Path, container: av.container.InputContainer) -> Turn:
    """How a player turns the first video stream: by its display matrix, else by its `rotate` tag.

    The matrix of an mp4 or mov lies in its header; of other containers ffmpeg passes it on with the first frame.

    Raises:
        ValueError: The turn is not a multiple of 90 degrees.
    """
    stream = container.streams.video[0]
    if "mp4" in container.format.name:
        with path.open("rb") as file:
            matrix = _header_matrix(file)
    else:
        matrix = _frame_matrix(container, stream)
    if matrix is not None and any(matrix):
        return _from_matrix(path, matrix)
    tags = {name.lower(): value for name, value in stream.metadata.items()}
    degrees = tags.get("rotate", "0")
    try:
        return BY_DEGREES[round(float(degrees)) % 360]
    except (ValueError, KeyError):
        raise ValueError(f"{path}: rotate tag is {degrees!r}, expected a multiple of 90 degrees") from None


def _from_matrix(path: Path, matrix: tuple[int, int, int, int]) -> Turn:
    """The turn of a matrix that shows pixel `(x, y)` at `(a x + c y, b x + d y)`; shifts and scales are ignored."""
    a, b, c, d = matrix
    largest = max(map(abs, matrix))
    straight = max(abs(b), abs(c)) < 0.02 * largest and min(abs(a), abs(d)) > 0
    across = max(abs(a), abs(d)) < 0.02 * largest and min(abs(b), abs(c)) > 0
    if not straight and not across:
        shown = ", ".join(f"{value / FIXED_POINT:.3g}" for value in matrix)
        raise ValueError(f"{path}: display matrix is ({shown}), expected a turn by a multiple of 90 degrees")
    return Turn(transposed=True, columns_reversed=c < 0, rows_reversed=b < 0) if across else Turn(False, a < 0, d < 0)


def _frame_matrix(
    container: av.container.InputContainer, stream: av.video.stream.VideoStream
) -> tuple[int, int, int, int] | None:
    stream.codec_context.thread_count = 1
    for frame in container.decode(stream):
        for data in frame.side_data:
            if data.type.name == "DISPLAYMATRIX":
                values = struct.unpack("=9i", bytes(data))
                return values[0], values[1], values[3], values[4]
        return None
    return None


def _header_matrix(file: BinaryIO) -> tuple[int, int, int, int] | None:
    """The matrix of the first video track; `None` where there is none."""
    file.seek(0, 2)
    matrix = None
    for kind, start, _ in _boxes(file, 0, file.tell()):
        if kind == b"tkhd":
            matrix = _track_matrix(file, start)
        elif kind == b"hdlr":
            file.seek(start + 8)
            if file.read(4) == b"vide":
                return matrix
    return None


def _track_matrix(file: BinaryIO, start: int) -> tuple[int, int, int, int] | None:
    file.seek(start)
    version = file.read(1)
    file.seek(start + (52 if version == b"\1" else 40))
    content = file.read(36)
    if len(content) < 36:
        return None
    values = struct.unpack(">9i", content)
    return values[0], values[1], values[3], values[4]


def has_edit_list(path: Path) -> bool:
    """Whether a file says which stretches of it are shown."""
    with path.open("rb") as file:
        file.seek(0, 2)
        return any(kind == b"elst" for kind, _, _ in _boxes(file, 0, file.tell()))


def _boxes(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind of all boxes, including those inside other boxes, and where their content begins and ends."""
    while start + 8 <= end:
        file.seek(start)
        length, kind = struct.unpack(">I4s", file.read(8))
        content = start + 8
        if length == 1 and content + 8 <= end:
            length, content = struct.unpack(">Q", file.read(8))[0], content + 8
        stop = min(end, start + length) if length else end
        if stop < content:
            return
        if kind in CONTAINERS:
            yield from _boxes(file, content, stop)
        else:
            yield kind, content, stop
        start = stop
