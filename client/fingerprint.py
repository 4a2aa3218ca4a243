"""Which data a ledger entry is about: a SHA-256 that stays with the data's owner.

A fingerprint of guessable data can be guessed back, so it is never sent, logged or put in a release.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

from common.units import Image, Interaction, Record, Units


def records_fingerprint(records: Iterable[Record], *, owner: str = "") -> str:
    """SHA-256 (hex) over the raw data of one client, in the order read; streaming.

    Independent of everything that a coordinator chooses: family, vocabulary, options, and for text also the privacy
    unit (texts count as their words, so cutting one into sentences changes nothing). ``owner`` keeps clients with
    equal data apart.
    """
    digest = hashlib.sha256(_framed(b"records 1", owner.encode()))
    for record in records:
        value = record.value
        if isinstance(value, str):
            digest.update(b"".join(_framed(b"w", word.encode()) for word in value.split()))
        elif isinstance(value, Interaction):
            numbers = np.array([value.weight, value.timestamp], dtype="<f8").tobytes()
            digest.update(_framed(b"i", value.user.encode(), value.item.encode(), numbers))
        elif isinstance(value, Image):
            shape = np.array([*value.pixels.shape, value.label], dtype="<i8").tobytes()
            digest.update(_framed(b"p", shape, np.ascontiguousarray(value.pixels).tobytes()))
        else:
            raise TypeError(f"no fingerprint for values of type {type(value).__name__}")
    return digest.hexdigest()


def data_fingerprint(units: Units, *, owner: str = "") -> str:
    """SHA-256 (hex) over the encoded data of one client; ``owner`` keeps clients with equal data apart.

    Encoded data change with the family and the row domain, which a coordinator chooses: with this fingerprint alone
    a new vocabulary opens a new account. A site that outlives one run keys its ledger by ``named_fingerprint`` or
    ``records_fingerprint`` instead; a simulation, which has a fresh ledger for each run, may use this one.
    """
    digest = hashlib.sha256(_framed(b"units 1", owner.encode()))
    offsets = np.asarray(units.offsets, dtype="<i8")
    digest.update(_framed(b"offsets", (offsets - offsets[0]).tobytes()))
    for name in sorted(units.columns):
        column = np.ascontiguousarray(units.columns[name])
        digest.update(_framed(name.encode(), column.dtype.str.encode(), repr(column.shape).encode()))
        digest.update(column.tobytes())
    return digest.hexdigest()


def named_fingerprint(name: str) -> str:
    """The key of a data set that its owner names: it stays the same while records come and go.

    One person's records are charged to one account for as long as the name is kept. Data that grow every day would
    otherwise start afresh every day.
    """
    return hashlib.sha256(_framed(b"name 1", name.encode())).hexdigest()


def _framed(*parts: bytes) -> bytes:
    """The parts, each after its length: no two lists of parts give the same bytes."""
    return b"".join(len(part).to_bytes(8, "little") + part for part in parts)
