"""Which frames of which video belong to an episode, and whether they are as many as the rows."""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import av
import av.error
import numpy as np

from worldmodel.data.checks import fail
from worldmodel.data.lerobot.episodes import Episode, whole
from worldmodel.data.lerobot.files import Files
from worldmodel.data.lerobot.findings import Findings
from worldmodel.data.lerobot.info import Info
from worldmodel.data.lerobot.rows import ROUNDING, EpisodeTable
from worldmodel.data.video.decoders import VideoInfo, video_info

TOLERANCE = 3  # frames that a video may be longer or shorter than its table


@dataclass(frozen=True)
class Span:
    """The frames of one camera: `frames` of them from frame `first` of a video on."""

    path: Path
    first: int
    frames: int


@dataclass(frozen=True)
class Header:
    """What a video says about itself without being indexed."""

    frames: int
    size: tuple[int, int]
    fps: float


def read_header(path: Path) -> Header:
    """The header of a video; it is indexed where the header does not say how many frames are shown.

    Raises:
        ValueError: It is no readable video.
    """
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0] if container.streams.video else None
            if stream is not None and stream.frames and stream.average_rate and _is_whole(path):
                rate = float(stream.average_rate)
                shown = stream.duration and float(stream.duration * stream.time_base) * rate
                turned = stream.side_data if hasattr(stream, "side_data") else None
                if shown and abs(shown - stream.frames) < 0.5 and not turned:
                    return Header(stream.frames, (stream.height, stream.width), rate)
    except (av.error.FFmpegError, OSError, UnicodeDecodeError, AttributeError):
        pass  # the index says what is wrong
    info = video_info(path)
    return Header(info.num_frames, info.size, info.fps)


def _is_whole(path: Path) -> bool:
    """Whether the boxes of an MP4 file end with the file; it is cut short otherwise."""
    size, place = path.stat().st_size, 0
    with path.open("rb") as stream:
        while place < size:
            stream.seek(place)
            head = stream.read(16)
            length = int.from_bytes(head[:4], "big")
            length = int.from_bytes(head[8:16], "big") if length == 1 else length
            if length < 8:
                return False
            place += length
    return place == size


def own_spans(
    info: Info, files: Files, cameras: Sequence[str], tables: Mapping[int, EpisodeTable], findings: Findings
) -> tuple[dict[int, dict[str, Span]], dict[str, dict[int, tuple[int, int]]]]:
    """Spans and picture sizes of a set with a video per episode and camera; episodes that lack one are blamed."""
    spans: dict[int, dict[str, Span]] = defaultdict(dict)
    sizes: dict[str, dict[int, tuple[int, int]]] = {key: {} for key in cameras}
    users: dict[Path, tuple[int, str]] = {}
    for number in tables:
        episode = Episode(number, None, info.file, {})
        with findings.blaming(number):
            for key in cameras:
                path = files.video(episode, key)
                if users.setdefault(path, (number, key)) != (number, key):
                    fail(path, "episodes in this video", f"{users[path][0]} and {number}", "one", number)
                header = read_header(path)
                _check_rate(info, path, key, header.frames, header.fps, number)
                spans[number][key] = Span(path, 0, header.frames)
                sizes[key][number] = header.size
    return spans, sizes


def shared_spans(
    info: Info,
    files: Files,
    cameras: Sequence[str],
    episodes: Mapping[int, Episode],
    tables: Mapping[int, EpisodeTable],
    findings: Findings,
) -> tuple[dict[int, dict[str, Span]], dict[str, dict[int, tuple[int, int]]]]:
    """The same for a set with shared videos; `episodes` are all that are listed, `tables` those wanted."""
    spans: dict[int, dict[str, Span]] = defaultdict(dict)
    sizes: dict[str, dict[int, tuple[int, int]]] = {key: {} for key in cameras}
    for key in cameras:
        claims: dict[Path, list[tuple[float, float, int]]] = defaultdict(list)
        for number, episode in episodes.items():
            with findings.blaming(number):
                claims[files.video(episode, key)].append(_claim(info, key, episode))
        for path, within in claims.items():
            wanted = [claim for claim in within if claim[2] in tables]
            try:
                video = video_info(path) if wanted else None
            except ValueError as error:
                for *_, number in wanted:
                    findings.blame(number, str(error))
                continue
            for span, number in _placed(info, key, path, video, sorted(within), tables, findings):
                spans[number][key], sizes[key][number] = span, video.size
    return spans, sizes


def _claim(info: Info, key: str, episode: Episode) -> tuple[float, float, int]:
    """First frame, end and number of an episode, as `meta/episodes` says."""
    ends = []
    for end in ("from", "to"):
        field = f"videos/{key}/{end}_timestamp"
        value = episode.row.get(field)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
            fail(episode.file, field, repr(value), "seconds from 0", episode.index)
        ends.append(value * info.fps)
    if abs(ends[0] - round(ends[0])) > ROUNDING:
        found = f"{ends[0] / info.fps:.6g}"
        fail(episode.file, f"videos/{key}/from_timestamp", found, f"a multiple of 1 / {info.fps:g}", episode.index)
    return round(ends[0]), ends[1], episode.index


def _placed(
    info: Info,
    key: str,
    path: Path,
    video: VideoInfo | None,
    claims: Sequence[tuple[int, float, int]],
    tables: Mapping[int, EpisodeTable],
    findings: Findings,
) -> Iterator[tuple[Span, int]]:
    """The spans within one shared video; where a time stamp is wrong, only if the neighbours show which."""
    late = _late_frame(info, video)
    for place, (first, end, number) in enumerate(claims):
        if number not in tables:
            continue
        with findings.blaming(number):
            rows = len(tables[number].table)
            _check_rate(info, path, key, video.num_frames, video.fps, number)
            before = [stop for _, stop, _ in claims[:place]]
            following = [start for start, _, _ in claims[place + 1 :]]
            limit = min([video.num_frames, *following[:1]])
            frames = end - first
            if abs(frames - rows) > 2 * ROUNDING:
                joined = abs(before[-1] - first) < ROUNDING if before else first == 0
                if not joined:
                    fail(path, f"frames between videos/{key} time stamps", f"{frames:.4g}", rows, number)
                findings.note(f"to_timestamp of {key} is {frames:.4g} frames after from_timestamp, not {rows}", number)
                frames = min(max(frames, rows), limit - first)
            frames = min(round(frames), limit - first)
            if frames < rows - TOLERANCE:
                found = f"{limit}, the end of the video or the start of another episode"
                fail(path, f"end of the frames of {key}", found, f"at least {first + rows}", number)
            if late is not None and late < first + rows:
                shown, expected = f"{video.seconds[late]:.4g} s", f"{late / info.fps:.4g} s"
                fail(path, f"time of frame {late} of {key}", shown, expected, number)
            yield Span(path, first, frames), number


def _late_frame(info: Info, video: VideoInfo | None) -> int | None:
    """The first frame n that is not shown at n / fps seconds."""
    if video is None:
        return None
    late = np.abs(video.seconds * info.fps - np.arange(video.num_frames)) > 0.5
    return int(late.argmax()) if late.any() else None


def _check_rate(info: Info, path: Path, key: str, frames: int, fps: float, number: int) -> None:
    if frames > 1 and abs(fps / info.fps - 1) > 0.01:
        fail(path, f"fps of {key}", f"{fps:g}", f"{info.fps:g}", number)
