"""Which bytes of a large video behind a URL are needed to decode some of its frames."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import av
import numpy as np
from jaxtyping import Bool, Int64

from worldmodel.data.remote.contents import Part
from worldmodel.data.remote.outline import box_spans
from worldmodel.data.remote.tree import find_place
from worldmodel.data.video.mp4 import plain_outline

AHEAD = 24  # frames after the last one that a decoder may ask for
LARGE = 8  # a file is large if fewer than this many would fit into the cache
LONGEST = 2**22  # bytes of a piece


@dataclass(frozen=True)
class Samples:
    """The encoded frames of a video, in the order in which they are stored.

    Attributes:
        shown: Number of each frame in the order in which they are shown.
        place: First byte of each.
        end: The byte after the last one of each.
        key: Whether it can be decoded on its own.
    """

    shown: Int64[np.ndarray, " t"]
    place: Int64[np.ndarray, " t"]
    end: Int64[np.ndarray, " t"]
    key: Bool[np.ndarray, " t"]


def needed_part(path: Path, indices: Sequence[int]) -> Part | None:
    """The bytes of a video that hold the frames at `indices`.

    Returns:
        The part; `None` if the video is on this disk, has been fetched, is not large compared with the bound of the
        cache, or does not tell where its frames lie.

    Raises:
        ValueError: The driver refuses to read it.
    """
    place = find_place(path)
    if place is None or not len(indices) or place.limit is None or LARGE * place.file.size <= place.limit:
        return None
    boxes = plain_outline(path)
    samples = None if boxes is None else read_samples(boxes)
    if boxes is None or samples is None or not 0 <= min(indices) <= max(indices) < len(samples.shown):
        return None
    piece = max(min(LONGEST, place.limit // LARGE), 1)
    return Part(boxes, box_spans(boxes), byte_ranges(samples, min(indices), max(indices), piece))


@lru_cache(64)
def read_samples(boxes: Path) -> Samples | None:
    """Where the frames lie; `None` where PyAV does not tell it (before version 17), or they are stored in no order."""
    with av.open(str(boxes)) as container:
        stream = container.streams.video[0]
        entries = getattr(stream, "index_entries", ())
        times = np.array([packet.pts for packet in container.demux(stream) if packet.size])
        place, size, key = (np.array([getattr(e, name) for e in entries]) for name in ("pos", "size", "is_keyframe"))
    if not len(times) or len(times) != len(place) or not (np.diff(place) > 0).all() or not key[0]:
        return None
    shown = np.empty(len(times), np.int64)
    shown[np.argsort(times, kind="stable")] = np.arange(len(times))
    return Samples(shown, place.astype(np.int64), (place + size).astype(np.int64), key.astype(bool))


def byte_ranges(samples: Samples, first: int, last: int, piece: int) -> tuple[tuple[int, int], ...]:
    """The beginning of a video, which decoders look at, and what they need for the frames `first` to `last`.

    The second range is widened to pieces of about `piece` bytes that begin with a keyframe, so that neighbouring clips
    need the same bytes.
    """
    stored = np.flatnonzero((samples.shown >= first) & (samples.shown <= last))
    begins = samples.key & (samples.shown <= first) & (np.arange(len(samples.key)) <= stored[0])
    number = samples.place // piece
    begin = int(np.flatnonzero(begins)[-1]) if begins.any() else 0
    begin = int(np.flatnonzero(samples.key[: begin + 1] & (number[: begin + 1] == number[begin]))[0])
    end = min(int(stored[-1]) + AHEAD, len(number) - 1)
    end = int(np.flatnonzero(number == number[end])[-1])
    head = int(samples.place[0]), int(samples.end[min(AHEAD, len(number) - 1)])
    body = int(samples.place[begin]), int(samples.end[end])
    return ((head[0], max(head[1], body[1])),) if body[0] <= head[1] else (head, body)
