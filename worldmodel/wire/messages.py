"""Messages of numbers, texts, lists, maps and numpy arrays as bytes: msgpack, with arrays as openpi writes them.

An array is the map `{b"__ndarray__": True, b"data": bytes, b"dtype": "<f4", b"shape": [2, 3]}`, in C order; a numpy
scalar that is no Python number is `{b"__npgeneric__": True, b"data": 3, b"dtype": "<i8"}` (Physical Intelligence,
openpi-client, `msgpack_numpy`). Maps with text keys in place of byte keys are read, too, since many languages write
no others. Nothing is unpickled, and a message is measured before anything is built from it.
"""

import math
import re
import struct
from typing import Any

import msgpack
import numpy as np

MOST_VALUES = 1 << 16
"""Largest number of values in a message; an array is five of them, whatever its size."""
MOST_LEVELS = 12
"""How deep lists and maps may lie inside each other."""
MOST_AXES = 8
"""Largest number of axes of an array."""
DTYPE = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248]|[SU]\d{1,4})")
"""The types of elements that are read: truth values, whole numbers, floating-point numbers, texts of fixed length."""

# How many bytes follow the first byte of a value that has a fixed size.
_SIZES = {0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8, **dict(zip(range(0xCC, 0xD4), (1, 2, 4, 8) * 2, strict=True))}
# Of the other values, after the first byte, a number follows: how many bytes (texts, bytes) or values (lists, maps).
_COUNTS = {0xC4: ">B", 0xC5: ">H", 0xC6: ">I", 0xD9: ">B", 0xDA: ">H", 0xDB: ">I"}
_LISTS = {0xDC: ">H", 0xDD: ">I", 0xDE: ">H", 0xDF: ">I"}


def pack(value: Any) -> bytes:
    """The bytes of a message.

    Raises:
        ValueError: It holds something else than `None`, numbers, texts, bytes, lists, maps and numpy arrays, or an
            array of Python objects, of records or of complex numbers.
    """
    try:
        return msgpack.packb(value, default=_as_map)
    except (TypeError, OverflowError, RecursionError, msgpack.exceptions.PackException) as error:
        raise ValueError(f"a message cannot hold this: {error}") from error


def unpack(data: bytes | str) -> Any:
    """The value in the bytes of a message; arrays are writable and in the byte order of this machine.

    Args:
        data: What came over the websocket, which distinguishes bytes from texts.

    Raises:
        ValueError: It is a text, or the bytes are cut short, too long, too deep or of another format, or an array has
            a type that is not read, or its size and its bytes do not match.
    """
    if isinstance(data, str):
        raise ValueError(f"a message consists of bytes, got a text of {len(data)} characters")
    _measure(memoryview(data))
    try:
        return msgpack.unpackb(data, object_hook=_as_array, strict_map_key=True)
    except UnicodeDecodeError as error:
        raise ValueError(f"a text in the message is not UTF-8: {error.reason} at its byte {error.start}") from None
    except (TypeError, OverflowError) as error:
        raise ValueError(f"the message is not read: {error}") from error


def _as_map(value: object) -> dict[bytes, Any]:
    """The map that stands for an array or a numpy scalar."""
    if not isinstance(value, np.ndarray | np.generic):
        raise TypeError(f"an object of the class {type(value).__name__}")
    if not DTYPE.fullmatch(value.dtype.str):
        raise TypeError(f"an array with elements of the type {value.dtype}")
    if isinstance(value, np.generic):
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
    return {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": list(value.shape)}


def _as_array(found: dict[Any, Any]) -> Any:
    """The array or the numpy scalar that a map stands for; other maps stay as they are."""
    if b"__ndarray__" not in found and b"__npgeneric__" not in found:
        if "__ndarray__" not in found and "__npgeneric__" not in found:
            return found
        found = {name.encode() if isinstance(name, str) else name: value for name, value in found.items()}
    dtype, data = found.get(b"dtype"), found.get(b"data")
    if isinstance(dtype, bytes):
        dtype = dtype.decode("ascii", "replace")
    if not isinstance(dtype, str) or not DTYPE.fullmatch(dtype):
        raise ValueError(f"an array in the message has the dtype {str(dtype)[:40]!r}; read are b1, i, u, f, S and U")
    kind = np.dtype(dtype)
    if b"__npgeneric__" in found:
        if not isinstance(data, bool | int | float | str | bytes):
            raise ValueError(f"a scalar of the dtype {dtype} in the message has data of {type(data).__name__}")
        return kind.type(data)
    shape = found.get(b"shape")
    whole = (
        isinstance(shape, list) and len(shape) <= MOST_AXES and all(type(n) is int and 0 <= n < 1 << 40 for n in shape)
    )
    if not whole:
        raise ValueError(f"an array in the message has the shape {str(shape)[:40]}; a shape is a list of sizes")
    size = math.prod(shape) * kind.itemsize
    if not isinstance(data, bytes) or len(data) != size:
        held = f"{len(data)} bytes" if isinstance(data, bytes) else type(data).__name__
        raise ValueError(f"an array of the shape {shape} and the dtype {dtype} has {size} bytes, the message {held}")
    return np.frombuffer(data, kind).reshape(shape).astype(kind.newbyteorder("="))


def _measure(data: memoryview) -> None:
    """Walk over a message without building anything; raises a `ValueError` when it is cut short, too long or too deep.

    msgpack itself reserves room for as many values as the head of a list claims, at every level.
    """
    place, values, open_lists = 0, 0, [1]
    while open_lists:
        if open_lists[-1] == 0:
            open_lists.pop()
            continue
        open_lists[-1] -= 1
        values += 1
        if values > MOST_VALUES:
            raise ValueError(f"a message holds at most {MOST_VALUES} values, this one more")
        place, held = _head(data, place)
        if place > len(data) or held > len(data) - place:
            raise ValueError(f"the message is cut short: it has {len(data)} bytes and announces more")
        if held:
            if len(open_lists) > MOST_LEVELS:
                raise ValueError(f"a message has at most {MOST_LEVELS} levels of lists and maps, this one more")
            open_lists.append(held)
    if place != len(data):
        raise ValueError(f"the message ends at byte {place} and has {len(data)}")


def _head(data: memoryview, place: int) -> tuple[int, int]:
    """Where the value at `place` ends, or its content begins if it is a list or a map, and how many values that has."""
    if place >= len(data):
        raise ValueError(f"the message is cut short: it has {len(data)} bytes and announces more")
    first, place = data[place], place + 1
    if first < 0x80 or first >= 0xE0:
        return place, 0
    if first < 0x90:
        return place, 2 * (first & 0xF)
    if first < 0xA0:
        return place, first & 0xF
    if first < 0xC0:
        return place + (first & 0x1F), 0
    if first in _SIZES:
        return place + _SIZES[first], 0
    if first not in _COUNTS and first not in _LISTS:
        raise ValueError(f"the message has a value of the kind 0x{first:02x}, which is not read")
    layout = (_COUNTS | _LISTS)[first]
    width = struct.calcsize(layout)
    if place + width > len(data):
        raise ValueError(f"the message is cut short: it has {len(data)} bytes and announces more")
    (count,) = struct.unpack_from(layout, data, place)
    place += width
    return (place + count, 0) if first in _COUNTS else (place, count * (2 if first >= 0xDE else 1))
