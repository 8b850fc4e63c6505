"""LeRobot folders, v2.0, v2.1 and v3.0."""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from worldmodel.data.lerobot.cameras import check_sizes, choose_cameras, common_size
from worldmodel.data.lerobot.episodes import (
    MOST_EPISODES,
    Episode,
    read_episodes,
    read_tasks,
    recorded_shift,
    reset_seed,
)
from worldmodel.data.lerobot.files import Files, check_totals
from worldmodel.data.lerobot.findings import Findings
from worldmodel.data.lerobot.info import Info, read_info
from worldmodel.data.lerobot.keys import Keys, choose_keys
from worldmodel.data.lerobot.pictures import MixedPictures, TablePictures, TablePlace, check_pictures
from worldmodel.data.lerobot.rows import (
    EpisodeTable,
    check_counters,
    episode_rows,
    episode_task,
    own_tables,
    same_outcomes,
    shared_tables,
)
from worldmodel.data.lerobot.statistics import check_statistics
from worldmodel.data.lerobot.tables import visible_files
from worldmodel.data.lerobot.videos import Span, check_exchanged, own_spans, settled_length, shared_spans
from worldmodel.data.options import Request, chosen_episodes, intact_episodes
from worldmodel.data.remote.tree import stand_in
from worldmodel.data.remote.url import is_url
from worldmodel.data.source import Pictures, Rows, TableSource, VideoPictures, fingerprint, letterboxes


def open_lerobot(path: Path, request: Request) -> TableSource:
    """Open a LeRobot data set and check everything that needs no decoding.

    Oddities that do not change the meaning of the data become notes. An episode with a fault counts as broken, see
    `intact_episodes`.

    Args:
        path: Folder that holds `meta/info.json`.
        request: What to read of it.

    Raises:
        ValueError: If the folder is malformed, or some episodes are and shall not be left out; the message names file,
            episode, field and both values.
    """
    folder = Path(path)
    findings = Findings(folder)
    info = read_info(folder, findings)
    episodes = read_episodes(info, findings)
    files = Files(info, findings)
    if info.per_episode:
        wanted, total = _wanted(info, episodes, files.numbers, request, findings)
        keys = choose_keys(info, _own_files(files, [n for n in wanted if n in episodes]), request, findings)
        tables = own_tables(files, [n for n in wanted if n in episodes], keys, findings)
    else:
        keys = choose_keys(info, files.tables, request, findings)
        tables = shared_tables(files, episodes, keys, findings)
        wanted, total = _wanted(info, episodes, set(tables), request, findings)
    views = choose_cameras(info, files, keys, episodes, request.views, findings)
    in_videos = [key for key, stored in views.values() if stored == "video"]
    listed = {number: episodes[number] for number in wanted if number in episodes}
    tables = {number: table for number, table in tables.items() if number in episodes}
    if info.per_episode:
        spans, sizes = own_spans(info, files, in_videos, tables, findings)
    else:
        spans, sizes = shared_spans(info, files, in_videos, episodes, tables, wanted, findings)
    lengths = _settle(info, listed, tables, spans, in_videos, findings)
    rows = _read_rows(info, listed, tables, lengths, keys, findings)
    _check_widths(rows, findings)
    whole = {number: tables[number] for number in rows if number not in findings.broken}
    check_statistics(info, whole, (*keys.actions, *keys.states), findings)
    own_sizes = {key: common_size(info, key, sizes[key], wanted, findings) for key in in_videos}
    for key in (key for key, stored in views.values() if stored == "table"):
        members = {n: (tables[n].file, tables[n].first, len(tables[n].table)) for n in listed if n in tables}
        own_sizes[key] = check_pictures(folder, key, members, findings) or info.features[key].size or (1, 1)
    kept, left_out = intact_episodes(str(path), wanted, findings.broken, request)
    pictures = _pictures(folder, list(views.values()), kept, tables, spans)
    check_sizes(info, own_sizes, findings)
    check_totals(info, list(episodes.values()), files, findings)
    size, boxes = letterboxes((own_sizes[key] for key, _ in views.values()), request.size)
    return TableSource(
        name=str(path),
        views=tuple(views),
        fps=info.fps,
        size=size,
        robot_type=info.robot_type,
        fingerprint=fingerprint(folder, map(Path, (*visible_files(folder / "meta"), *files.below))),
        lengths=tuple(lengths[number] for number in kept),
        boxes=boxes,
        cameras=tuple(key for key, _ in views.values()),
        pictures=pictures,
        rows=same_outcomes([rows[number] for number in kept]),
        seeds=tuple(reset_seed(episodes[number]) for number in kept),
        shift=recorded_shift([episodes[number] for number in kept]),
        numbers=() if kept == list(range(total)) else tuple(kept),
        notes=(*left_out, *findings.notes(kept)),
    )


def recorded_policies(path: Path | str, cache_gb: float | None = None) -> tuple[str | None, ...]:
    """Who acted in each episode of a LeRobot data set; `None` where `meta/` names no `policy`.

    Args:
        path: A folder, or a URL.
        cache_gb: As in `DataOptions`.

    Raises:
        ValueError: If the folder is malformed.
    """
    folder = stand_in(path, cache_gb) if is_url(path) else Path(path)
    findings = Findings(folder)
    episodes = read_episodes(read_info(folder, findings), findings)
    return tuple(episode.row.get("policy") for episode in episodes.values())


def _own_files(files: Files, numbers: Sequence[int]) -> list[Path]:
    """The tables of those episodes that have one."""
    found = []
    for number in numbers:
        with suppress(ValueError):
            found.append(files.table(number))
    return found


def _wanted(
    info: Info, episodes: Mapping[int, Episode], found: set[int], request: Request, findings: Findings
) -> tuple[list[int], int]:
    """The episodes that were asked for, and how many there are; episodes that are not listed are marked as broken."""
    listed_in = "meta/episodes.jsonl" if info.per_episode else "meta/episodes"
    total = max([*episodes, *(number for number in found if number < MOST_EPISODES)]) + 1
    wanted = chosen_episodes(str(info.folder), total, request.episodes)
    for number in wanted:
        if number not in episodes:
            has = "its table is there" if number in found else "it has no table"
            findings.blame(number, f"it is not listed in {listed_in}, {has}")
    return wanted, total


def _settle(
    info: Info,
    episodes: Mapping[int, Episode],
    tables: dict[int, EpisodeTable],
    spans: Mapping[int, Mapping[str, Span]],
    in_videos: Sequence[str],
    findings: Findings,
) -> dict[int, int]:
    """Length of every episode whose table and videos fit together."""
    check_exchanged(episodes, tables, spans, findings)
    lengths = {}
    for number, episode in episodes.items():
        if number not in tables:
            findings.blame(number, f"{info.folder / 'data'}: no table has rows of it")
        elif all(key in spans.get(number, ()) for key in in_videos):
            with findings.blaming(number):
                tables[number] = check_counters(info, episode, tables[number], findings, by_time=bool(in_videos))
                lengths[number] = settled_length(info, episode, tables[number], spans.get(number, {}), findings)
        else:
            findings.blame(number, "it has no frames")
    return lengths


def _read_rows(
    info: Info,
    episodes: Mapping[int, Episode],
    tables: Mapping[int, EpisodeTable],
    lengths: Mapping[int, int],
    keys: Keys,
    findings: Findings,
) -> dict[int, Rows]:
    tasks = read_tasks(info, findings)
    rows = {}
    for number, length in lengths.items():
        with findings.blaming(number):
            task = episode_task(episodes[number], tables[number], tasks, findings)
            rows[number] = episode_rows(number, tables[number], length, keys, task, findings)
            reset_seed(episodes[number])
    return rows


def _check_widths(rows: Mapping[int, Rows], findings: Findings) -> None:
    """Mark episodes as broken whose actions or states have another width than most."""
    for name in ("actions", "states"):
        widths = {number: x.shape[1] for number, each in rows.items() if (x := getattr(each, name)) is not None}
        common = Counter(widths.values()).most_common(1)
        for number, width in widths.items():
            if width != common[0][0]:
                findings.blame(number, f"width of the {name} is {width}, expected {common[0][0]} as in other episodes")


def _pictures(
    folder: Path,
    cameras: Sequence[tuple[str, str]],
    kept: Sequence[int],
    tables: Mapping[int, EpisodeTable],
    spans: Mapping[int, Mapping[str, Span]],
) -> Pictures:
    in_videos = [key for key, stored in cameras if stored == "video"]
    in_tables = [key for key, stored in cameras if stored == "table"]
    videos = VideoPictures(tuple(tuple(spans[number][key].place for key in in_videos) for number in kept))
    if not in_tables:
        return videos
    places = tuple(TablePlace(tables[number].file, tables[number].first) for number in kept)
    rows = TablePictures(folder, places, tuple(in_tables), tuple(kept))
    if not in_videos:
        return rows
    return MixedPictures(
        tuple(
            (videos, in_videos.index(key)) if stored == "video" else (rows, in_tables.index(key))
            for key, stored in cameras
        )
    )
