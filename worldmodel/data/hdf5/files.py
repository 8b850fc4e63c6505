"""Open HDF5 files, and show what is in them; h5py's errors name the file."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from jaxtyping import Float32

from worldmodel.data.checks import fail, matrix, without_unfinished_end
from worldmodel.data.remote.tree import held

BROKEN_FILE = (OSError, KeyError, RuntimeError, ValueError, TypeError, MemoryError)
SHOWN = 24  # names in a message about an unknown layout


@contextmanager
def opened(file: Path) -> Iterator[h5py.File]:
    """A file to read from.

    Raises:
        ValueError: It is not readable HDF5.
    """
    with held(file) as stored:
        try:
            content = h5py.File(stored, "r")
        except BROKEN_FILE as error:
            raise ValueError(f"{file}: content is not readable HDF5: {error}") from error
        with content:
            yield content


def member(file: Path, group: h5py.Group, name: str, kind: type, episode: int | None = None) -> Any:
    """A group or data set inside `group`.

    Raises:
        ValueError: It is missing, or of another kind.
    """
    try:
        found = group.get(name)
    except BROKEN_FILE as error:
        raise ValueError(f"{file}: {group.name}/{name} cannot be read: {error}") from error
    if not isinstance(found, kind):
        shown = "missing" if found is None else type(found).__name__
        fail(file, f"{group.name.rstrip('/')}/{name}", shown, f"a {kind.__name__}", episode)
    return found


def read_table(
    file: Path, group: h5py.Group, name: str, rows: Sequence[int], episode: int, *, may_end: bool = False
) -> Float32[np.ndarray, "rows width"]:
    """A data set of numbers; with `may_end`, a last row that is not finite is left out.

    Raises:
        ValueError: It is missing or malformed.
    """
    values, place = member(file, group, name, h5py.Dataset, episode), f"{group.name.rstrip('/')}/{name}"
    if values.ndim > 2 or values.dtype.kind not in "fiub":
        found = f"{values.dtype} {values.shape}"
        fail(file, place, found, "numbers (frames, width)", episode)
    if values.ndim and len(values) not in rows:  # before memory is allocated for them
        fail(file, f"number of rows of {place}", len(values), " or ".join(map(str, rows)), episode)
    try:
        numbers = np.asarray(values[()])
    except BROKEN_FILE as error:
        raise ValueError(f"{file}: {place} cannot be read: {error}") from error
    used = without_unfinished_end(numbers, max(rows)) if may_end else numbers
    return matrix(file, place, used, rows, episode)


def data_sets(group: h5py.Group, prefix: str = "") -> dict[str, h5py.Dataset]:
    """All data sets below a group, by their path inside it."""
    found: dict[str, h5py.Dataset] = {}
    for name in group:
        inner = group.get(name)
        if isinstance(inner, h5py.Group):
            found |= data_sets(inner, f"{prefix}{name}/")
        elif isinstance(inner, h5py.Dataset):
            found[f"{prefix}{name}"] = inner
    return found


def find_actions(file: Path, group: h5py.Group, known: Sequence[str], episode: int) -> list[str]:
    """The data set called `actions` or `action`; nothing if there is neither.

    Args:
        file: For messages.
        group: The episode.
        known: Data sets below it that are something else.
        episode: For messages.

    Raises:
        ValueError: Both are there, or only data sets whose names have `action` in them, so that one may be meant.
    """
    names = [name for name in ("actions", "action") if isinstance(group.get(name), h5py.Dataset)]
    like = [name for name in data_sets(group) if "action" in name.lower() and name not in known]
    if len(names) > 1 or (like and not names):
        found = ", ".join(names or like)
        fail(file, f"actions of {group.name}", found, "one named action or actions, or --action-keys", episode)
    return names


def tree(group: h5py.Group) -> str:
    """A short text with names, types and shapes of what a file holds."""
    lines: list[str] = []
    _branch(group, "", lines)
    more = f" and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
    return (", ".join(lines[:SHOWN]) or "nothing") + more


def _branch(group: h5py.Group, prefix: str, lines: list[str]) -> None:
    names = list(group)
    for place, name in enumerate(names[:SHOWN]):
        inner = group.get(name)
        alike = [other for other in names if other.rstrip("0123456789") == name.rstrip("0123456789")]
        if isinstance(inner, h5py.Group) and len(alike) > 2 and alike[0] != name:
            if alike[1] == name:
                lines.append(f"{prefix}{name} and {len(alike) - 2} like it")
            continue
        if isinstance(inner, h5py.Group):
            _branch(inner, f"{prefix}{name}/", lines)
        elif isinstance(inner, h5py.Dataset):
            lines.append(f"{prefix}{name} {inner.dtype} {tuple(inner.shape)}")
        else:
            lines.append(f"{prefix}{name}")
        if place == SHOWN - 1 and len(names) > SHOWN:
            lines.append(f"{prefix}... {len(names) - SHOWN} more")
