"""One canonical encoding for all that is signed, sealed, hashed or sent.

Every field stands behind its length, so two different lists of fields never give the same bytes (no part can slide
into its neighbour), and each list of fields has exactly one encoding. By convention the first field is a type tag.
Decoders are total: whatever is not the encoding of something is ``SecAggError("malformed")``.
"""

from __future__ import annotations

from collections.abc import Sequence

from common.errors import SecAggError

_LENGTH_BYTES = 4


def pack(*fields: bytes) -> bytes:
    """The fields in order, each behind its length as a big-endian 32-bit number.

    Raises:
        SecAggError: ``too_long``: a field has 2^32 bytes or more.
    """
    parts: list[bytes] = []
    try:
        for field in fields:  # as ``u32`` does; a client packs a dozen small contexts for every neighbour
            parts += (len(field).to_bytes(_LENGTH_BYTES, "big"), field)
    except OverflowError:
        raise SecAggError("too_long", "a field has 2^32 bytes or more") from None
    return b"".join(parts)


def unpack(data: bytes, count: int) -> tuple[bytes, ...]:
    """The inverse of ``pack`` for exactly ``count`` fields.

    Raises:
        SecAggError: ``malformed``: fewer fields, more bytes, or a length beyond the end.
    """
    fields = []
    position = 0
    for _ in range(count):
        field, position = _field(data, position)
        fields.append(field)
    if position != len(data):
        raise SecAggError("malformed", f"{count} fields take {position} bytes, and the message has {len(data)}")
    return tuple(fields)


def pack_list(items: Sequence[bytes]) -> bytes:
    """How many items there are, then each as ``pack`` does."""
    return u32(len(items)) + pack(*items)


def unpack_list(data: bytes, *, most: int) -> list[bytes]:
    """The inverse of ``pack_list`` for at most ``most`` items.

    Raises:
        SecAggError: ``malformed``: not a list, or more items than allowed.
    """
    count = read_u32(data[:_LENGTH_BYTES])
    if count > most:
        raise SecAggError("malformed", f"a list of {count} items where at most {most} are allowed")
    return list(unpack(data[_LENGTH_BYTES:], count))


def u32(value: int) -> bytes:
    """Four big-endian bytes.

    Raises:
        SecAggError: ``too_long``: not in [0, 2^32).
    """
    return _unsigned(value, 4)


def u64(value: int) -> bytes:
    """Eight big-endian bytes.

    Raises:
        SecAggError: ``too_long``: not in [0, 2^64).
    """
    return _unsigned(value, 8)


def read_u32(data: bytes) -> int:
    """The inverse of ``u32``.

    Raises:
        SecAggError: ``malformed``: not exactly four bytes.
    """
    return _number(data, 4)


def read_u64(data: bytes) -> int:
    """The inverse of ``u64``.

    Raises:
        SecAggError: ``malformed``: not exactly eight bytes.
    """
    return _number(data, 8)


def read_text(data: bytes) -> str:
    """Text from its UTF-8 bytes.

    Raises:
        SecAggError: ``malformed``: not UTF-8.
    """
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise SecAggError("malformed", "a text field is not UTF-8") from None


def _field(data: bytes, position: int) -> tuple[bytes, int]:
    start = position + _LENGTH_BYTES
    end = start + read_u32(data[position:start])
    return data[start:end], end  # an end beyond the data is refused with the sum of all lengths


def _unsigned(value: int, size: int) -> bytes:
    if not 0 <= value < 1 << 8 * size:
        raise SecAggError("too_long", f"a number or length does not fit into {8 * size} bits")
    return value.to_bytes(size, "big")


def _number(data: bytes, size: int) -> int:
    if len(data) != size:
        raise SecAggError("malformed", f"a number has {len(data)} bytes instead of {size}")
    return int.from_bytes(data, "big")
