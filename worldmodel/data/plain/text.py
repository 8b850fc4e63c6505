"""CSV as pandas, Excel and NumPy write it: which row is a header, and which column an index or a time."""

import codecs
import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Shaped

from worldmodel.data.checks import fail
from worldmodel.data.plain.arrays import Table, full_lines
from worldmodel.data.plain.names import NUMBER
from worldmodel.data.remote.tree import held

COMMA_NUMBER = re.compile(r"[-+]?\d+,\d+([eE][-+]?\d+)?")
THOUSANDS = re.compile(r"[-+]?\d{1,3}(,\d{3})+")
COUNT = re.compile(r"\d+")
WORDS = {
    "true": "1.0",
    "false": "0.0",
    "na": "nan",
    "n/a": "nan",
    "null": "nan",
    "none": "nan",
    "<na>": "nan",
    "#n/a": "nan",
}
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
ENDS_IN_ZERO = re.compile(r"[-+]?\d*\.\d*0([eE][-+]?\d+)?")


@dataclass(frozen=True)
class Text:
    """The cells of a file; `header` has the names where the first row is not a row of numbers."""

    file: Path
    rows: list[list[str]]
    header: list[str] | None
    notes: tuple[str, ...]

    @property
    def first_is_a_count(self) -> bool:
        """Whether the first row is 0, 1, 2, ... or 1, 2, 3, ...: it may be a header that pandas made up."""
        return self.header is None and bool(self.rows) and self.rows[0] != ["1"] and _counts(self.rows[0])


def read_text(file: Path) -> Text:
    """Read the cells of a CSV file: separated by commas, semicolons, tabs or spaces.

    Raises:
        ValueError: It is not readable, or its numbers can be understood in two ways.
    """
    try:
        with held(file) as stored:
            content = stored.read_bytes()
        decoded = content.decode("utf-16" if content.startswith(UTF16) else "utf-8-sig")
        lines = full_lines(file, decoded)
        comments = [line for line in lines if line.lstrip().startswith("#")]
        _refuse_commented_rows(file, lines)
        lines = [line for line in lines if not line.lstrip().startswith("#")]
        separator = _separator(lines)
        rows = _cells(lines, separator)
    except (OSError, ValueError, csv.Error, MemoryError) as error:
        if str(error).startswith(str(file)):
            raise
        raise ValueError(f"{file}: content is not a readable table: {error}") from error
    if not rows:
        fail(file, "number of rows", 0, "at least 1")
    if separator == ",":
        _refuse_decimal_commas(file, rows)
    rows, notes = _numbers(file, _without_empty_ends(rows))
    header = None
    if _has_words(rows[0]) or _pandas_header(rows):
        header, rows = rows[0], rows[1:]
        _check_header(file, header)
    elif (
        comments
        and len(named := _cells([comments[-1].lstrip("# ")], separator)[0]) == len(rows[0])
        and _has_words(named)
    ):
        header = named
    return Text(file, _same_width(file, header, rows), header, notes)


def _refuse_commented_rows(file: Path, lines: list[str]) -> None:
    """Raise a `ValueError` for a row of numbers behind a comment sign, since the rows after it would shift."""
    for number, line in enumerate(lines):
        bare = line.strip()
        words = re.split(r"[\s,;]+", bare.lstrip("# ").rstrip(",;"))
        above = any(not other.lstrip().startswith("#") for other in lines[:number])
        if bare.startswith("#") and above and all(map(NUMBER.fullmatch, words)):
            fail(file, f"line {number + 1}", repr(bare), "a row of numbers, or no row")


def _separator(lines: list[str]) -> str:
    marked = re.fullmatch(r"sep=(.)", lines[0].strip().strip('"'), re.I) if lines else None
    if marked:
        del lines[0]
        return marked[1]
    for separator in (";", "\t", ","):
        if lines and separator in lines[-1]:
            return separator
    return " " if lines and re.search(r"\S\s+\S", lines[-1].strip()) else ","


def _cells(lines: list[str], separator: str) -> list[list[str]]:
    if separator == " ":
        return [line.split() for line in lines]
    return [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=separator, strict=True)]


def _without_empty_ends(rows: list[list[str]]) -> list[list[str]]:
    """The cells without an empty last column, which a comma at the end of every line makes."""
    width = max(map(len, rows))
    if (
        width > 1
        and all(len(row) < width or not row[-1] for row in rows)
        and any(len(row) == width for row in rows[1:])
    ):
        return [row[: width - 1] for row in rows]
    return rows


def _numbers(file: Path, rows: list[list[str]]) -> tuple[list[list[str]], tuple[str, ...]]:
    """Replace decimal commas by points where they are clearly meant, and words such as `True` by numbers."""
    body = [cell for row in rows[1:] for cell in row]
    commas = [cell for cell in body if "," in cell]
    notes: tuple[str, ...] = ()
    if commas and all(COMMA_NUMBER.fullmatch(cell) for cell in commas):
        points = [cell for cell in body if "." in cell]
        if points or all(THOUSANDS.fullmatch(cell) for cell in commas):
            found = f"{commas[0]!r}" + (f" beside {points[0]!r}" if points else "")
            fail(file, "a number", found, "either decimal points or decimal commas, without groups of thousands")
        rows = [[cell.replace(",", ".") if COMMA_NUMBER.fullmatch(cell) else cell for cell in row] for row in rows]
        notes = (f"{file.name} has decimal commas",)
    return [[WORDS.get(cell.lower(), cell) for cell in row] for row in rows], notes


def _refuse_decimal_commas(file: Path, rows: list[list[str]]) -> None:
    """Raise a `ValueError` for whole numbers that may be halves of decimals: `0,05`, or twice as many as names."""
    body = rows[1:]
    width = len(body[0]) if body else 0
    if width % 2 or not width or not all(re.fullmatch(r"[-+]?\d+", cell) for row in body for cell in row):
        return
    halves = [row for row in body if any(re.fullmatch(r"0\d+", cell) for cell in row[1::2])]
    if halves or 2 * len(rows[0]) == width:
        found = ",".join((halves or body)[0][:6])
        fail(file, "a row", found, "decimal points, or semicolons beside decimal commas")


def _has_words(row: list[str]) -> bool:
    return any(cell and not NUMBER.fullmatch(cell) for cell in row)


def _check_header(file: Path, header: list[str]) -> None:
    """Check that names which are numbers count up; otherwise the row may hold numbers and one word."""
    numbers = [cell for cell in header if NUMBER.fullmatch(cell)]
    if numbers and not _counts(numbers):
        fail(file, "row 0", ",".join(header), "either names or numbers")


def _counts(cells: list[str]) -> bool:
    if not all(COUNT.fullmatch(cell) for cell in cells):
        return False
    numbers = [int(cell) for cell in cells]
    return numbers in (list(range(len(cells))), list(range(1, len(cells) + 1)))


def _pandas_header(rows: list[list[str]]) -> bool:
    """Whether the first row is the header 0, 1, 2, ... that pandas writes for columns without names.

    With an index, its first cell is empty and the first column counts. Without one, only the style of a column
    proves it: if its other numbers are written with zeros at their ends (`1.0`), and none without a point, the
    same writer would have written `0.0`. Many decimals prove nothing: `%g` and JavaScript write `0`, then `0.1234`.
    """
    first, rest = rows[0], rows[1:]
    if len(first) > 1 and not first[0] and rest:
        return _counts(first[1:]) and _counts([row[0] for row in rest if row])
    if not rest or not _counts(first) or first[0] != "0" or any(len(row) != len(first) for row in rest):
        return False
    return any(_shows_zeros([row[place] for row in rest]) for place in range(len(first)))


def _shows_zeros(cells: list[str]) -> bool:
    """Whether zeros at the end of decimals are written, and no number without decimals."""
    return _always_decimals(cells) and any(ENDS_IN_ZERO.fullmatch(cell) for cell in cells)


def _always_decimals(cells: list[str]) -> bool:
    """Whether every number has a decimal point; other words for numbers, such as `nan`, do not count."""
    cells = [cell for cell in cells if re.search(r"\d", cell)]
    return bool(cells) and all("." in cell for cell in cells)


def _same_width(file: Path, header: list[str] | None, rows: list[list[str]]) -> list[list[str]]:
    if not rows:
        fail(file, "number of rows", 0, "at least 1 beside the header")
    width = len(rows[0])
    for number, row in enumerate(rows):
        if len(row) != width:
            fail(file, f"width of row {number}", len(row), width)
    if header is not None and len(header) == width - 1 and _counts([row[0] for row in rows]):
        header.insert(0, "")
    if header is not None and len(header) != width:
        fail(file, "width of the header", len(header), f"{width} as in the rows")
    if header is not None and len(set(header)) < len(header):
        fail(file, "header", ", ".join(header), "a different name for each column")
    return rows


def settle_headers(texts: Mapping[int, Text], lengths: Mapping[int, int], exact: bool) -> dict[int, Text | str]:
    """Decide whether a first row of 0, 1, 2, ... is a header, from all episodes' files of one name.

    Args:
        texts: The files by the number of the episode.
        lengths: Numbers of frames.
        exact: Whether one row a frame is needed; otherwise the last may be missing.

    Returns:
        The files, or a reason why a row cannot be told from a header.
    """
    texts = {number: _without_empty_rows(text, lengths[number]) for number, text in texts.items()}
    plain = any(text.header is None and not text.first_is_a_count for text in texts.values())
    headers = [] if plain else [text.header for text in texts.values()]
    return {
        number: text
        if plain or not text.first_is_a_count
        else _without_header(text)
        if text.rows[0] in headers
        else _settled(text, lengths[number], exact)
        for number, text in texts.items()
    }


def _without_header(text: Text) -> Text:
    return replace(text, rows=text.rows[1:], header=text.rows[0])


def _settled(text: Text, length: int, exact: bool) -> Text | str:
    """A first row of 0, 1, 2, ... is a header if there is one row more than frames, and a row if none is missing."""
    rows, shown = len(text.rows), ",".join(text.rows[0][:6])
    if rows == length + 1 and text.rows[0][0] == "0":
        return _without_header(text)
    if rows == length if exact else rows == max(length - 1, 1) < length:
        return text
    return (
        f"{text.file}: row 0 is {shown}, which may be a header of numbers or the first of {rows} rows, "
        f"expected names in the first line"
    )


def _without_empty_rows(text: Text, length: int) -> Text:
    """The cells without the rows of empty cells that Excel leaves after the last frame."""
    rows = text.rows
    while len(rows) > length and not any(rows[-1]):
        rows = rows[:-1]
    return replace(text, rows=rows)


def as_table(text: Text) -> Table:
    """The columns of a file as numbers; columns with words stay as they are."""
    columns = list(map(list, zip(*text.rows, strict=True)))
    facts = {
        "text": True,
        "notes": text.notes,
        "whole_numbers": tuple(place for place, cells in enumerate(columns) if all(map(COUNT.fullmatch, cells))),
        "decimals": tuple(place for place, cells in enumerate(columns) if _always_decimals(cells)),
    }
    if text.header is None:
        return Table(text.file, whole=_whole(text), **facts)
    values = {name: _column(cells) for name, cells in zip(text.header, columns, strict=True)}
    return Table(text.file, values, **facts)


def _column(cells: list[str]) -> Shaped[np.ndarray, " rows"]:
    if all(not cell or NUMBER.fullmatch(cell) for cell in cells):
        return np.array([float(cell or "nan") for cell in cells])
    return np.array(cells)


def _whole(text: Text) -> Float64[np.ndarray, "rows width"]:
    for number, row in enumerate(text.rows):
        for place, cell in enumerate(row):
            if cell and not NUMBER.fullmatch(cell):
                fail(text.file, f"column {place} of row {number}", repr(cell), "a number")
            if not cell and number == 0:
                fail(text.file, f"column {place} of row 0", "empty", "a number, or names in all columns of a header")
    return np.array([[float(cell or "nan") for cell in row] for row in text.rows])
