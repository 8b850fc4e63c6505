"""Which frames of which video belong to an episode, and whether they are as many as the rows."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from filecmp import cmp
from pathlib import Path

import numpy as np

from worldmodel.data.checks import fail
from worldmodel.data.lerobot.episodes import Episode, whole
from worldmodel.data.lerobot.files import Files
from worldmodel.data.lerobot.findings import Findings
from worldmodel.data.lerobot.info import Info
from worldmodel.data.lerobot.rows import ROUNDING, EpisodeTable
from worldmodel.data.lerobot.tables import in_threads, is_pointer, unreadable
from worldmodel.data.remote.tree import held
from worldmodel.data.video.decoders import VideoHeader, VideoInfo, video_header, video_info
from worldmodel.data.video.mp4 import BOXED, outlined, plain_header

TOLERANCE = 3  # frames that a video may be longer or shorter than its table


@dataclass(frozen=True)
class Span:
    """The frames of one camera: from the time of row `first` on, `frames` of them; one in `step` of the video."""

    path: Path
    first: int
    frames: int
    step: int = 1

    @property
    def place(self) -> tuple[Path, int, int]:
        """The video, the first frame in it, and the step from frame to frame."""
        return self.path, self.first * self.step, self.step


def read_header(path: Path) -> VideoHeader:
    """The header of a video; the video is indexed if the header cannot be right about the number of frames.

    Raises:
        ValueError: It is not a readable video, or is cut short.
    """
    try:
        with outlined(path) as file:
            plain = plain_header(file) if path.suffix.lower() in BOXED else None
            if plain is not None:
                return plain
            header = video_header(file)
            if header.num_frames is not None and (path.suffix.lower() not in BOXED or _is_whole(file)):
                return header
            return replace(header, num_frames=video_info(file).num_frames)
    except OSError as error:
        raise ValueError(f"{path} is not a readable video: {error}") from error
    except ValueError as error:
        raise (unreadable(path, "video", error) if is_pointer(path) else error) from None


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
    """Spans and picture sizes of a data set with a video per episode and camera; episodes without one are broken."""
    spans: dict[int, dict[str, Span]] = defaultdict(dict)
    sizes: dict[str, dict[int, tuple[int, int]]] = {key: {} for key in cameras}
    users: dict[Path, tuple[int, str]] = {}
    for number in tables:
        with findings.blaming(number):
            for key in cameras:
                path = files.video(Episode(number, None, info.file, {}), key)
                if path in users:
                    fail(path, "episodes in this video", f"{users[path][0]} and {number}", "one", number)
                users[path] = number, key
    for (path, (number, key)), header in zip(users.items(), in_threads(read_header, users), strict=True):
        with findings.blaming(number):
            header = header()
            rows = len(tables[number].table)
            step = _step(info, header.num_frames, header.fps, [rows])
            frames = -(-header.num_frames // step)
            if abs(frames - rows) > TOLERANCE:
                step, frames = 1, header.num_frames
            _check_rate(info, path, key, frames, header.fps / step, number)
            if step > 1:
                findings.note(_stepped(info, key, header.fps, step), number)
            spans[number][key] = Span(path, 0, frames, step)
            sizes[key][number] = header.size
    return spans, sizes


def shared_spans(
    info: Info,
    files: Files,
    cameras: Sequence[str],
    episodes: Mapping[int, Episode],
    tables: Mapping[int, EpisodeTable],
    wanted: Collection[int],
    findings: Findings,
) -> tuple[dict[int, dict[str, Span]], dict[str, dict[int, tuple[int, int]]]]:
    """The same for a data set with shared videos; `episodes` and `tables` are those of the whole data set."""
    spans: dict[int, dict[str, Span]] = defaultdict(dict)
    sizes: dict[str, dict[int, tuple[int, int]]] = {key: {} for key in cameras}
    wanted = set(wanted)
    for key in cameras:
        claims: dict[Path, list[Claim]] = defaultdict(list)
        for number, episode in episodes.items():
            with findings.blaming(number):
                claims[files.video(episode, key)].append(_claim(info, key, episode, tables.get(number)))
        for path, within in claims.items():
            numbers = [claim.number for claim in within if claim.number in wanted and claim.rows]
            if not numbers:
                continue
            try:
                with outlined(path) as file:
                    video = video_info(file)
            except ValueError as error:
                reason = unreadable(path, "video", error) if is_pointer(path) else error
                for number in numbers:
                    findings.blame(number, str(reason))
                continue
            video, step = _at_row_rate(info, key, video, within, findings)
            late = _late_frame(info, video)
            within.sort(key=lambda claim: claim.first)
            sides = _neighbours(within)
            for place, claim in enumerate(within):
                if claim.number in numbers:
                    with findings.blaming(claim.number):
                        _check_rate(info, path, key, video.num_frames, video.fps, claim.number)
                        span = _placed(key, path, video.num_frames, within, place, sides[place], findings)
                        if late is not None and late < claim.first + claim.rows:
                            shown, expected = f"{video.seconds[late]:.4g} s", f"{late / info.fps:.4g} s"
                            fail(path, f"time of frame {late} of {key}", shown, expected, claim.number)
                        spans[claim.number][key] = replace(span, step=step)
                        sizes[key][claim.number] = video.size
    return spans, sizes


@dataclass(frozen=True)
class Claim:
    """Frames `first` to `end` of a video, which an episode of `rows` rows has as `meta/episodes` says."""

    number: int
    first: int
    end: float
    rows: int

    @property
    def agrees(self) -> bool:
        """Whether both time stamps fit the rows."""
        return abs(self.end - self.first - self.rows) <= 2 * ROUNDING


def _claim(info: Info, key: str, episode: Episode, table: EpisodeTable | None) -> Claim:
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
    return Claim(episode.index, round(ends[0]), ends[1], 0 if table is None else len(table.table))


def _neighbours(claims: Sequence[Claim]) -> list[tuple[Claim | None, Claim | None]]:
    """For each of the sorted claims, the furthest-reaching one before it and the next one, if they agree."""
    before: list[Claim | None] = [None]
    for claim in claims[:-1]:
        last = before[-1]
        further = claim.agrees and (last is None or claim.first + claim.rows > last.first + last.rows)
        before.append(claim if further else last)
    after: list[Claim | None] = [None]
    for claim in reversed(claims[1:]):
        after.append(claim if claim.agrees else after[-1])
    return list(zip(before, reversed(after), strict=True))


def _placed(
    key: str,
    path: Path,
    num_frames: int,
    claims: Sequence[Claim],
    place: int,
    neighbours: tuple[Claim | None, Claim | None],
    findings: Findings,
) -> Span:
    """The frames of one claim; where its time stamps are wrong, only if the neighbours show which.

    Raises:
        ValueError: They do not show it, or other episodes have the same frames.
    """
    claim = claims[place]
    before, following = neighbours
    first, rows, number = claim.first, claim.rows, claim.number
    taken = before if before and before.first + before.rows > first else None
    if claim.agrees and following and following.first < first + rows:
        taken = following
    if taken:
        fail(path, f"first frame of {key}", first, f"one that is not within episode {taken.number}", number)
    limit = num_frames
    frames = round(claim.end) - first
    if not claim.agrees:
        joined = abs(claims[place - 1].end - first) < ROUNDING if place else first == 0
        if not joined:
            fail(path, f"frames between videos/{key} time stamps", f"{claim.end - first:.4g}", rows, number)
        limit = min([limit, *(other.first for other in claims[place + 1 : place + 2])])
        frames = max(frames, min(rows, limit - first))
        findings.note(f"the time stamps of {key} hold {claim.end - first:.4g} frames, its table {rows} rows", number)
    available = min(frames, limit - first)
    if available < rows - TOLERANCE:
        fail(path, f"number of frames of {key}", limit, f"at least {first + rows}", number)
    return Span(path, first, available)


def _late_frame(info: Info, video: VideoInfo) -> int | None:
    """The first frame n that is not shown at n / fps seconds."""
    late = np.abs(video.seconds * info.fps - np.arange(video.num_frames)) > 0.5
    return int(late.argmax()) if late.any() else None


def _step(info: Info, frames: int, fps: float, ends: Sequence[int]) -> int:
    """How many frames a video shows in the time of a row: more than 1 if its rate is a whole multiple.

    Args:
        info: The frames per second of the rows.
        frames: Number of frames of the video.
        fps: Frames per second of the video.
        ends: The rows at which episodes in the video end.
    """
    step, last = round(fps / info.fps), max(ends)
    exact = step > 1 and abs(fps / info.fps / step - 1) * last <= ROUNDING
    return step if exact and -(-frames // step) >= last - TOLERANCE else 1


def _at_row_rate(
    info: Info, key: str, video: VideoInfo, claims: Sequence[Claim], findings: Findings
) -> tuple[VideoInfo, int]:
    """A shared video as if it had only the frames at the times of rows, and the step between them."""
    step = _step(info, video.num_frames, video.fps, [claim.first + claim.rows for claim in claims])
    if step == 1 or not all(claim.agrees for claim in claims if claim.rows):
        return video, 1
    findings.note(_stepped(info, key, video.fps, step))
    return replace(video, pts=video.pts[::step], fps=video.fps / step), step


def _stepped(info: Info, key: str, fps: float, step: int) -> str:
    return f"the videos of {key} have {fps:g} frames per second, the tables {info.fps:g}; one frame in {step} is read"


def _check_rate(info: Info, path: Path, key: str, frames: int, fps: float, number: int) -> None:
    if frames > 1 and abs(fps / info.fps - 1) > 0.01:
        fail(path, f"fps of {key}", f"{fps:g}", f"{info.fps:g}", number)


def settled_length(
    info: Info, episode: Episode, table: EpisodeTable, spans: Mapping[str, Span], findings: Findings
) -> int:
    """The number of frames that both the table and the videos hold.

    Raises:
        ValueError: They differ by more than `TOLERANCE`, or it is not clear which of them is right.
    """
    rows, number = len(table.table), episode.index
    exact = all(span.frames == rows for span in spans.values())
    ends = [whole(episode.row.get(f"dataset_{end}_index")) for end in ("from", "to")]
    bounds = None if info.per_episode or None in ends else ends[1] - ends[0]
    claims = {"length": episode.length, "dataset_to_index - dataset_from_index": bounds}
    claims = {name: claim for name, claim in claims.items() if claim is not None}
    wrong = {name: claim for name, claim in claims.items() if claim != rows}
    if rows == 0:
        fail(table.file, "number of rows", 0, "at least 1", number)
    if wrong and not (exact and (spans or len(wrong) < len(claims))):
        name, claim = next(iter(wrong.items()))
        fail(table.file, "number of rows", rows, f"{claim}, its {name} in {episode.file}", number)
    for name, claim in wrong.items():
        findings.note(f"{name} is {claim}, the table and the videos hold {rows}", number)
    if (table.begins or not claims) and not exact:
        frames = next(span.frames for span in spans.values() if span.frames != rows)
        fail(table.file, "number of rows", f"{rows} and {table.begins}", f"{frames}, the frames of the video", number)
    for key, span in spans.items():
        extra = span.frames - rows
        if abs(extra) > TOLERANCE:
            fail(span.path, f"number of frames of {key}", span.frames, f"{rows}, the rows of its table", number)
        if extra:
            more, then = ("more", "it is not used") if extra > 0 else ("less", "the episode is cut")
            what = f"{abs(extra)} frame{'s' if abs(extra) > 1 else ''} {more} than the table; {then}"
            findings.note(f"the video of {key} has {what}", number)
    return min([rows, *(span.frames for span in spans.values())])


def check_exchanged(
    episodes: Mapping[int, Episode],
    tables: Mapping[int, EpisodeTable],
    spans: Mapping[int, Mapping[str, Span]],
    findings: Findings,
) -> None:
    """Blame episodes whose videos may be those of others.

    Videos with another length than their tables may have changed places, if their lengths fit to each other's tables
    (or to the next table, in a row). If one has the same bytes as another video, it is a copy of it; if it is as long
    as an episode that is broken, it may be that one's. All others are left to `settled_length`.
    """
    rows = {number: len(table.table) for number, table in tables.items()}
    frames = {(number, key): span.frames for number, cameras in spans.items() for key, span in cameras.items()}
    odd = {(number, key): count for (number, key), count in frames.items() if count != rows[number]}
    alike = _by_size(spans) if odd else {}
    broken = {e.length: e.index for e in episodes.values() if e.index in findings.broken} if odd else {}
    owners = _in_circles(odd, rows) | _late(odd, frames, rows)
    for number, key in sorted({*odd, *owners}):
        path, count = spans[number][key].path, frames[number, key]
        has = f"{path}: it has {count} frames, its table {rows[number]} rows"
        owner = owners.get((number, key))
        copied = owner is None and spans[number][key].first == 0 and _same_bytes(path, alike)
        if owner is not None:
            findings.blame(number, f"{has}, and the table of episode {owner} has {count}: are videos exchanged?")
        elif copied:
            findings.blame(number, f"{has}, and it is a copy of {copied}")
        elif count in broken and broken[count] != number:
            findings.blame(number, f"{has}, and it may be that of episode {broken[count]}, which is as long and broken")


def _in_circles(odd: Mapping[tuple[int, str], int], rows: Mapping[int, int]) -> dict[tuple[int, str], int]:
    """The videos that would fit the tables if they were exchanged, and the episode that each may belong to.

    Args:
        odd: Number of frames of each video that does not have that of the rows; by episode and camera.
        rows: Number of rows of every episode.
    """
    owner = {rows[number]: number for number, _ in odd}
    leads: dict[int, set[int]] = defaultdict(set)
    for (number, _), count in odd.items():
        leads[rows[number]].add(count)
    circles = {(length, count) for length, counts in leads.items() for count in counts if _leads(leads, count, length)}
    return {(number, key): owner[count] for (number, key), count in odd.items() if (rows[number], count) in circles}


def _leads(leads: Mapping[int, Collection[int]], start: int, end: int) -> bool:
    """Whether a path leads from `start` to `end`."""
    seen, left = set(), [start]
    while left and end not in seen:
        place = left.pop()
        if place not in seen:
            seen.add(place)
            left += leads.get(place, ())
    return end in seen


def _late(
    odd: Mapping[tuple[int, str], int], frames: Mapping[tuple[int, str], int], rows: Mapping[int, int]
) -> dict[tuple[int, str], int]:
    """The videos of a camera that are those of the next episode, or of the one before, as nearly all lengths show."""
    found = {}
    for key in {key for _, key in odd}:
        for step in (1, -1):
            near = [number for number, other in odd if other == key and number + step in rows]
            fits = [number for number in near if frames[number, key] == rows[number + step]]
            if len(fits) > 1 and 4 * len(fits) >= 3 * len(near):
                between = [n for n in range(min(fits), max(fits) + 1) if frames.get((n, key)) == rows.get(n + step)]
                found |= {(number, key): number + step for number in between if (number, key) in frames}
    return found


def _by_size(spans: Mapping[int, Mapping[str, Span]]) -> dict[int, list[Path]]:
    sizes: dict[int, list[Path]] = defaultdict(list)
    for path in {span.path for cameras in spans.values() for span in cameras.values()}:
        sizes[path.stat().st_size].append(path)
    return sizes


def _same_bytes(path: Path, by_size: Mapping[int, Sequence[Path]]) -> Path | None:
    """Another video with the same content."""
    others = by_size.get(path.stat().st_size, [])
    return next((other for other in others if other != path and _equal(path, other)), None)


def _equal(path: Path, other: Path) -> bool:
    with held(path) as mine, held(other) as theirs:
        return cmp(mine, theirs, shallow=False)
