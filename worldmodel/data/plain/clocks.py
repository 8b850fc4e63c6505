"""Find columns that count rows or tell the time, and so are not actions, in any kind of table."""

from collections import Counter
from collections.abc import Mapping
from itertools import pairwise

import numpy as np
from jaxtyping import Float64

from worldmodel.data.checks import fail
from worldmodel.data.plain.arrays import Column, Table
from worldmodel.data.plain.names import is_index, is_mark, is_time, may_be_index, may_be_time

UNITS = (1.0, 1e3, 1e6, 1e9)  # of a second, as clocks count
JITTER = 0.2  # of a frame, on average: clocks are late now and then
EPOCH = (1e9, 3e9)  # seconds since 1970, from 2001 to 2065


def no_value(table: Table, name: str) -> str:
    """`a time`, `an index` or `about the episode` if a column is one of these; else an empty string.

    A column that is named like an index or a time and like nothing else (`frame_idx`, `wall_time`) must count or rise.
    A column whose name may mean something else, too (`id`, `step_x`), is one if it counts or rises.

    Raises:
        ValueError: It is named like an index or a time, but its values say otherwise.
    """
    values = np.asarray(table.columns[name])
    if is_mark(name):
        return "about the episode"
    if values.ndim != 1:
        return ""
    steps = _steps(name, values)
    counts = bool(len(steps)) and bool((np.abs(steps) >= 1).all()) and bool(np.median(steps) == 1)
    if is_time(name) and not (may_be_index(name) and counts):
        return _strict_time(table, name, steps)
    if is_index(name) or is_time(name):
        return _strict_index(table, name, values, steps)
    rises = bool(len(steps)) and bool((steps >= 0).all() and 2 * (steps > 0).sum() > len(steps))
    if may_be_time(name) and rises and not (may_be_index(name) and counts):
        return "a time"
    if may_be_index(name) and rises and bool((steps >= 1).all() and (steps == steps.round()).all()):
        return _strict_index(table, name, values, steps)
    return ""


def _steps(name: str, values: np.ndarray) -> Float64[np.ndarray, " steps"]:
    """Differences between rows; for dates only whether they ascend."""
    if values.dtype.kind in "US" and may_be_time(name):
        return np.array([1.0 if before < after else -1.0 for before, after in pairwise(values.tolist())])
    if values.dtype.kind in "ui":
        return np.diff(values.astype(np.int64)).astype(np.float64)
    return np.diff(values.astype(np.float64)) if values.dtype.kind in "fb" else np.array([np.nan])


def _strict_time(table: Table, name: str, steps: Float64[np.ndarray, " steps"]) -> str:
    if not (steps >= 0).all() or (not np.any(steps) and len(steps) > 1):
        fail(table.file, f"column {name!r}", "not ascending", "a time, or another name")
    return "a time"


def _strict_index(table: Table, name: str, values: np.ndarray, steps: Float64[np.ndarray, " steps"]) -> str:
    shown = repr(name) if name else "without a name"
    if len(steps) and not (np.all(steps == steps[0]) and steps[0] > 0):
        row = int(np.argmax((steps != np.median(steps)) | (steps <= 0))) + 1
        fail(table.file, f"column {shown}", f"{values[row]:.10g} after {values[row - 1]:.10g}", "an index without gaps")
    if not name and table.text:
        place = list(table.columns).index(name)
        if place not in table.whole_numbers or not (table.decimals or values[0] in (0, 1)):
            fail(table.file, f"column {shown}", f"{values[0]}, ...", "an index in whole numbers, or a name")
    return "an index"


def refuse_hidden_clocks(
    found: Mapping[int, Mapping[str, Column]], frames: Mapping[int, tuple[int, float]], broken: dict[int, str]
) -> None:
    """Raise a `ValueError` if a column counts rows or tells the time in most episodes, unless the user named it."""
    for role in ("actions", "states"):
        tables = {n: columns[role] for n, columns in found.items() if role in columns and not columns[role].chosen}
        suspects = {n: _suspects(column, frames[n][1], alone=len(tables) == 1) for n, column in tables.items()}
        counts = Counter(item for kinds in suspects.values() for item in kinds.items())
        hidden = [item for item, count in counts.items() if 2 * count > len(tables)]
        for place, kind in hidden[:1]:
            for number, column in tables.items():
                name = column.names[place] if place < len(column.names) else ""
                label = f"column {name!r}" if name and not name.isdecimal() else f"column {place} has no name and"
                way = f"--{role[:-1]}-keys that names what to read" if not column.unnamed else "a header"
                broken[number] = f"{column.file}: {label} {kind}, expected {way} that tells it from the {role}"


def _suspects(column: Column, fps: float, *, alone: bool) -> dict[int, str]:
    """Columns that may be an index or a time, and why.

    If several columns of a table with names, or of numbers without text, count in the same way, they are values. Only a
    column that starts like an index or a clock is then excluded, and none if there is only one episode.
    """
    values = np.asarray(column.values, np.float64)
    values = values.reshape(len(values), -1)
    steps = np.diff(values, axis=0)
    if len(steps) < 2:
        return {}
    width = values.shape[1]
    counting = [place for place in range(width) if (steps[:, place] == 1).all()]
    passing = [place for place in range(width) if place not in counting and _passes(values[:, place], fps)]
    kinds = {}
    for place in counting:
        written = column.unnamed and place in column.whole_numbers
        only = width > 1 and len(counting) == 1
        if (width > 1 and written) or only or (not alone and values[0, place] in (0, 1)):
            kinds[place] = "counts like an index"
    for place in passing:
        only = width > 1 and len(passing) == 1
        starts = not alone and (abs(values[0, place]) * fps < 1 or values[0, place] >= EPOCH[0])
        if column.unnamed or only or starts:
            kinds[place] = "rises by 1 / fps like a time"
    return kinds


def _passes(values: Float64[np.ndarray, " rows"], fps: float) -> bool:
    """Whether numbers rise, by one frame on average, or are times since 1970 that do not fall."""
    steps = np.diff(values)
    if (steps > 0).all() and any(abs(steps.mean() * fps / unit - 1) < JITTER for unit in UNITS):
        return True
    since = any(EPOCH[0] * unit <= values[0] <= EPOCH[1] * unit for unit in UNITS)
    return since and bool((steps >= 0).all() and steps.any())
