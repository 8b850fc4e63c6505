"""The outline of an MP4 file behind a URL: its boxes without the pictures, a few kilobytes in two requests."""

from functools import lru_cache
from pathlib import Path

import fsspec

from worldmodel.data.remote.contents import content
from worldmodel.data.remote.listing import RemoteFile
from worldmodel.data.remote.tree import find_place
from worldmodel.data.remote.url import UnreachableError, refuse
from worldmodel.files import default_cache_folder, write_atomically

PART = 2**16
SMALL = 2**18  # bytes of a video that is fetched whole
MOST = 2**28  # bytes of a box that is fetched
WANTED = (b"ftyp", b"moov")


def outline(path: Path) -> Path | None:
    """A file as long as the video in which only the boxes `ftyp` and `moov` are filled.

    Returns:
        The file; `None` if the video is on this disk, is small, or its boxes cannot be told apart.

    Raises:
        ValueError: The driver refuses to read the video.
    """
    place = find_place(path)
    if place is None or content(place.file).exists():
        return None
    file = place.file
    if file.size < SMALL:
        return None
    made = default_cache_folder() / "streams" / "outlines" / f"{file.key}{file.suffix}"
    if not made.is_file():
        parts = _parts(file)
        if parts is None:
            return None
        made.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(made, lambda temporary: _write(temporary, file.size, parts))
    return made


@lru_cache(64)
def box_spans(made: Path) -> tuple[tuple[int, int], ...]:
    """Where the bytes of an outline begin and end."""
    spans, place, size = [], 0, made.stat().st_size
    with made.open("rb") as stream:
        while place < size:
            stream.seek(place)
            head = stream.read(16)
            length = _length(head)
            spans.append((place, place + (length if head[4:8] in WANTED else min(length, 16))))
            place += length
    return tuple(spans)


def _length(head: bytes) -> int:
    """The length of a box, from its first 16 bytes."""
    length = int.from_bytes(head[:4], "big")
    return int.from_bytes(head[8:16], "big") if length == 1 else length


def _write(path: Path, size: int, parts: dict[int, bytes]) -> None:
    with path.open("r+b") as stream:
        stream.truncate(size)
        for place, data in parts.items():
            stream.seek(place)
            stream.write(data)


def _parts(file: RemoteFile) -> dict[int, bytes] | None:
    """The heads of all boxes, and the whole of those that are wanted, by their place in the file."""
    parts: dict[int, bytes] = {}
    start, part, place = 0, b"", 0
    while place < file.size:
        if not start <= place <= place + 16 <= start + len(part):
            start, part = place, _range(file, place, place + PART)
        head = part[place - start : place - start + 16]
        length = _length(head)
        if length < 8 or place + length > file.size:
            return None
        parts[place] = head[: min(length, 16)]
        if head[4:8] in WANTED:
            if length > MOST:
                return None
            inside = place - start + length <= len(part)
            box = part[place - start : place - start + length] if inside else _range(file, place, place + length)
            if len(box) != length:
                return None
            parts[place] = box
        place += length
    return parts


def _range(file: RemoteFile, start: int, stop: int) -> bytes:
    """Some bytes of the file; nothing if the server sends others than it was asked for."""
    stop = min(stop, file.size)
    try:
        system, _ = fsspec.core.url_to_fs(file.root)
        data = system.cat_file(file.path, start=start, end=stop)
    except Exception as error:  # drivers raise classes of their own
        try:
            refuse(file.url, error)
        except UnreachableError:
            return b""  # the video is fetched in place of its outline, and fails with its own message
    return data if len(data) == stop - start else b""
