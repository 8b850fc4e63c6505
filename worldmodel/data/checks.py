"""Faults of data on disk: one message for all formats, and checks that every format needs."""

import re
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

import numpy as np
from jaxtyping import Float32, Shaped

T = TypeVar("T")


def fail(file: Path | str, field: str, found: object, expected: object, episode: int | None = None) -> NoReturn:
    """Raise a `ValueError` that names file, episode, field and both values."""
    where = "" if episode is None else f"episode {episode}, "
    raise ValueError(f"{file}: {where}{field} is {found!s:.200}, expected {expected!s:.200}")


def shortened(text: str, prefix: str) -> str:
    """`text` without `prefix` (a folder with its slash, or `FILE: `) at the beginning of each reason in it."""
    return re.sub(rf"(^|; ){re.escape(prefix)}", r"\1", text)


def finite(
    file: Path, name: str, values: Shaped[np.ndarray, "rows width"], episode: int | None
) -> Float32[np.ndarray, "rows width"]:
    """`values` as float32, all finite."""
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    bad = ~np.isfinite(values)
    if bad.any():
        row, dim = (int(i) for i in np.argwhere(bad)[0])
        fail(file, f"{name} dim {dim} of frame {row}", values[row, dim], "a finite number", episode)
    return values


def matrix(
    file: Path, name: str, values: Shaped[np.ndarray, "..."], rows: Sequence[int], episode: int
) -> Float32[np.ndarray, "rows width"]:
    """A table of numbers as float32, `rows width`; a vector becomes one column.

    Args:
        file: Where it was found, for the message.
        name: Its name, for the message.
        values: As read from the file.
        rows: The numbers of rows that are allowed.
        episode: Number of the episode, for the message.

    Raises:
        ValueError: If the shape, the kind of numbers or a value is wrong.
    """
    if values.dtype.kind not in "fiub":
        fail(file, f"dtype of {name}", values.dtype, "numbers", episode)
    if values.ndim not in (1, 2) or not values.size:
        fail(file, f"shape of {name}", values.shape, "(frames, width)", episode)
    if len(values) not in rows:
        expected = " or ".join(str(number) for number in rows)
        fail(file, f"number of rows of {name}", len(values), f"{expected}, its frames", episode)
    return finite(file, name, values.reshape(len(values), -1), episode)


def the_same(name: str, values: Mapping[Path, T]) -> T:
    """The one value that all files must agree on.

    Args:
        name: What it is, for the message.
        values: What each file of the data set has; not empty.

    Raises:
        ValueError: If a file differs; it names that one and the most common value.
    """
    common = Counter(values.values()).most_common(1)[0][0]
    for file, value in values.items():
        if value != common:
            fail(file, name, value, f"{common} as in the other episodes")
    return common


def disagreements(name: str, values: Mapping[int, Hashable], labels: Mapping[int, str]) -> dict[int, str]:
    """A reason for every episode whose value is not the most common one; in a tie the first value counts.

    Args:
        name: What the value is.
        values: By the number of the episode.
        labels: What to call each episode.
    """
    if not values:
        return {}
    common = Counter(values.values()).most_common(1)[0][0]
    return {
        number: f"{labels[number]}: {name} is {value}, expected {common} as in the other episodes"
        for number, value in values.items()
        if value != common
    }


def without_unfinished_end(values: Shaped[np.ndarray, "..."], length: int) -> Shaped[np.ndarray, "..."]:
    """A table of one row per frame, without a last row of NaN or infinity, which leads out of the episode."""
    full = values.ndim in (1, 2) and values.dtype.kind == "f" and len(values) == length > 1
    return values[:-1] if full and not np.isfinite(values[-1]).all() else values
