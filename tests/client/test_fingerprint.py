"""Fingerprints: the same for the same data, another for other data, and not what a coordinator chooses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.fingerprint import data_fingerprint, named_fingerprint, records_fingerprint
from client.readers.text import sentences
from common.units import Image, Interaction, Record, Units


def records(*values: Any, unit: str = "u") -> list[Record]:
    return [Record("c", unit, value) for value in values]


def units(offsets: list[int], **columns: Any) -> Units:
    return Units(np.array(offsets, dtype=np.int64), columns)


IDS = np.arange(4, dtype=np.int32)
PIXELS = np.arange(6, dtype=np.uint8).reshape(2, 3)


def test_text_counts_as_its_words_whatever_the_unit() -> None:
    text = "He came.  She left!\nWhy? 3.14."
    whole = records_fingerprint(records(text, unit="document"))
    assert whole == records_fingerprint(records(*sentences(text), unit="sentence"))
    assert whole == records_fingerprint(iter(records(text)))
    assert len(whole) == 64


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.text(alphabet="ab ", max_size=6), max_size=4), st.lists(st.text(alphabet="ab ", max_size=6), max_size=4)
)
def test_two_texts_agree_exactly_if_their_words_do(first: list[str], second: list[str]) -> None:
    same_words = " ".join(first).split() == " ".join(second).split()
    same_print = records_fingerprint(records(*first)) == records_fingerprint(records(*second))
    assert same_words == same_print


def test_every_detail_of_records_counts() -> None:
    values = [
        "a b",
        "ab",
        Interaction("a", "b"),
        Interaction("ab", ""),
        Interaction("a", "b", 2.0),
        Interaction("a", "b", 1.0, 5.0),
        Image(PIXELS),
        Image(PIXELS.T),
        Image(PIXELS.reshape(3, 2)),
        Image(PIXELS, 3),
        Image(PIXELS + np.uint8(1)),
    ]
    prints = [records_fingerprint(records(v)) for v in values]
    prints += [records_fingerprint([]), records_fingerprint(records("a b"), owner="x"), named_fingerprint("a b")]
    assert len(set(prints)) == len(prints)
    with pytest.raises(TypeError, match="float"):
        records_fingerprint(records(1.5))


def test_every_detail_of_units_counts() -> None:
    variants = [
        units([0, 2, 4], ids=IDS),
        units([0, 1, 4], ids=IDS),
        units([0, 4], ids=IDS),
        units([0, 2, 4], ids=IDS.astype(np.int64)),
        units([0, 2, 4], ids=IDS[::-1]),
        units([0, 2, 4], other=IDS),
        units([0, 2, 4], ids=IDS, more=IDS),
        units([0, 2, 4], ids=IDS.reshape(4, 1)),
        units([0], ids=IDS[:0]),
    ]
    prints = [data_fingerprint(v) for v in variants] + [data_fingerprint(variants[0], owner="ann")]
    assert len(set(prints)) == len(prints)


def test_a_view_and_a_copy_agree() -> None:
    both = units([0, 2, 4, 6], a=np.arange(6), b=np.arange(12.0).reshape(6, 2))
    part = both.slice(1, 3)
    copy = units([0, 2, 4], b=np.arange(12.0).reshape(6, 2)[2:], a=np.arange(2, 6))
    assert data_fingerprint(part) == data_fingerprint(copy)
