"""Pictures that are stored inside the tables."""

import os
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from worldmodel.data.checks import fail
from worldmodel.data.lerobot.findings import Findings
from worldmodel.data.lerobot.tables import BROKEN_FILE, is_list, is_numeric, is_picture, read_schema
from worldmodel.data.options import ranges
from worldmodel.data.remote.tree import held
from worldmodel.data.source import Pictures

CACHED_MB = 256  # of encoded pictures, in every thread that reads
BATCH = 64  # rows read at a time
BAD_PICTURE = (OSError, ValueError, TypeError, SyntaxError, Image.DecompressionBombError)


@dataclass(frozen=True)
class TablePlace:
    """Where the rows of an episode lie: in a file, from a row on."""

    file: Path
    first: int


@dataclass(frozen=True)
class TablePictures:
    """Pictures in columns of parquet files; satisfies `Pictures`.

    A cell holds the bytes of a PNG or JPEG file, the name of such a file, or the colours themselves.

    Attributes:
        folder: The data set.
        places: Where each episode lies.
        keys: The columns, one for each camera.
        numbers: Each episode's number in the data set, for names of files.
    """

    folder: Path
    places: tuple[TablePlace, ...]
    keys: tuple[str, ...]
    numbers: tuple[int, ...]

    def read(self, episode: int, camera: int, indices: np.ndarray) -> UInt8[np.ndarray, "t h w 3"]:
        """Decode pictures; see `Pictures.read`."""
        place, key = self.places[episode], self.keys[camera]
        pictures = []
        for row, cell in zip(indices.tolist(), _cells(place.file, key, place.first + indices), strict=True):
            try:
                pictures.append(self._decode(place.file, key, self.numbers[episode], row, cell))
            except BAD_PICTURE as error:
                reason = "its format is not known" if isinstance(error, UnidentifiedImageError) else error
                raise ValueError(f"{place.file}: {key} of frame {row} is not a readable picture: {reason}") from error
        sizes = {picture.shape for picture in pictures}
        if len(sizes) > 1:
            raise ValueError(f"{place.file}: pictures of {key} differ in size: {sorted(sizes)}")
        return np.stack(pictures)

    def file(self, episode: int, camera: int) -> Path:
        """The table."""
        return self.places[episode].file

    def codec(self, episode: int, camera: int) -> str:
        """Format of the first picture, such as `png`."""
        place, key = self.places[episode], self.keys[camera]
        cell = _cells(place.file, key, np.array([place.first]))[0]
        if not is_list(cell.type):
            try:
                with Image.open(BytesIO(self._content(place.file, key, self.numbers[episode], 0, cell))) as picture:
                    return f"{picture.format or 'picture'} in tables".lower()
            except BAD_PICTURE:
                return "unreadable pictures in tables"
        return "raw pictures in tables"

    def _decode(self, file: Path, key: str, number: int, row: int, cell: pa.Scalar) -> UInt8[np.ndarray, "h w 3"]:
        if is_list(cell.type):
            return _colours(np.array(cell.as_py()))
        with Image.open(BytesIO(self._content(file, key, number, row, cell))) as picture:
            if picture.mode.startswith(("I", "F")):
                raise ValueError(f"its mode is {picture.mode}, not 8-bit colour")
            return np.asarray(picture.convert("RGB"))

    def _content(self, file: Path, key: str, number: int, row: int, cell: pa.Scalar) -> bytes:
        value = cell.as_py()
        value = value if isinstance(value, dict) else {"bytes": value}
        if value.get("bytes"):
            return value["bytes"]
        path = picture_file(self.folder, file, key, number, row, value.get("path"))
        if path is None:
            raise ValueError(f"the cell is empty, and there is no file {value.get('path')!r}")
        with held(path) as content:
            return content.read_bytes()


def picture_file(folder: Path, table: Path, key: str, number: int, row: int, name: str | None) -> Path | None:
    """The file of a picture that a table names, wherever it usually lies; `None` if there is none."""
    if not isinstance(name, str) or not name:
        return None
    usual = folder / "images" / key / f"episode_{number:06d}"
    paths = [folder / name, table.parent / name, usual / Path(name).name, usual / f"frame_{row:06d}.png"]
    return next((path for path in paths if path.is_file()), None)


def check_pictures(
    folder: Path, key: str, members: Mapping[int, tuple[Path, int, int]], findings: Findings
) -> tuple[int, int] | None:
    """Mark episodes as broken whose tables lack pictures of a camera, and find the size of the first picture.

    If the file says that no picture is missing, no other picture is read.

    Args:
        folder: The data set.
        key: The column of the camera.
        members: For each episode its table, its first row and the number of its rows.
        findings: Takes what is wrong.
    """
    files: dict[Path, dict[int, tuple[Path, int, int]]] = defaultdict(dict)
    for number, place in members.items():
        files[place[0]][number] = place
    for file, inside in files.items():
        try:
            kind = read_schema(file).get(key)
            if kind is None or not (is_picture(kind) or (is_list(kind) and is_numeric(kind))):
                fail(file, f"type of {key}", kind or "missing", "pictures")
            empty = _empty_cells(file, key) if is_picture(kind) else {}
        except BROKEN_FILE as error:
            for number in inside:
                findings.blame(number, str(error))
            continue
        for number, (_, first, rows) in inside.items():
            frames = [row - first for row in empty if first <= row < first + rows]
            lost = [f for f in frames if picture_file(folder, file, key, number, f, empty[first + f]) is None]
            if lost:
                findings.blame(number, f"{file}: {key} has no picture in frames {ranges(lost)}")
    for number, (file, first, _) in members.items():
        if number not in findings.broken:
            with findings.blaming(number):
                pictures = TablePictures(folder, (TablePlace(file, first),), (key,), (number,))
                return pictures.read(0, 0, np.array([0])).shape[1:3]
    return None


def _empty_cells(file: Path, key: str) -> dict[int, str | None]:
    """Rows of a column that hold no bytes, with the names of files that they hold instead."""
    with held(file) as content, pq.ParquetFile(content) as parquet:
        columns = [parquet.schema.column(i).path for i in range(len(parquet.schema))]
        place = next((i for i, path in enumerate(columns) if path in (key, f"{key}.bytes")), None)
        if place is not None:
            groups = [parquet.metadata.row_group(i).column(place).statistics for i in range(parquet.num_row_groups)]
            if all(group is not None and group.has_null_count and not group.null_count for group in groups):
                return {}
        rows = (cell for batch in parquet.iter_batches(BATCH, columns=[key]) for cell in batch.column(0).to_pylist())
        cells = [cell if isinstance(cell, dict) else {"bytes": cell} for cell in rows]
    return {row: cell.get("path") for row, cell in enumerate(cells) if not cell.get("bytes")}


@dataclass(frozen=True)
class MixedPictures:
    """Cameras from several places: camera `i` is camera `cameras[i][1]` of `cameras[i][0]`; satisfies `Pictures`."""

    cameras: tuple[tuple[Pictures, int], ...]

    def read(self, episode: int, camera: int, indices: np.ndarray) -> UInt8[np.ndarray, "t h w 3"]:
        """Frames; see `Pictures.read`."""
        pictures, place = self.cameras[camera]
        return pictures.read(episode, place, indices)

    def file(self, episode: int, camera: int) -> Path:
        """The file that holds them."""
        pictures, place = self.cameras[camera]
        return pictures.file(episode, place)

    def codec(self, episode: int, camera: int) -> str:
        """How they are compressed."""
        pictures, place = self.cameras[camera]
        return pictures.codec(episode, place)


def _colours(values: np.ndarray) -> UInt8[np.ndarray, "h w 3"]:
    """A picture from numbers 0..255, channels first or last."""
    if values.ndim == 3 and values.shape[0] == 3 and values.shape[2] != 3:
        values = values.transpose(1, 2, 0)
    whole = values.dtype.kind in "iu" and values.size and values.min() >= 0 and values.max() <= 255
    if values.ndim != 3 or values.shape[2] != 3 or not whole:
        raise ValueError(f"it is an array of {values.dtype} {values.shape}, not of three colours 0..255")
    return values.astype(np.uint8)


class _Cache(threading.local):
    """Batches of encoded pictures that a thread has read, the least recently used first."""

    def __init__(self):
        self.batches: OrderedDict[tuple, pa.Array] = OrderedDict()


_cache = _Cache()


def _cells(file: Path, key: str, rows: np.ndarray) -> list[pa.Scalar]:
    """Cells of a column; only the row groups that hold them are read."""
    try:
        with held(file) as content, pq.ParquetFile(content, page_checksum_verification=True) as parquet:
            status = os.stat(content)
            stamp = (os.getpid(), str(file), key, status.st_mtime_ns, status.st_size)
            sizes = [parquet.metadata.row_group(group).num_rows for group in range(parquet.num_row_groups)]
            ends = np.cumsum(sizes)
            groups = np.searchsorted(ends, rows, side="right")
            cells = []
            for row, group in zip(rows.tolist(), groups.tolist(), strict=True):
                first = int(ends[group]) - sizes[group]
                batch, offset = divmod(row - first, BATCH)
                cells.append(_batch(parquet, key, stamp, group, batch)[offset])
    except BROKEN_FILE as error:
        raise ValueError(f"{file}: {key} is not readable: {error}") from error
    return cells


def _batch(parquet: pq.ParquetFile, key: str, stamp: tuple, group: int, batch: int) -> pa.Array:
    """The rows from `batch * BATCH` on of a row group; rows that are read on the way are kept."""
    wanted = (*stamp, group, batch)
    if wanted not in _cache.batches:
        reader = parquet.iter_batches(BATCH, row_groups=[group], columns=[key], use_threads=False)
        for number, read in enumerate(reader):
            column = read.column(read.schema.get_field_index(key))
            _cache.batches[*stamp, group, number] = column.storage if isinstance(column, pa.ExtensionArray) else column
            if number == batch:
                break
    _cache.batches.move_to_end(wanted)
    total = sum(kept.nbytes for kept in _cache.batches.values())
    while total > CACHED_MB * 2**20 and len(_cache.batches) > 1:
        oldest, kept = _cache.batches.popitem(last=False)
        if oldest == wanted:
            _cache.batches[wanted] = kept
            break
        total -= kept.nbytes
    return _cache.batches[wanted]
