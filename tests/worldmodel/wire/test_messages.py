"""Messages: what is packed comes back, bytes are those of openpi, and bad ones are refused before anything is built."""

import functools
import tracemalloc

import msgpack
import numpy as np
import pytest

from worldmodel.wire import messages
from worldmodel.wire.messages import pack, unpack

ARRAY = np.arange(6, dtype="<f4").reshape(2, 3)


def as_openpi(value):
    """The layout of openpi-client's msgpack_numpy, written down by hand."""
    if isinstance(value, np.ndarray):
        return {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}
    return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}


openpi = functools.partial(msgpack.packb, default=as_openpi)


@pytest.mark.parametrize(
    "value",
    [
        ARRAY,
        np.zeros((0, 3), np.uint8),
        np.array(True),
        np.array(["push", "lift"]),
        np.int64(3),
        np.bool_(True),
        {str(i): i for i in range(20)},
        list(range(20)),
        {"observation/image": np.ones((4, 5, 3), np.uint8), "prompt": "push", "list": [1, None, {"a": ARRAY}]},
    ],
)
def test_values_come_back_and_have_the_bytes_of_openpi(value):
    assert pack(value) == openpi(value)
    np.testing.assert_equal(unpack(pack(value)), value)


def test_arrays_are_writable_and_in_this_machines_byte_order():
    read = unpack(pack({"a": ARRAY.astype(">f4"), "b": ARRAY.T}))
    assert read["a"].dtype == np.dtype("=f4") and read["a"].flags.writeable
    assert read["a"].tolist() == ARRAY.tolist() and read["b"].tolist() == ARRAY.T.tolist()


def test_text_keys_are_read_too():
    found = unpack(msgpack.packb({"__ndarray__": True, "data": ARRAY.tobytes(), "dtype": "<f4", "shape": [2, 3]}))
    assert found.tolist() == ARRAY.tolist()


def changed(**fields):
    return msgpack.packb(as_openpi(ARRAY) | {name.encode(): value for name, value in fields.items()})


BAD = {
    "object dtype": (changed(dtype="|O"), r"dtype '\|O'; read are"),
    "record dtype": (changed(dtype="i4,i4"), "dtype 'i4,i4'; read are"),
    "dtype is a number": (changed(dtype=3), "dtype '3'; read are"),
    "sizes": (changed(shape=[2, 4]), r"shape \[2, 4\] and the dtype <f4 has 32 bytes, the message 24 bytes"),
    "negative size": (changed(shape=[-2, -3]), r"the shape \[-2, -3\]; a shape is a list"),
    "many axes": (changed(shape=[1] * 9), "the shape .*; a shape is a list"),
    "huge": (changed(shape=[1 << 39, 1 << 39]), "has .* bytes, the message 24 bytes"),
    "data is a text": (changed(data="x" * 24), "has 24 bytes, the message str"),
    "scalar of a list": (msgpack.packb({b"__npgeneric__": True, b"data": [1], b"dtype": "<f4"}), "has data of list"),
    "scalar too large": (msgpack.packb({b"__npgeneric__": True, b"data": 300, b"dtype": "|u1"}), "not read"),
    "extension": (msgpack.packb(msgpack.ExtType(1, b"x")), "kind 0xd4, which is not read"),
    "time": (msgpack.packb(msgpack.Timestamp(1)), "kind 0xd6, which is not read"),
    "reserved": (b"\xc1", "kind 0xc1, which is not read"),
    "nothing": (b"", "cut short: it has 0 bytes"),
    "cut": (pack({"a": ARRAY})[:-1], "cut short"),
    "cut head": (b"\xdd\x00", "cut short: it has 2 bytes"),
    "more": (pack(1) + b"\x00", "ends at byte 1 and has 2"),
    "deep": (b"\x91" * 100 + b"\x00", "at most 12 levels"),
    "many": (b"\xdd\x00\x02\x00\x00" + b"\x00" * 131072, "at most 65536 values"),
    "no text": (b"\xa1\xff", "not UTF-8"),
    "key": (msgpack.packb({1: 2}), "int is not allowed for map key"),
    "str": ("text", "consists of bytes, got a text of 4 characters"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_bytes_are_one_line(name):
    data, said = BAD[name]
    with pytest.raises(ValueError, match=said) as caught:
        unpack(data)
    assert "\n" not in str(caught.value)


def test_twelve_levels_and_the_largest_number_of_values_are_read():
    assert unpack(b"\x91" * 12 + b"\x00") == [[[[[[[[[[[[0]]]]]]]]]]]]
    assert len(unpack(msgpack.packb([0] * (messages.MOST_VALUES - 1)))) == messages.MOST_VALUES - 1


@pytest.mark.slow
def test_no_room_is_reserved_for_what_heads_claim():
    """A list that claims as many values as there are bytes, inside another one, inside another one."""
    bomb = b"\xdd\x00\x0f\x00\x00" * 12 + b"\x00" * (1 << 20)
    tracemalloc.start()
    with pytest.raises(ValueError, match="at most 65536 values"):
        unpack(bomb)
    assert tracemalloc.get_traced_memory()[1] < 1 << 16
    tracemalloc.stop()


@pytest.mark.parametrize("value", [object(), np.array([None]), np.zeros(2, complex), {"a": {1}}, 1 << 70])
def test_what_a_message_cannot_hold_is_refused(value):
    with pytest.raises(ValueError, match="a message cannot hold this"):
        pack(value)


def test_random_bytes_never_raise_anything_else():
    rng = np.random.default_rng(0)
    good = pack({"type": "step", "actions": ARRAY, "list": [1, 2.5, None, "x" * 40]})
    for _ in range(3000):
        data = bytearray(good)
        for place in rng.integers(len(data), size=rng.integers(1, 4)):
            data[place] = rng.integers(256)
        try:
            unpack(bytes(data))
        except ValueError:
            continue
