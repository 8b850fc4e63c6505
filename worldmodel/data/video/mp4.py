"""The header of a plain MP4 file, read from its boxes in a tenth of a millisecond.

Data sets have thousands of videos, and their number of frames must be known before any is decoded. Files with anything
unusual (an edit list that trims, a turn, stretched pixels, fragments, a file that is cut short) are left to ffmpeg.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

from worldmodel.data.remote.outline import outline
from worldmodel.data.remote.tree import held, renamed
from worldmodel.data.video.decoders import VideoHeader

BOXED = {".mp4", ".mov", ".m4v"}
CODECS = {b"avc1": "h264", b"avc3": "h264", b"hvc1": "hevc", b"hev1": "hevc", b"av01": "av1", b"vp09": "vp9"}
UPRIGHT = b"".join(value.to_bytes(4, "big") for value in (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30))
INSIDE = (b"mdia", b"minf", b"stbl", b"edts")
NOT_PLAIN = (b"rotate", b"clap", b"mvex", b"cmov")


def plain_header(path: Path) -> VideoHeader | None:
    """The header of an MP4 file that is whole and has one upright video all of which is shown; else `None`.

    Raises:
        OSError: The file cannot be read.
    """
    movie = _movie(path)
    if movie is None or any(word in movie for word in NOT_PLAIN):
        return None
    try:
        return _header(movie)
    except (IndexError, KeyError, ZeroDivisionError):
        return None


def plain_outline(path: Path) -> Path | None:
    """The outline of a video behind a URL that was not fetched, if it is a plain MP4 file."""
    boxes = outline(path) if path.suffix.lower() in BOXED else None
    return boxes if boxes is not None and _is_plain(boxes) else None


@lru_cache(1024)
def _is_plain(boxes: Path) -> bool:
    return plain_header(boxes) is not None


@contextmanager
def outlined(path: Path) -> Iterator[Path]:
    """A file to read a video's header and the times of its frames from.

    Of a plain MP4 file behind a URL it has the boxes that tell them, and nothing else; pictures cannot be decoded from
    it. Any other video is fetched.

    Raises:
        ValueError: It cannot be fetched; also all of the block, which then name `path`.
    """
    boxes = plain_outline(path)
    if boxes is not None:
        with renamed(boxes, path):
            yield boxes
    else:
        with held(path) as file:
            yield file


def _movie(path: Path) -> bytes | None:
    """Content of the box `moov`, if the boxes of the file end where the file ends."""
    movie, place = None, 0
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        while place < size:
            stream.seek(place)
            head = stream.read(16)
            length = _number(head, 0)
            length = _number(head, 8, 8) if length == 1 else length
            if length < 8 or place + length > size or head[4:8] == b"moof":
                return None
            if head[4:8] == b"moov":
                stream.seek(place + 8)
                movie = stream.read(length - 8)
            place += length
    return movie


def _number(data: bytes, place: int, width: int = 4) -> int:
    return int.from_bytes(data[place : place + width], "big")


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of all boxes, including those inside other boxes."""
    place = 0
    while place + 8 <= len(data):
        length, kind = _number(data, place), data[place + 4 : place + 8]
        if length < 8 or place + length > len(data):
            raise IndexError("a box does not end")
        content = data[place + 8 : place + length]
        yield kind, content
        if kind in INSIDE:
            yield from _boxes(content)
        place += length


def _header(movie: bytes) -> VideoHeader | None:
    parts = list(_boxes(movie))
    tracks = [dict(_boxes(content)) for kind, content in parts if kind == b"trak"]
    tracks = [track for track in tracks if track[b"hdlr"][8:12] == b"vide"]
    if len(tracks) != 1:
        return None
    track, overall = tracks[0], dict(parts)[b"mvhd"]
    media, entry = track[b"mdhd"], track[b"stsd"]
    if overall[0] or media[0] or track[b"tkhd"][0]:  # 64-bit times
        return None
    codec, num_frames = CODECS.get(entry[12:16]), _number(track[b"stsz"], 8)
    steps = track[b"stts"]
    runs = [(_number(steps, 8 + 8 * i), _number(steps, 12 + 8 * i)) for i in range(_number(steps, 4))]
    units = sum(count * step for count, step in runs)
    upright = track[b"tkhd"][40:76] == UPRIGHT and _square_pixels(entry)
    counted = sum(count for count, _ in runs) == num_frames > 0
    if codec is None or _number(entry, 4) != 1 or not (upright and counted):
        return None
    scale = Fraction(_number(media, 12))
    if not _shows_all(track, units / scale, Fraction(units, num_frames) / scale, _number(overall, 12)):
        return None
    return VideoHeader(
        codec, (_number(entry, 42, 2), _number(entry, 40, 2)), float(scale * num_frames / units), num_frames
    )


def _square_pixels(entry: bytes) -> bool:
    place = entry.find(b"pasp")
    return place < 0 or entry[place + 4 : place + 8] == entry[place + 8 : place + 12]


def _shows_all(track: dict[bytes, bytes], seconds: Fraction, frame: Fraction, scale: int) -> bool:
    """Whether the edit list, if there is one, only moves the first frame to the beginning."""
    edits = track.get(b"elst")
    if edits is None:
        return True
    if edits[0] or _number(edits, 4) != 1 or _number(edits, 16) != 1 << 16:
        return False
    delay = _number(track[b"ctts"], 12) if b"ctts" in track else 0
    return _number(edits, 12) == delay and Fraction(_number(edits, 8), scale) > seconds - frame / 2
