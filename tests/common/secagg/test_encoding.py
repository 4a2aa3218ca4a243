from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import SecAggError
from common.secagg.encoding import pack, pack_list, read_text, read_u32, read_u64, u32, u64, unpack, unpack_list

from ._tools import refused

FIELDS = st.lists(st.binary(max_size=12), max_size=5)


@settings(max_examples=50, deadline=None)
@given(FIELDS)
def test_fields_come_back(fields: list[bytes]) -> None:
    assert unpack(pack(*fields), len(fields)) == tuple(fields)
    assert unpack_list(pack_list(fields), most=len(fields)) == fields


@settings(max_examples=50, deadline=None)
@given(FIELDS, FIELDS)
def test_different_fields_have_different_bytes(one: list[bytes], other: list[bytes]) -> None:
    assert (pack(*one) == pack(*other)) == (one == other)
    assert (pack_list(one) == pack_list(other)) == (one == other)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=40), st.integers(0, 4))
def test_whatever_is_accepted_is_the_one_encoding_of_it(data: bytes, count: int) -> None:
    try:
        fields = unpack(data, count)
    except SecAggError as error:
        assert error.code == "malformed"
    else:
        assert pack(*fields) == data


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=40))
def test_whatever_list_is_accepted_is_the_one_encoding_of_it(data: bytes) -> None:
    try:
        items = unpack_list(data, most=10)
    except SecAggError as error:
        assert error.code == "malformed"
    else:
        assert pack_list(items) == data


def test_the_layout() -> None:
    assert pack(b"ab", b"") == b"\0\0\0\2ab\0\0\0\0"
    assert pack_list([b"a"]) == b"\0\0\0\1\0\0\0\1a"
    assert (u32(258), u64(258)) == (b"\0\0\1\2", b"\0\0\0\0\0\0\1\2")


def test_every_cut_and_every_addition_is_refused() -> None:
    data = pack(b"type", b"", b"body")
    for end in range(len(data)):
        with refused("malformed"):
            unpack(data[:end], 3)
    for count in (0, 1, 2, 4):
        with refused("malformed"):
            unpack(data, count)
    with refused("malformed"):
        unpack(data + b"\0", 3)
    with refused("malformed"):
        unpack(b"\xff\xff\xff\xffabc", 1)


def test_a_field_whose_length_has_no_encoding_is_refused() -> None:
    class Endless(bytes):
        def __len__(self) -> int:
            return 2**32

    with refused("too_long"):
        pack(b"", Endless(b"x"))


def test_lists_are_bounded_before_they_are_read() -> None:
    data = pack_list([b"a", b"b", b"c"])
    assert unpack_list(data, most=3) == [b"a", b"b", b"c"]
    with refused("malformed"):
        unpack_list(data, most=2)
    with refused("malformed"):
        unpack_list(u32(2**32 - 1), most=2**31)  # announces more than it brings
    with refused("malformed"):
        unpack_list(b"", most=3)
    with refused("malformed"):
        unpack_list(data + b"x", most=3)


@pytest.mark.parametrize(("write", "read", "size"), [(u32, read_u32, 4), (u64, read_u64, 8)])
def test_numbers(write, read, size: int) -> None:  # type: ignore[no-untyped-def]
    top = 256**size - 1
    assert [read(write(n)) for n in (0, 1, top)] == [0, 1, top]
    for bad in (-1, top + 1):
        with refused("too_long"):
            write(bad)
    for data in (b"", b"\0" * (size - 1), b"\0" * (size + 1)):
        with refused("malformed"):
            read(data)


def test_text_is_utf8() -> None:
    assert read_text("Ärztin".encode()) == "Ärztin"
    for bad in (b"\xff", b"\xc0\x80", "\ud800".encode(errors="surrogatepass")):
        with refused("malformed"):
            read_text(bad)


def test_an_error_has_a_code_for_programs_and_words_for_people() -> None:
    bare = SecAggError("wrong_phase")
    assert (bare.code, bare.message, bare.exit_code) == ("wrong_phase", "wrong phase", 17)
    assert SecAggError("wrong_phase", "a message of phase A in phase B").message == "a message of phase A in phase B"
