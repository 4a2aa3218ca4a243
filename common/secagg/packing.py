"""Vectors over Z_2^b on the wire: value after value without gaps, the lowest bit first.

Bit i*b + j of the message is bit j of value i, where bit n of a message is bit n % 8 of its byte n // 8. For 8, 16, 24
and 32 bits these are little-endian words. A vector has one encoding: the bits after the last value are zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from common.errors import SecAggError
from common.secagg.masks import Words, dtype_of

_BLOCK = 1 << 16  # values at a time, so that the pieces stay in cache; a multiple of every group


def packed_size(length: int, bits: int) -> int:
    """Bytes that ``length`` values of ``bits`` take."""
    return (length * bits + 7) // 8


def packed(values: Words, bits: int) -> bytes:
    """The bytes of a vector whose type is ``dtype_of(bits)``.

    Raises:
        SecAggError: ``bad_bits``; ``wrong_length``: not such a vector; ``out_of_range``: a value has more bits.
    """
    dtype = dtype_of(bits)
    if values.ndim != 1 or values.dtype != dtype:
        raise SecAggError("wrong_length", f"a vector of {bits}-bit values has one dimension and type {dtype.name}")
    if bits == 8 * dtype.itemsize:
        return values.tobytes()
    if len(values) and int(values.max()) >> bits:
        raise SecAggError("out_of_range", f"a value has more than {bits} bits")
    if bits == 24:
        return np.ascontiguousarray(values).view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
    group, size = _group(bits)
    out = np.zeros((math.ceil(len(values) / group), size), dtype=np.uint8)
    for start in range(0, len(values), _BLOCK):
        _pack_groups(_grouped(values[start : start + _BLOCK], group), out[start // group :], bits)
    return out.tobytes()[: packed_size(len(values), bits)]


def unpacked(data: bytes, bits: int, length: int) -> Words:
    """The vector of ``length`` values, of type ``dtype_of(bits)``; it may be a read-only view of ``data``.

    Raises:
        SecAggError: ``bad_bits``; ``wrong_length``: not ``packed_size(length, bits)`` bytes; ``malformed``: the bits
            after the last value are not zero.
    """
    dtype = dtype_of(bits)
    if length < 0 or len(data) != packed_size(length, bits):
        raise SecAggError("wrong_length", f"{len(data)} bytes are not {length} values of {bits} bits")
    if bits == 8 * dtype.itemsize:
        return np.frombuffer(data, dtype=dtype)
    if length * bits % 8 and data[-1] >> length * bits % 8:
        raise SecAggError("malformed", "bits after the last value are set")
    stream = np.frombuffer(data, dtype=np.uint8)
    if bits == 24:
        wide = np.zeros((length, 4), dtype=np.uint8)
        wide[:, :3] = stream.reshape(-1, 3)
        return wide.view(dtype).reshape(-1)
    group, size = _group(bits)
    values = np.empty(length, dtype=dtype)
    for start in range(0, length, _BLOCK):
        stop = min(start + _BLOCK, length)
        piece = _grouped(stream[start // group * size : math.ceil(stop / group) * size], size)
        values[start:stop] = _unpack_groups(piece, bits).reshape(-1)[: stop - start]
    return values


def _group(bits: int) -> tuple[int, int]:
    """The fewest values that fill whole bytes, and how many bytes."""
    count = 8 // math.gcd(bits, 8)
    return count, count * bits // 8


def _grouped(flat: NDArray[np.unsignedinteger], width: int) -> NDArray[np.unsignedinteger]:
    """Rows of ``width``, the last one filled up with zeros."""
    missing = -len(flat) % width
    return (np.concatenate([flat, np.zeros(missing, dtype=flat.dtype)]) if missing else flat).reshape(-1, width)


def _overlaps(bits: int) -> Iterator[tuple[int, int, int]]:
    """(value, byte, shift) in a group: bit 0 of the value is bit ``shift`` of the byte (negative: an earlier one)."""
    for value in range(_group(bits)[0]):
        first = value * bits
        for byte in range(first // 8, (first + bits - 1) // 8 + 1):
            yield value, byte, first - 8 * byte


def _pack_groups(groups: NDArray[np.unsignedinteger], out: NDArray[np.uint8], bits: int) -> None:
    columns = [np.ascontiguousarray(groups[:, value]) for value in range(groups.shape[1])]
    for value, byte, shift in _overlaps(bits):
        piece = columns[value] << shift if shift >= 0 else columns[value] >> -shift
        out[: len(groups), byte] |= piece.astype(np.uint8)  # keeps the low eight bits


def _unpack_groups(pieces: NDArray[np.unsignedinteger], bits: int) -> NDArray[np.uint32]:
    columns = [np.ascontiguousarray(pieces[:, byte], dtype=np.uint32) for byte in range(pieces.shape[1])]
    values = np.zeros((len(pieces), _group(bits)[0]), dtype=np.uint32)
    for value, byte, shift in _overlaps(bits):
        # Bits that a shift moves beyond the 32nd belong to the next value.
        values[:, value] |= columns[byte] >> np.uint32(shift) if shift >= 0 else columns[byte] << np.uint32(-shift)
    return values & np.uint32((1 << bits) - 1)
