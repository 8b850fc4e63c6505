"""Tables of numbers in npy, npz, json, jsonl and parquet files; `worldmodel.data.plain.text` reads CSV."""

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Shaped

from worldmodel.data.checks import fail
from worldmodel.data.remote.tree import held

BROKEN_TABLE = (OSError, ValueError, EOFError, MemoryError, OverflowError, RecursionError, KeyError, TypeError)


@dataclass(frozen=True)
class Table:
    """The content of one file: columns with names, or one array without.

    Attributes:
        columns: Arrays whose first axis are the rows.
        whole: The array of a file whose columns have no names.
        text: Whether it is text, in which a vector is several neighbouring columns.
        notes: What is odd about it.
        whole_numbers: Places of the columns of a text whose numbers are all written without decimals.
        decimals: Places of those whose numbers all have decimals.
    """

    file: Path
    columns: Mapping[str, Shaped[np.ndarray, "..."]] = field(default_factory=dict)
    whole: Shaped[np.ndarray, "..."] | None = None
    text: bool = False
    notes: tuple[str, ...] = ()
    whole_numbers: tuple[int, ...] = ()
    decimals: tuple[int, ...] = ()


@dataclass
class Column:
    """The values of one role, and where they were found.

    Attributes:
        unnamed: Whether they come from text without names; then one column may be a time or an index.
        whole_numbers: Columns of such a text that are written without decimals, while others have them.
        names: Of the columns, if they have names.
        chosen: Whether the user named them.
    """

    file: Path
    values: Shaped[np.ndarray, "..."]
    unnamed: bool = False
    whole_numbers: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    chosen: bool = False


def read_table(file: Path) -> Table | None:
    """Read a table; `None` for a json file that holds no table.

    Raises:
        ValueError: It is not readable; the message names it.
    """
    readers = {".npy": _npy, ".npz": _npz, ".json": _json, ".jsonl": _jsonl, ".parquet": _parquet}
    with _readable(file):
        return readers[file.suffix.lower()](file)


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    try:
        yield
    except (*BROKEN_TABLE, pa.ArrowException) as error:
        if str(error).startswith(str(file)):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{file}: content is not a readable {_KINDS[file.suffix.lower()]}: {reason}") from error


_KINDS = {".npy": "array", ".npz": "archive of arrays", ".json": "table", ".jsonl": "table", ".parquet": "table"}


def _npy(file: Path) -> Table:
    with held(file) as content, content.open("rb") as stream:
        return Table(file, whole=np.lib.format.read_array(stream, allow_pickle=False))


def _npz(file: Path) -> Table:
    import zipfile
    import zlib

    try:
        with held(file) as content, np.load(content, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise ValueError(f"{file}: content is not a readable archive of arrays: {error}") from error
    if not arrays:
        fail(file, "number of arrays", 0, "at least 1")
    if len(arrays) == 1 and next(iter(arrays)) == "arr_0":
        return Table(file, whole=arrays["arr_0"])
    columns = {name: values for name, values in arrays.items() if values.ndim}
    return Table(file, columns, notes=_unread(file, arrays.keys() - columns.keys()))


def _unread(file: Path, names: Collection[str]) -> tuple[str, ...]:
    """A note on fields that are not columns."""
    return (f"fields {', '.join(sorted(names))} of {file.name} are not read",) if names else ()


def _json(file: Path) -> Table | None:
    return _from_json(file, json.loads(_text(file)))


def _jsonl(file: Path) -> Table | None:
    return _from_json(file, [json.loads(line) for line in full_lines(file, _text(file))])


def _text(file: Path) -> str:
    with held(file) as content:
        return content.read_text(encoding="utf-8-sig")


def full_lines(file: Path, text: str) -> list[str]:
    """The lines of a text, without blank ones at its end.

    If every second line is blank, all of them are left out: a line end was written twice.

    Raises:
        ValueError: A blank line lies between others; rows after it would shift.
    """
    lines = text.splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    if len(lines) > 2 and not any(line.strip() for line in lines[1::2]):
        lines = lines[::2]
    blank = next((number for number, line in enumerate(lines, 1) if not line.strip()), None)
    if blank is not None:
        fail(file, f"line {blank}", "blank", "a row, or the end of the table")
    return lines


def _from_json(file: Path, content: Any) -> Table | None:
    """A list of rows, a list of objects with the same fields, or an object of lists."""
    if isinstance(content, list) and content and all(isinstance(row, dict) for row in content):
        names = list(content[0])
        for number, row in enumerate(content):
            if set(row) != set(names):
                fail(file, f"fields of row {number}", sorted(row), sorted(names))
        content = {name: [row[name] for row in content] for name in names}
    if isinstance(content, dict):
        lists = {name: values for name, values in content.items() if isinstance(values, list) and values}
        columns = {name: _json_array(file, name, values) for name, values in lists.items()}
        return Table(file, columns, notes=_unread(file, content.keys() - columns.keys())) if columns else None
    if isinstance(content, list):
        return Table(file, whole=_json_array(file, "the list", content))
    return None


def _json_array(file: Path, name: str, values: list[Any]) -> Shaped[np.ndarray, "..."]:
    """`null` is not a number."""
    try:
        found = np.array(values)
    except ValueError as error:
        raise ValueError(f"{file}: rows of {name} differ in width") from error
    return found.astype(np.float64) if found.dtype == object and _only_numbers(values) else found


def _only_numbers(values: Any) -> bool:
    if isinstance(values, list):
        return all(map(_only_numbers, values))
    return values is None or isinstance(values, int | float)


def _parquet(file: Path) -> Table:
    with held(file) as content:
        table = pq.read_table(content)
    return Table(file, {name: _arrow_array(file, name, table.column(name)) for name in table.column_names})


def _arrow_array(file: Path, name: str, column: pa.ChunkedArray) -> Shaped[np.ndarray, "..."]:
    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _json_array(file, name, column.to_pylist())
    if pa.types.is_timestamp(kind):
        return column.cast(pa.int64()).to_numpy()
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        return np.array([str(value) for value in column.to_pylist()])
    return column.to_numpy()
