"""Finding and reading JSON and parquet of a LeRobot folder, every fault reported as a `ValueError`."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Shaped

from worldmodel.data.checks import fail
from worldmodel.data.lerobot.findings import Findings
from worldmodel.data.remote.tree import held

BROKEN_FILE = (OSError, ValueError, MemoryError, RecursionError, OverflowError, pa.ArrowException)
BOM = "\ufeff"
THREADS = 4
POINTER = b"version https://git-lfs"
LEFT_BEHIND = {"__MACOSX", "Thumbs.db", "desktop.ini"}
T = TypeVar("T")


def visible_files(folder: Path | str) -> list[str]:
    """All files below a folder, and below folders that are links, unless a link leads back to a folder around it.

    Hidden files and those in `LEFT_BEHIND`, which systems and editors leave behind, do not belong to a data set.
    """
    found = []
    for root, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if _is_visible(name) and not _leads_back(root, name)]
        found += [f"{root}/{name}" for name in names if _is_visible(name)]
    return found


def _is_visible(name: str) -> bool:
    return not name.startswith(".") and name not in LEFT_BEHIND


def _leads_back(root: str, name: str) -> bool:
    """Whether a folder is a link to one that it lies in."""
    path = os.path.join(root, name)
    return os.path.islink(path) and Path(path).resolve() in (Path(root).resolve(), *Path(root).resolve().parents)


def is_pointer(file: Path) -> bool:
    """Whether a file is a Git LFS pointer, which stands for a file that was not fetched."""
    try:
        with held(file) as content, content.open("rb") as stream:
            return stream.read(len(POINTER)) == POINTER
    except OSError:
        return False


def unreadable(file: Path, kind: str, error: BaseException) -> ValueError:
    """The error to raise where a file cannot be read as `kind`."""
    if is_pointer(file):
        return ValueError(f"{file}: it is a Git LFS pointer, expected {kind}: git lfs pull fetches it")
    return ValueError(f"{file}: content is not readable {kind}: {' '.join(str(error).split())}")


def in_threads(read: Callable[[Path], T], files: Iterable[Path]) -> Iterator[Callable[[], T]]:
    """Read many small files at once; calling a result returns what was read, or raises the error of reading it."""
    with ThreadPoolExecutor(THREADS) as pool:
        yield from [future.result for future in [pool.submit(read, file) for file in files]]


def read_json(file: Path, findings: Findings) -> Any:
    """Parse one JSON file."""
    try:
        return json.loads(_text(file, findings))
    except BROKEN_FILE as error:
        raise unreadable(file, "JSON", error) from error


def read_json_lines(file: Path, findings: Findings) -> list[dict[str, Any]]:
    """Parse one JSON object per line; blank lines are skipped."""
    try:
        rows = [json.loads(line) for line in _text(file, findings).split("\n") if line.strip()]
    except BROKEN_FILE as error:
        raise unreadable(file, "JSON lines", error) from error
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            fail(file, f"row {number}", type(row).__name__, "a JSON object")
    return rows


def _text(file: Path, findings: Findings) -> str:
    with held(file) as stored:
        content = stored.read_text(encoding="utf-8")
    if content.startswith(BOM):
        findings.note(f"{file} begins with a byte-order mark")
    return content.removeprefix(BOM)


def read_schema(file: Path) -> dict[str, pa.DataType]:
    """The columns of a parquet file and their types."""
    try:
        with held(file) as content:
            schema = pq.read_schema(content)
        names = schema.names
    except BROKEN_FILE as error:
        raise unreadable(file, "parquet", error) from error
    if len(set(names)) != len(names):
        fail(file, "columns", names, "distinct names")
    return dict(zip(names, schema.types, strict=True))


def read_table(file: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read those of the `columns` that a parquet file has; by default all but statistics."""
    try:
        with held(file) as content, pq.ParquetFile(content, page_checksum_verification=True) as parquet:
            names = parquet.schema_arrow.names
            wanted = [n for n in names if (n in columns if columns is not None else not n.startswith("stats/"))]
            if len(set(wanted)) != len(wanted):
                fail(file, "columns", names, "distinct names")
            table = parquet.read(columns=wanted, use_threads=False)
        table.validate(full=True)
    except BROKEN_FILE as error:
        if str(error).startswith(str(file)):
            raise
        raise unreadable(file, "parquet", error) from error
    return table.select(wanted).combine_chunks()


def python_rows(file: Path, table: pa.Table) -> list[dict[str, Any]]:
    """The rows of a table as dicts."""
    try:
        return table.to_pylist()
    except (ValueError, OverflowError, pa.ArrowException) as error:
        raise ValueError(f"{file}: a cell is not readable: {error}") from error


def is_list(kind: pa.DataType) -> bool:
    """Whether a cell of this type is a list."""
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def is_numeric(kind: pa.DataType) -> bool:
    """Whether a cell of this type is a number, a truth value, or a list of such."""
    return number_kind(kind) != ""


def number_kind(kind: pa.DataType) -> str:
    """`float`, `int`, `uint` or `bool`, for lists the type of their elements; empty for all other types."""
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    while is_list(kind):
        kind = kind.value_type
    if pa.types.is_integer(kind):
        return "int" if pa.types.is_signed_integer(kind) else "uint"
    return "float" if pa.types.is_floating(kind) else "bool" if pa.types.is_boolean(kind) else ""


def is_picture(kind: pa.DataType) -> bool:
    """Whether a cell of this type is an encoded picture, or names one."""
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    if pa.types.is_struct(kind):
        return {field.name for field in kind} & {"bytes", "path"} != set()
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def numbers(file: Path, table: pa.Table, name: str) -> Shaped[np.ndarray, "rows width"]:
    """A column of numbers, or of lists of any depth, as a matrix; NaN where a number is missing.

    Raises:
        ValueError: If the column is missing, holds no numbers, or lists of different lengths.
    """
    if name not in table.column_names:
        fail(file, f"column {name}", "missing", f"one of {table.column_names}")
    values = table.column(name)
    values = values.chunk(0) if values.num_chunks == 1 else pa.concat_arrays(values.chunks or [pa.array([])])
    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    if not is_numeric(values.type):
        fail(file, f"type of {name}", values.type, "numbers")
    if is_list(values.type) and values.null_count:
        values = _without_nulls(file, name, values)
    while is_list(values.type):
        sizes = pc.unique(pc.list_value_length(values))
        if len(sizes) > 1 or values.null_count:
            fail(file, f"width of {name}", sizes.to_pylist(), "the same in every row")
        values = values.flatten()
    if not len(table):
        return np.zeros((0, 1), np.float32)
    if pa.types.is_boolean(values.type) and values.null_count:
        values = values.cast(pa.float32())
    array = values.to_numpy(zero_copy_only=False)
    if array.size == 0:
        fail(file, f"width of {name}", 0, "at least 1")
    return array.reshape(len(table), -1)


def _without_nulls(file: Path, name: str, values: pa.Array) -> pa.Array:
    """Lists of NaN in place of missing lists."""
    rows = values.to_pylist()
    given = next((row for row in rows if row is not None), None)
    if given is None or any(isinstance(value, list) for value in given):
        fail(file, f"nulls in {name}", values.null_count, 0)
    nothing = [float("nan")] * len(given)
    return pa.array([nothing if row is None else [float("nan") if v is None else v for v in row] for row in rows])
