"""The rows of the tables, cut into episodes and checked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Shaped

from worldmodel.data.checks import fail, finite
from worldmodel.data.lerobot.episodes import Episode, listed_tasks, whole
from worldmodel.data.lerobot.files import Files
from worldmodel.data.lerobot.findings import Findings
from worldmodel.data.lerobot.info import Info
from worldmodel.data.lerobot.keys import TEXTS, Keys
from worldmodel.data.lerobot.tables import in_threads, is_numeric, numbers, read_table
from worldmodel.data.source import Rows

ROUNDING = 0.25  # of a frame: how far a time stamp may lie from the frame it names


@dataclass(frozen=True)
class EpisodeTable:
    """The rows of one episode: those of `file` from row `first` on.

    Attributes:
        arrays: Columns that are read already.
        begins: Which counters do not begin at 0, in words; empty if all do.
    """

    file: Path
    first: int
    table: pa.Table
    arrays: dict[str, Shaped[np.ndarray, "rows width"]]
    begins: str = ""

    def numbers(self, name: str) -> Shaped[np.ndarray, "rows width"]:
        """A column of numbers; see `tables.numbers`."""
        return self.arrays[name] if name in self.arrays else numbers(self.file, self.table, name)


def _arrays(file: Path, table: pa.Table, ends: Sequence[int]) -> list[dict[str, np.ndarray]]:
    """The columns of numbers of a long table, cut at `ends`; columns with an oddity are left out."""
    parts: list[dict[str, np.ndarray]] = [{} for _ in ends]
    for name in table.column_names:
        try:
            values = numbers(file, table, name)
        except ValueError:
            continue
        for part, piece in zip(parts, np.split(values, ends[:-1]), strict=True):
            part[name] = piece
    return parts


def own_tables(files: Files, wanted: Sequence[int], keys: Keys, findings: Findings) -> dict[int, EpisodeTable]:
    """The tables of a data set with a file per episode; episodes without a readable table are marked as broken."""
    tables: dict[int, EpisodeTable] = {}
    users: dict[Path, int] = {}
    read_tables: dict[int, pa.Table] = {}
    for number in wanted:
        with findings.blaming(number):
            file = files.table(number)
            if file in users:
                fail(file, "episodes in this file", f"{users[file]} and {number}", "one")
            users[file] = number
    read = in_threads(partial(read_table, columns=keys.columns), users)
    for number, result in zip(users.values(), read, strict=True):
        with findings.blaming(number):
            read_tables[number] = result()
    if len({table.schema for table in read_tables.values()}) == 1:
        whole_table = pa.concat_tables(read_tables.values())
        ends = np.cumsum([len(table) for table in read_tables.values()]).tolist()
        arrays = _arrays(files.info.folder, whole_table, ends)
    else:
        arrays = [{} for _ in read_tables]
    paths = {number: file for file, number in users.items()}
    for (number, table), columns in zip(read_tables.items(), arrays, strict=True):
        place = EpisodeTable(paths[number], 0, table, columns)
        with findings.blaming(number):
            if "episode_index" in table.column_names:
                found = np.unique(place.numbers("episode_index"))
                if found.tolist() != [number]:
                    fail(place.file, "episode_index", found.tolist(), [number], number)
            tables[number] = place
    return tables


def shared_tables(
    files: Files, episodes: Mapping[int, Episode], keys: Keys, findings: Findings
) -> dict[int, EpisodeTable]:
    """The tables of a data set with shared files; episodes whose rows are not one block are marked as broken."""
    paths = set(files.tables)
    named: dict[Path, list[int]] = {}
    for number, episode in episodes.items():
        try:
            named.setdefault(files.shared("data_path", episode, "data"), []).append(number)
        except ValueError as error:
            findings.note(str(error), number)
    tables: dict[int, EpisodeTable] = {}
    for file in sorted(paths | set(named)):
        members = named.get(file, [])
        try:
            table = read_table(file, keys.columns)
            if "episode_index" in table.column_names:
                blocks = _blocks(file, table, findings)
            else:
                blocks = _listed_blocks(file, len(table), members, episodes)
        except ValueError as error:
            for number in members:
                findings.blame(number, str(error))
            if not members:
                findings.note(f"{error}; no episode is in it")
            continue
        ends = [first + count for first, count in sorted(blocks.values())]
        one_after_another = [first for first, _ in sorted(blocks.values())] == [0, *ends[:-1]]
        arrays = dict(zip(ends, _arrays(file, table, ends), strict=True)) if one_after_another else {}
        for number, (first, count) in blocks.items():
            if number in tables:
                findings.blame(number, f"rows of it are in {tables[number].file} and in {file}")
            tables[number] = EpisodeTable(file, first, table.slice(first, count), arrays.get(first + count, {}))
    return tables


def _blocks(file: Path, table: pa.Table, findings: Findings) -> dict[int, tuple[int, int]]:
    """First row and number of rows of every episode."""
    indices = numbers(file, table, "episode_index")[:, 0]
    if not np.isfinite(indices).all() or (indices != indices.astype(np.int64)).any() or (indices < 0).any():
        row = int(np.argmax(~(indices >= 0)))
        fail(file, f"episode_index of row {row}", indices[row], "whole numbers from 0")
    found, firsts, counts = np.unique(indices.astype(np.int64), return_index=True, return_counts=True)
    blocks = {}
    for number, first, count in zip(found.tolist(), firsts.tolist(), counts.tolist(), strict=True):
        if not (indices[first : first + count] == number).all():
            findings.blame(number, f"{file}: order of rows is interleaved, expected one block of rows")
        blocks[number] = first, count
    return blocks


def _listed_blocks(
    file: Path, rows: int, members: Sequence[int], episodes: Mapping[int, Episode]
) -> dict[int, tuple[int, int]]:
    """The same where the tables do not say which episode a row belongs to, but `meta/` does."""
    bounds = {}
    for number in members:
        ends = [whole(episodes[number].row.get(f"dataset_{end}_index")) for end in ("from", "to")]
        if None in ends:
            fail(file, "column episode_index", "missing", "one, or dataset_from_index in meta/episodes")
        bounds[number] = ends
    start = min((first for first, _ in bounds.values()), default=0)
    if sorted(row for first, stop in bounds.values() for row in range(first - start, stop - start)) != list(
        range(rows)
    ):
        fail(file, "number of rows", rows, f"those of episodes {list(members)} as in meta/episodes")
    return {number: (first - start, stop - first) for number, (first, stop) in bounds.items()}


def check_counters(
    info: Info, episode: Episode, place: EpisodeTable, findings: Findings, *, by_time: bool
) -> EpisodeTable:
    """Check that `frame_index`, `timestamp` and `index` count the frames; they may begin at any number.

    Args:
        info: The frames per second.
        episode: What `meta/` says.
        place: The rows.
        findings: Takes notes.
        by_time: Whether `timestamp` names frames of a video; otherwise it may be uneven.

    Raises:
        ValueError: A row is out of step.
    """
    steps, number = np.arange(len(place.table)), episode.index
    begins = []
    for name, unit in (("frame_index", 1.0), ("timestamp", 1 / info.fps), ("index", 1.0)):
        values = _counter(place, name, number, findings)
        if values is None or not len(values):
            continue
        tolerance = ROUNDING * unit
        begin = values[0] if np.isfinite(values[0]) else 0.0
        wrong = ~(np.abs(values - begin - steps * unit) <= tolerance)
        if wrong.any():
            frame = int(wrong.argmax())
            if name == "timestamp" and not by_time and _rate_fits(values, info.fps):
                findings.note("timestamp is uneven, not used", number)
                continue
            expected = f"{begin + frame * unit:.6g} at {info.fps:g} frames per second"
            fail(place.file, f"{name} of frame {frame}", f"{values[frame]:.6g}", expected, number)
        listed = whole(episode.row.get("dataset_from_index"))
        if name == "index" and listed is not None and listed != values[0]:
            findings.note(f"index begins at {values[0]:g}, dataset_from_index is {listed}; neither is used", number)
        if name != "index" and abs(values[0]) > tolerance:
            begins.append(f"{name} begins at {values[0]:.6g}")
    if begins:
        findings.note(f"{' and '.join(begins)}, not at 0; rows and frames are matched by their order", number)
    return replace(place, begins=" and ".join(begins))


def _rate_fits(seconds: Shaped[np.ndarray, " rows"], fps: float) -> bool:
    """Whether uneven but ascending time stamps are, on average, those of `fps`."""
    ascending = len(seconds) > 2 and bool((np.diff(seconds) > 0).all())
    return ascending and bool(abs((seconds[-1] - seconds[0]) * fps / (len(seconds) - 1) - 1) < 0.1)


def _counter(place: EpisodeTable, name: str, number: int, findings: Findings) -> Shaped[np.ndarray, " rows"] | None:
    if name not in place.table.column_names:
        return None
    kind = place.table.schema.field(name).type
    if not is_numeric(kind):
        findings.note(f"{name} is of type {kind}, not used", number)
        return None
    values = place.numbers(name)
    if values.shape[1] != 1:
        findings.note(f"{name} has {values.shape[1]} numbers a row, not used", number)
        return None
    return values[:, 0].astype(np.float64)


def episode_rows(number: int, place: EpisodeTable, length: int, keys: Keys, task: str, findings: Findings) -> Rows:
    """The checked columns of an episode, cut to `length` frames.

    Raises:
        ValueError: A column is missing or holds no numbers, or a number is not finite.
    """
    for name in (*keys.actions, *keys.states):
        width = place.numbers(name).shape[1]
        if width != keys.widths.get(name, width):
            fail(place.file, f"width of {name}", width, f"{keys.widths[name]} as in meta/info.json", number)
    actions = _side_by_side(number, place, length, keys.actions, findings, leads_out=True)
    states = _side_by_side(number, place, length, keys.states, findings, leads_out=False)
    rewards, successes = (
        _outcome(number, place, length, name, findings) if name in keys.columns else None
        for name in ("next.reward", "next.success")
    )
    return Rows(
        task=task,
        actions=actions,
        states=states,
        rewards=rewards,
        successes=None if successes is None else successes > 0,
    )


def _outcome(
    number: int, place: EpisodeTable, length: int, name: str, findings: Findings
) -> Float32[np.ndarray, " rows"] | None:
    """A column that training does not need; `None`, with a note, if it does not hold one number per row."""
    try:
        values = place.numbers(name)[:length]
    except ValueError:
        has = name in place.table.column_names
        why = f"it holds {place.table.schema.field(name).type}, not one number a row" if has else "a table lacks it"
        findings.note(f"{name} is left out: {why}", number)
        return None
    if values.shape[1] != 1:
        findings.note(f"{name} is left out: it has {values.shape[1]} numbers a row, expected 1", number)
        return None
    with np.errstate(over="ignore"):
        lacking = ~np.isfinite(values[: max(length - 1, 1), 0].astype(np.float32))
    if lacking.any():
        rows = "every row" if lacking.all() else "some rows"
        findings.note(f"{name} is left out: it is not a finite number in {rows}", number)
        return None
    column = _side_by_side(number, place, length, (name,), findings, leads_out=True)
    return None if column is None else column[:, 0]


def same_outcomes(rows: Sequence[Rows]) -> tuple[Rows, ...]:
    """The rows of all episodes, without rewards or successes where an episode lacks them."""
    lacking = {name: None for name in ("rewards", "successes") if any(getattr(each, name) is None for each in rows)}
    return tuple(replace(each, **lacking) for each in rows)


def _side_by_side(
    number: int, place: EpisodeTable, length: int, names: Sequence[str], findings: Findings, *, leads_out: bool
) -> Float32[np.ndarray, "rows width"] | None:
    """Columns as one matrix; a last row that leads out of the episode may lack numbers and is then left out."""
    if not names:
        return None
    columns = [place.numbers(name)[:length] for name in names]
    rows = length
    if leads_out and length > 1 and not all(np.isfinite(column[-1]).all() for column in columns):
        rows = length - 1
        what = f"{', '.join(names)} of the last frame is not a number"
        findings.note(f"{what}; it leads out of the episode and is never used", number)
    parts = [finite(place.file, name, x[:rows], number) for name, x in zip(names, columns, strict=True)]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def episode_task(episode: Episode, place: EpisodeTable, tasks: Mapping[int, str], findings: Findings) -> str:
    """The task that the first row names by its number, or in words; else the first that `meta/` lists."""
    number, listed, columns = episode.index, listed_tasks(episode), place.table.column_names
    indices = None
    if "task_index" in columns:
        try:
            indices = _counter(place, "task_index", number, findings)
        except ValueError as error:
            findings.note(str(error), number)
    text = None
    if indices is not None and len(indices):
        if (indices != indices[0]).any():
            findings.note("task_index changes within the episode; the first is used", number)
        text = tasks.get(int(indices[0])) if np.isfinite(indices[0]) else None
        if text is None and tasks:
            findings.note(f"task_index is {indices[0]:g}, which meta/tasks does not list", number)
    if text is None:
        words = [place.table.column(name)[0].as_py() for name in TEXTS if name in columns and len(place.table)]
        text = next((word for word in words if isinstance(word, str)), None)
    if text is None:
        return listed[0] if listed else ""
    if listed and text not in listed:
        findings.note(f"{episode.file} names the task {listed[0]!r:.60}, the rows {text!r:.60}, which is used", number)
    return text
