"""Arrays travel in exactly the bytes that Flower itself writes, and are read as Flower itself reads them."""

from __future__ import annotations

import flwr.app
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from hypothesis import given, settings
from hypothesis.extra import numpy as arrays

from common import wire
from common.errors import WireError


def carried(array: Array) -> RecordDict:
    config = ConfigRecord({"protocol": wire.PROTOCOL})
    return RecordDict({"arrays": ArrayRecord({"a": array}), "config": config})


def packed(value: np.ndarray) -> Array:
    return wire.pack(wire.Payload({"protocol": wire.PROTOCOL}, {"a": value}), flwr.app)["arrays"]["a"]


@settings(max_examples=50, deadline=None)
@given(
    arrays.arrays(
        arrays.scalar_dtypes() | arrays.unicode_string_dtypes(), arrays.array_shapes(min_dims=1, max_dims=3, min_side=0)
    )
)
def test_bytes_and_values_are_those_of_flower(value: np.ndarray) -> None:
    mine, theirs = packed(value), Array(np.ascontiguousarray(value))
    assert (mine.dtype, mine.shape, mine.stype, mine.data) == (theirs.dtype, theirs.shape, theirs.stype, theirs.data)
    read, expected = wire.unpack(carried(theirs)).arrays["a"], theirs.numpy()
    assert read.dtype == expected.dtype and read.shape == expected.shape and read.tobytes() == expected.tobytes()
    assert not read.flags.writeable, "it is a view of the message"


@pytest.mark.parametrize("order", [np.arange(6.0).reshape(2, 3).T, np.asfortranarray(np.ones((3, 2), np.float32))])
def test_other_layouts_arrive_unchanged(order: np.ndarray) -> None:
    assert np.array_equal(wire.unpack(carried(packed(order))).arrays["a"], order)
    assert np.array_equal(wire.unpack(carried(Array(order))).arrays["a"], order)


def test_an_unpacked_array_cannot_change_the_message() -> None:
    message = carried(packed(np.zeros(3, np.float32)))
    with pytest.raises(ValueError, match="read-only"):
        wire.unpack(message).arrays["a"][:] = 1.0
    assert wire.unpack(message).arrays["a"].tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x93NUMPY",
        b"\x93NUMPY\x01\x00\x05\x00{...}",
        Array(np.zeros(4)).data[:-1],
        Array(np.zeros((2, 2))).data.replace(b"(2, 2)", b"(-2,2)"),
        Array(np.zeros((2, 2))).data.replace(b"'<f8'", b"'|O' "),
    ],
)
def test_damaged_bytes_are_a_wire_error(data: bytes) -> None:
    with pytest.raises(WireError):
        wire.unpack(carried(Array("float64", (4,), "numpy.ndarray", data)))


def test_objects_and_other_kinds_do_not_travel() -> None:
    with pytest.raises(ValueError, match="Object arrays"):
        packed(np.array([None, {}], dtype=object))
    with pytest.raises(WireError):
        wire.unpack(carried(Array("float64", (4,), "pickle", b"")))
