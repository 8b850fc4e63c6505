"""The actions, states, rewards and successes of every episode of a plain folder."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from worldmodel.data.checks import disagreements, fail, matrix, without_unfinished_end
from worldmodel.data.options import DataOptions
from worldmodel.data.plain.arrays import Column, Table, read_table
from worldmodel.data.plain.clocks import refuse_hidden_clocks
from worldmodel.data.plain.columns import find_columns
from worldmodel.data.plain.layout import EpisodeFiles
from worldmodel.data.plain.names import ROLES, role_of
from worldmodel.data.plain.text import Text, as_table, read_text, settle_headers
from worldmodel.data.source import Rows

TEXT = {".csv", ".tsv", ".txt"}


@dataclass
class EpisodeTables:
    """The columns of one episode, and what is said about its files.

    Attributes:
        columns: By role, one row a frame; the last may be missing, except that of states.
        offsets: Number of rows minus number of frames, by role; 0 or -1.
        names: Of the columns of a role, where several have names.
    """

    length: int
    columns: dict[str, Float32[np.ndarray, "rows width"]] = field(default_factory=dict)
    offsets: dict[str, int] = field(default_factory=dict)
    names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    used: set[Path] = field(default_factory=set)
    unread: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def rows(self) -> Rows:
        """The rows in the form in which a source holds them."""
        found = self.columns
        rewards, successes = (found[role][:, 0] if role in found else None for role in ("rewards", "successes"))
        return Rows(
            task="",
            actions=found.get("actions"),
            states=found.get("states"),
            rewards=rewards,
            successes=None if successes is None else successes > 0,
        )


def read_rows(
    root: Path,
    episodes: Mapping[int, EpisodeFiles],
    frames: Mapping[int, tuple[int, float]],
    options: DataOptions,
    broken: dict[int, str],
) -> dict[int, EpisodeTables]:
    """Read the tables of the episodes; add those that cannot be read to `broken`.

    Args:
        root: The folder.
        episodes: Their files, by number.
        frames: Number of frames of each, and frames per second.
        options: Which columns hold actions and states.
        broken: Reasons, by number; added to.
    """
    texts = _read_texts(episodes, frames, broken)
    read: dict[int, EpisodeTables] = {}
    found: dict[int, dict[str, Column]] = {}
    for number, files in episodes.items():
        if number in broken:
            continue
        length = frames[number][0]
        try:
            tables = _tables(files, texts[number])
            columns = find_columns(root / files.name, tables, options.action_keys, options.state_keys)
            read[number] = EpisodeTables(length, used=columns.used, notes=columns.notes)
            read[number].unread = [file for file in files.tables.values() if file not in columns.used]
            found[number] = columns.found
            for role, column in columns.found.items():
                _add(read[number], role, column, number)
        except ValueError as error:
            broken[number] = str(error)
            read.pop(number, None)
    whole = {number: tables for number, tables in read.items() if number not in broken}
    _compare(whole, {number: files.name for number, files in episodes.items()}, broken)
    refuse_hidden_clocks({number: found[number] for number in whole}, frames, broken)
    return {number: read.get(number, EpisodeTables(0)) for number in episodes}


def _read_texts(
    episodes: Mapping[int, EpisodeFiles], frames: Mapping[int, tuple[int, float]], broken: dict[int, str]
) -> dict[int, dict[str, Text]]:
    """The text files of every episode; those named like a role must be readable."""
    groups: dict[str, dict[int, Text]] = defaultdict(dict)
    for number, files in episodes.items():
        for key, file in files.tables.items():
            if file.suffix.lower() not in TEXT:
                continue
            try:
                groups[key][number] = read_text(file)
            except ValueError as error:
                if role_of(key):
                    broken[number] = str(error)
    texts: dict[int, dict[str, Text]] = {number: {} for number in episodes}
    lengths = {number: length for number, (length, _) in frames.items()}
    for key, group in groups.items():
        for number, text in settle_headers(group, lengths, exact=key == "states").items():
            if isinstance(text, Text):
                texts[number][key] = text
            elif role_of(key):
                broken[number] = text
    return texts


def _tables(files: EpisodeFiles, texts: Mapping[str, Text]) -> dict[str, Table]:
    tables: dict[str, Table] = {}
    for key, file in files.tables.items():
        try:
            if file.suffix.lower() in TEXT:
                table = as_table(texts[key]) if key in texts else None
            else:
                table = read_table(file)
        except ValueError:
            if role_of(key):
                raise
            table = None
        if table is not None:
            tables[key] = table
        elif role_of(key):
            fail(file, "content", "no table", f"rows of {key}")
    return tables


def _add(tables: EpisodeTables, role: str, column: Column, number: int) -> None:
    """Check one column; the values of a last row that leads out of the episode do not matter."""
    length, values = tables.length, np.asarray(column.values)
    rows = (length,) if role == "states" else (length, max(length - 1, 1))
    if values.ndim and values.dtype.kind in "fiub":
        tables.offsets[role] = len(values) - length
    several = len(column.names) > 1 and not column.chosen and not column.unnamed
    tables.names[role] = column.names if several else ()
    used = values if role == "states" else without_unfinished_end(values, length)
    if len(used.shape) and len(used) < len(values):
        tables.notes.append(f"the last row of {role} is not finite; it leads out of the episode and is not used")
    tables.columns[role] = matrix(column.file, role, used, rows, number)
    width = tables.columns[role].shape[1]
    if role in ("rewards", "successes") and width != 1:
        fail(column.file, f"width of {role}", width, 1, number)


def _compare(tables: Mapping[int, EpisodeTables], labels: Mapping[int, str], broken: dict[int, str]) -> None:
    """Keep the tables that half of the episodes have; their widths and row counts must be the same in all episodes."""
    counts = Counter(role for found in tables.values() for role in found.columns)
    common = tuple(role for role in ROLES if 2 * counts[role] >= len(tables) > 0)
    for number, found in tables.items():
        for role in [role for role in found.columns if role not in common]:
            del found.columns[role]
            found.notes.append(f"{role} are not read, because most episodes have none")
        if len(found.columns) < len(common):
            broken[number] = f"{labels[number]}: tables are {tuple(found.columns)}, expected {common} as in the others"
    for role in common:
        whole = {number: found for number, found in tables.items() if number not in broken}
        widths = {number: found.columns[role].shape[1:] for number, found in whole.items()}
        reasons = disagreements(f"width of {role}", widths, labels)
        names = {number: found.names[role] for number, found in whole.items() if found.names[role]}
        reasons |= disagreements(f"columns of {role}", names, labels)
        offsets = {number: found.offsets[role] for number, found in whole.items() if found.length > 1}
        full = 2 * list(offsets.values()).count(0) >= len(offsets)
        for number, offset in offsets.items():
            if offset != (0 if full else -1):
                expected = "one a frame" if full else "one less than frames"
                rows = whole[number].length + offset
                reasons.setdefault(
                    number,
                    f"{labels[number]}: number of rows of {role} is {rows}, expected {expected} as in the others",
                )
        for number, reason in reasons.items():
            broken.setdefault(number, reason)
