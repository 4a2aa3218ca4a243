"""Interactions of users with items: .csv and .tsv files with a header, also .gz and .xz.

Columns are found by name, in any case and with or without ``_``: user, userId, uid; item, itemId, movie, movieId,
product, track, ...; rating, weight, count, ...; timestamp, time. ``user_field`` and its sisters name them outright.
Without a weight every interaction weighs 1; a weight must be finite and positive. Ids are strings; an empty one or a
negative number (a usual sign for "missing") is refused.

A pair that occurs again is yielded again, in file order: whether repeats mean more (plays) or a changed mind
(ratings) is the family's to say.

Units: ``record`` and ``interaction`` are one each; ``user`` is the user; every other name is a column.
"""

from __future__ import annotations

import gzip
import lzma
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from client.readers._keys import Keys, virtual_fields
from client.readers._limits import Place, files, suffix_of
from client.readers._rows import HeaderedRows
from common.config import DataConfig
from common.discovery import nearest
from common.errors import DataFormatError
from common.units import Interaction, Record

_NAMES = {
    "user": ("user", "userid", "uid", "visitor", "visitorid"),
    "item": ("item", "itemid", "movie", "movieid", "product", "productid", "track", "trackid", "artist", "artistid"),
    "weight": ("weight", "rating", "score", "count", "plays"),
    "timestamp": ("timestamp", "time", "unixtime"),
}


class Columns(NamedTuple):
    """Positions in a row; -1 where the file has no such column."""

    user: int
    item: int
    weight: int
    timestamp: int


class InteractionsReader:
    """Yields records whose value is an ``Interaction``."""

    name = "interactions"
    records = "interactions"
    suffixes = (".csv", ".tsv")

    def read(self, data: DataConfig) -> Iterator[Record]:
        """See ``Reader.read``."""
        keys = Keys.of(data, "interaction")
        number = 0
        for path, name in files(data.path, self.suffixes):
            rows = HeaderedRows(path, tabs=suffix_of(path) == ".tsv", max_line_bytes=data.max_line_bytes)
            columns = columns_of(rows.header, data, rows.place)
            virtual = virtual_fields(name)
            for row in rows:
                value = _interaction(row, columns, rows.place)
                fields = {**virtual, "user": value.user, "item": value.item, **dict(zip(rows.header, row, strict=True))}
                client = keys.client(fields, rows.place)
                unit = value.user if data.unit == "user" else keys.unit_of(fields, client, number, rows.place)
                yield Record(client, unit, value)
                number += 1

    def samples(self, directory: Path) -> Sequence[DataConfig]:
        """See ``Reader.samples``."""
        rows = [("ann", "kettle", "4.5", "10"), ("ann", "lamp", "3", "11"), ("bo", "kettle", "1e0", "12")]
        header = ("userId", "itemId", "rating", "timestamp")
        table = {s: "".join(s.join(row) + "\n" for row in (header, *rows)).encode() for s in (",", "\t")}
        written = {
            "ratings.csv": table[","],
            "ratings.tsv": table["\t"],
            "ratings.csv.gz": gzip.compress(table[","], mtime=0),
            "ratings.csv.xz": lzma.compress(table[","]),
        }
        for name, content in written.items():
            (directory / name).write_bytes(content)
        return tuple(
            DataConfig(reader=self.name, path=str(directory / name), client_key=("userId",), unit="interaction")
            for name in written
        )


def columns_of(header: Sequence[str], data: DataConfig, place: Place) -> Columns:
    """Positions of user, item, weight and timestamp.

    Raises:
        DataFormatError: a named column is missing, two columns fit, or there is no user or item.
    """
    found = {kind: _column(header, kind, getattr(data, f"{kind}_field"), place) for kind in _NAMES}
    for kind in ("user", "item"):
        if found[kind] < 0:
            raise DataFormatError(
                f"{place}: the header has no column for the {kind} ({', '.join(_NAMES[kind])})",
                remedy=f"Add a header line, or set data.{kind}_field.",
            )
    return Columns(**found)


def _column(header: Sequence[str], kind: str, named: str, place: Place) -> int:
    if named:
        if named not in header:
            raise DataFormatError(
                f"{place}: no column {named!r}{nearest(named, list(header))}", remedy=f"Correct data.{kind}_field."
            )
        return header.index(named)
    fitting = [i for i, name in enumerate(header) if name.lower().replace("_", "") in _NAMES[kind]]
    if len(fitting) > 1:
        raise DataFormatError(f"{place}: several columns could be the {kind}", remedy=f"Set data.{kind}_field.")
    return fitting[0] if fitting else -1


def _interaction(row: Sequence[str], columns: Columns, place: Place) -> Interaction:
    weight = _number(row[columns.weight], "weight", place) if columns.weight >= 0 else 1.0
    if weight <= 0:
        raise DataFormatError(f"{place}: the weight is not positive", remedy="Leave such interactions out.")
    return Interaction(
        user=_identity(row[columns.user], "user", place),
        item=_identity(row[columns.item], "item", place),
        weight=weight,
        timestamp=_number(row[columns.timestamp], "timestamp", place) if columns.timestamp >= 0 else 0.0,
    )


def _number(text: str, what: str, place: Place) -> float:
    try:
        value = float("" if "_" in text else text)
    except ValueError:
        raise DataFormatError(f"{place}: the {what} is not a number") from None
    if not math.isfinite(value):
        raise DataFormatError(f"{place}: the {what} is not finite")
    return value


def _identity(text: str, what: str, place: Place) -> str:
    value = text.strip()
    if not value:
        raise DataFormatError(f"{place}: the {what} is empty")
    if value[0] == "-" and value[1:].replace(".", "", 1).isdecimal():  # also -1.0, as data frames write it
        raise DataFormatError(f"{place}: the {what} is a negative number", remedy="Leave missing ids out.")
    return value


READER = InteractionsReader()
