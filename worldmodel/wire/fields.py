"""The fields of a message, each checked when it is read."""

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

Default = TypeVar("Default")
MOST_STREAMS = 16
"""Largest number of streams of a session."""
MOST_WORDS = 2000
"""Longest description of a task, in characters."""
MOST_CHARACTERS = 200
"""Longest text in a field, and longest value in a message about an error."""


class Fields:
    """The fields of one message. Every error is one line that names the field, what it takes and what it had.

    Args:
        message: What came over the wire.
        name: What it is, for errors.

    Raises:
        ValueError: The message is not a map with text keys.
    """

    def __init__(self, message: object, name: str = "a message"):
        if not isinstance(message, dict) or not all(isinstance(key, str) for key in message):
            raise ValueError(f"{name} is a map whose keys are texts, got {shown(message)}")
        self.message, self.name = message, name
        self._asked: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return self.message.get(name) is not None

    def has_one_of(self, *names: str) -> str | None:
        """The name of the one of these fields that is present, if any.

        Raises:
            ValueError: There are several of them.
        """
        self._asked |= set(names)
        there = [name for name in names if name in self]
        if len(there) > 1:
            raise ValueError(f"{self.name} has one of {', '.join(names)}, got {' and '.join(there)}")
        return there[0] if there else None

    def allow(self, name: str) -> None:
        """A field without a check; other code checks it."""
        self._asked.add(name)

    def inner(self, name: str) -> "Fields":
        """The fields of a map inside the message."""
        return Fields(self._get(name), name)

    def end(self) -> None:
        """Raise a `ValueError` if there are fields that were not asked for."""
        unknown = sorted(set(self.message) - self._asked)
        if unknown:
            known = ", ".join(sorted(self._asked))
            raise ValueError(f"{self.name} has no field {shown(unknown[0])}; it has {known}")

    def text(self, name: str) -> str:
        """A text."""
        value = self._get(name)
        if not isinstance(value, str) or len(value) > MOST_CHARACTERS:
            raise ValueError(f"{name} is a text of at most {MOST_CHARACTERS} characters, got {shown(value)}")
        return value

    def one_of(self, name: str, known: Sequence[Any], default: Any) -> Any:
        """One of several values."""
        value = self._get(name, default)
        if isinstance(value, bool) or not isinstance(value, str | int) or value not in known:
            raise ValueError(f"{name} is one of {', '.join(map(str, known))}, got {shown(value)}")
        return value

    def whole(self, name: str, low: int, high: int, default: int) -> int:
        """A whole number within `low..high`."""
        return _whole(name, self._get(name, default), low, high)

    def wholes(self, name: str, number: int | None, low: int, high: int) -> list[int]:
        """A list of `number` whole numbers; of 1 to `MOST_STREAMS` if that is `None`."""
        value = self._get(name)
        if isinstance(value, np.ndarray):
            value = value.tolist()
        least, most = (1, MOST_STREAMS) if number is None else (number, number)
        if not isinstance(value, list) or not least <= len(value) <= most:
            wanted = f"{least}..{most}" if number is None else number
            raise ValueError(f"{name} is a list of {wanted} whole numbers, got {_counted(value)}")
        return [_whole(name, each, low, high) for each in value]

    def texts(self, name: str, number: int) -> tuple[str, ...]:
        """A list of `number` texts, or one text for all of them; empty ones by default."""
        value = self._get(name, "")
        value = [value] * number if isinstance(value, str) else value
        fits = isinstance(value, list) and all(isinstance(v, str) and len(v) <= MOST_WORDS for v in value)
        if not fits or len(value) != number:
            raise ValueError(f"{name} is {number} texts of at most {MOST_WORDS} characters, got {_counted(value)}")
        return tuple(value)

    def pictures(self, name: str, shape: tuple[int | None, ...]) -> np.ndarray:
        """An array of 0..255 of the given shape; `None` is any size."""
        value = self._get(name)
        if not isinstance(value, np.ndarray) or value.dtype != np.uint8 or not _fits(value.shape, shape):
            raise ValueError(
                f"{name} is an array of the dtype uint8 and the shape {_sizes(shape)}, got {_array(value)}"
            )
        return value

    def numbers(self, name: str, shape: tuple[int | None, ...]) -> np.ndarray:
        """Finite numbers of the given shape as float32, from an array or from lists; `None` is any size."""
        value = self._get(name)
        if isinstance(value, list | np.ndarray | int | float) and not isinstance(value, bool):
            try:
                array = np.asarray(value)
            except ValueError:  # rows of several lengths
                array = np.zeros(0, object)
            if array.dtype.kind in "iuf" and _fits(array.shape, shape):
                with np.errstate(over="ignore"):
                    array = array.astype(np.float32)
                if not np.isfinite(array).all():
                    raise ValueError(f"{name} has finite numbers, got {shown(value)}")
                return array
        raise ValueError(f"{name} has numbers of the shape {_sizes(shape)}, got {_array(value)}")

    def _get(self, name: str, *default: Any) -> Any:
        self._asked.add(name)
        value = self.message.get(name)
        if value is not None:
            return value
        if not default:
            raise ValueError(f"{self.name} needs the field {name}, got {shown(', '.join(self.message))}")
        return default[0]


def _whole(name: str, value: object, low: int, high: int) -> int:
    if isinstance(value, np.integer):
        value = int(value)
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{name} is a whole number within {low}..{high}, got {shown(value)}")
    return value


def _fits(found: tuple[int, ...], shape: tuple[int | None, ...]) -> bool:
    return len(found) == len(shape) and all(s is None or f == s for f, s in zip(found, shape, strict=True))


def _sizes(shape: tuple[int | None, ...]) -> str:
    return f"({', '.join('any' if size is None else str(size) for size in shape)})"


def _array(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"the dtype {value.dtype} and the shape {value.shape}"
    if isinstance(value, list):
        try:
            return f"lists of the shape {np.asarray(value).shape}"
        except ValueError:
            return "lists of several lengths"
    return shown(value)


def _counted(value: object) -> str:
    return f"{len(value)} of them" if isinstance(value, list) and value else shown(value)


def shown(value: object) -> str:
    """A value for a message, in one line."""
    if isinstance(value, np.ndarray):
        return f"an array of the shape {value.shape}"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, list | dict):
        return f"a {'list' if isinstance(value, list) else 'map'} of {len(value)}"
    text = repr(value[:MOST_CHARACTERS] if isinstance(value, str | bytes) else value)
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}..."
