from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.secagg import packing
from common.secagg.masks import dtype_of
from common.secagg.packing import packed, packed_size, unpacked

from ._tools import refused, stream

BITS = range(8, 33)


def packed_as_one_number(values: list[int], bits: int) -> bytes:
    """All values as the digits of one number in base 2^bits, written from the lowest byte on."""
    number = sum(value << bits * i for i, value in enumerate(values))
    return number.to_bytes(-(-len(values) * bits // 8), "little")


def some(bits: int, length: int) -> np.ndarray:
    raw = np.frombuffer(stream(f"{bits},{length}")(4 * length), dtype="<u4")
    return (raw & np.uint32((1 << bits) - 1)).astype(dtype_of(bits))


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("length", [0, 1, 2, 3, 7, 8, 9, 255])
def test_every_width_and_end(bits: int, length: int) -> None:
    values = some(bits, length)
    data = packed(values, bits)
    assert data == packed_as_one_number(values.tolist(), bits)
    assert len(data) == packed_size(length, bits)
    back = unpacked(data, bits, length)
    assert back.dtype == dtype_of(bits) and np.array_equal(back, values)


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(BITS), st.data())
def test_any_values(bits: int, data: st.DataObject) -> None:
    values = data.draw(st.lists(st.integers(0, 2**bits - 1), max_size=40))
    told = packed(np.array(values, dtype=dtype_of(bits)), bits)
    assert told == packed_as_one_number(values, bits)
    assert unpacked(told, bits, len(values)).tolist() == values


@pytest.mark.parametrize("bits", [9, 10, 12, 15, 20, 24, 31])
@pytest.mark.parametrize("extra", [-1, 0, 1, 13])
def test_blocks_join_without_a_seam(bits: int, extra: int) -> None:
    values = some(bits, packing._BLOCK + extra)
    data = packed(values, bits)
    assert np.array_equal(unpacked(data, bits, len(values)), values)
    start = packing._BLOCK - 16
    assert data[start * bits // 8 :] == packed_as_one_number(values[start:].tolist(), bits)


@pytest.mark.parametrize("bits", BITS)
def test_the_largest_and_the_smallest(bits: int) -> None:
    ends = np.array([2**bits - 1, 0, 2**bits - 1, 2**bits - 1, 0, 0, 1, 2 ** (bits - 1), 2**bits - 1])
    values = ends.astype(dtype_of(bits))
    assert np.array_equal(unpacked(packed(values, bits), bits, len(values)), values)


@pytest.mark.parametrize("bits", [b for b in BITS if b not in (8, 16, 32)])
def test_a_value_with_more_bits_is_refused(bits: int) -> None:
    for place in (0, 4):
        values = np.zeros(5, dtype=dtype_of(bits))
        values[place] = 2**bits  # would run into its neighbour
        with refused("out_of_range"):
            packed(values, bits)


@pytest.mark.parametrize("bits", BITS)
def test_another_number_of_bytes_is_refused(bits: int) -> None:
    data = packed(some(bits, 5), bits)
    for bad in (data[:-1], data + b"\0", b""):
        with refused("wrong_length"):
            unpacked(bad, bits, 5)
    with refused("wrong_length"):
        unpacked(b"", bits, -1)


@pytest.mark.parametrize("bits", [9, 10, 12, 13, 23, 31])
def test_bits_after_the_last_value_are_zero(bits: int) -> None:
    length = 1
    data = packed(some(bits, length), bits)
    for bit in range(length * bits % 8, 8):
        with refused("malformed"):
            unpacked(data[:-1] + bytes([data[-1] | 1 << bit]), bits, length)


def test_other_types_and_shapes_are_refused() -> None:
    bad = [
        np.zeros(4, dtype=np.uint32),
        np.zeros(4, dtype=np.int16),
        np.zeros(4, dtype=">u2"),
        np.zeros(4, dtype=np.float32),
        np.zeros((2, 2), dtype=np.uint16),
    ]
    for values in bad:
        for bits in (12, 16):
            with refused("wrong_length"):
                packed(values, bits)


@pytest.mark.parametrize("bits", [0, 7, 33])
def test_other_widths_are_refused(bits: int) -> None:
    with refused("bad_bits"):
        packed(np.zeros(4, dtype=np.uint8), bits)
    with refused("bad_bits"):
        unpacked(b"", bits, 0)


def test_a_strided_vector_is_packed_as_its_values() -> None:
    values = some(12, 40)[::2]
    assert packed(values, 12) == packed_as_one_number(values.tolist(), 12)
    wide = some(16, 40)[::2]
    assert packed(wide, 16) == packed_as_one_number(wide.tolist(), 16)
