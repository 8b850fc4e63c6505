"""Edits of the boxes of an mp4: an edit list, a display matrix."""

import struct
from collections.abc import Sequence
from pathlib import Path

ONE = 1 << 16
MATRICES = {
    0: (ONE, 0, 0, ONE),
    90: (0, ONE, -ONE, 0),
    180: (-ONE, 0, 0, -ONE),
    270: (0, -ONE, ONE, 0),
    "mirrored": (-ONE, 0, 0, ONE),
    "flipped": (ONE, 0, 0, -ONE),
    "transposed": (0, ONE, ONE, 0),
    "anti-transposed": (0, -ONE, -ONE, 0),
    45: (46341, 46341, -46341, 46341),
}
"""Turns clockwise, and mirror images, as `a, b, c, d` of `tkhd`."""


def set_matrix(file: Path, turn: int | str) -> Path:
    """Write a display matrix into the header of the only track."""
    content = bytearray(file.read_bytes())
    start = content.index(b"tkhd") + 4
    a, b, c, d = MATRICES[turn]
    offset = start + (52 if content[start] == 1 else 40)
    content[offset : offset + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    file.write_bytes(content)
    return file


def set_edits(file: Path, edits: Sequence[tuple[float, float]], fps: int) -> Path:
    """Replace the edit list of an mp4 whose `moov` comes last.

    Args:
        file: The mp4, with one track.
        edits: First frame and number of frames of every stretch that is shown; a first frame of -1 is a pause.
        fps: Frames per second of the file.
    """
    content = file.read_bytes()
    movie_scale = _scale(content, b"mvhd")
    media_scale = _scale(content, b"mdhd")
    offset = _first_time(content)
    rows = b"".join(
        struct.pack(
            ">IiI",
            round(length * movie_scale / fps),
            -1 if first < 0 else round(first * media_scale / fps) + offset,
            ONE,
        )
        for first, length in edits
    )
    elst = _box(b"elst", struct.pack(">II", 0, len(edits)) + rows)
    moov_at = content.index(b"moov") - 4
    moov = content[moov_at:]
    assert struct.unpack(">I", moov[:4])[0] == len(moov), "moov is not last"
    trak_at = moov.index(b"trak") - 4
    trak = moov[trak_at : trak_at + struct.unpack(">I", moov[trak_at : trak_at + 4])[0]]
    inside = trak[8:]
    edts_at = inside.find(b"edts") - 4
    if edts_at >= 0:
        inside = inside[:edts_at] + inside[edts_at + struct.unpack(">I", inside[edts_at : edts_at + 4])[0] :]
    tkhd_length = struct.unpack(">I", inside[:4])[0]
    changed = _box(b"trak", inside[:tkhd_length] + _box(b"edts", elst) + inside[tkhd_length:])
    file.write_bytes(content[:moov_at] + _box(b"moov", moov[8:trak_at] + changed + moov[trak_at + len(trak) :]))
    return file


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", len(content) + 8, kind) + content


def _scale(content: bytes, kind: bytes) -> int:
    start = content.index(kind) + 4
    return struct.unpack(">I", content[start + 12 : start + 16])[0]


def _first_time(content: bytes) -> int:
    """Time of the first frame that is shown in units of the media: the smallest composition offset."""
    if b"ctts" not in content:
        return 0
    start = content.index(b"ctts") + 8
    count = struct.unpack(">I", content[start : start + 4])[0]
    pairs = struct.unpack(f">{2 * count}I", content[start + 4 : start + 4 + 8 * count])
    return min(pairs[1::2][:1])
