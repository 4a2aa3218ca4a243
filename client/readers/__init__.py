"""Record readers: one module each, with the constant ``READER``, found by listing this package.

A reader turns files into ``Record`` objects, one after the other, under the size limits of ``[data]``. It never holds
a whole text file in memory, and its errors name a file and a line, never what stands there.

Clients and units, the same for every reader:

* ``client_key`` names fields; their values joined by ``/`` are the client. Without it each file is one client, called
  after its path inside the folder (or after its stem, when ``path`` is one file).
* ``unit = "client"`` puts everything of a client into one unit; the name of a field makes its values the units;
  ``record`` (and the reader's own words for it), where no field has that name, makes every record a unit.
* every record has the virtual fields ``file`` (path inside the folder, without suffixes) and ``folder``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from common.config import DataConfig
from common.discovery import load_member, member_names
from common.errors import DataFormatError, DataLimitError
from common.units import Record

CONSTANT = "READER"


class Reader(Protocol):
    """What every reader has. ``name`` equals its module's name."""

    name: str
    records: str  # kind of record it yields: "text", "interactions" or "images"
    suffixes: tuple[str, ...]  # of the files it takes, before .gz or .xz

    def read(self, data: DataConfig) -> Iterator[Record]:
        """Yield every record of ``data.path`` in a fixed order (files sorted by path, records as they stand).

        Raises:
            DataFormatError: a file is damaged, empty or lacks a field; names the file and the line.
            DataLimitError: a line, an array or an image is larger than ``data`` allows.
            DataError: the path is missing or cannot be read.
        """

    def samples(self, directory: Path) -> Sequence[DataConfig]:
        """Write small invented files below ``directory``; one configuration for each form that the reader takes.

        The contract test damages these files in many ways, and a newcomer sees in them what the reader expects.
        """


def names() -> list[str]:
    """Names of all readers."""
    return member_names(__name__)


def load(name: str) -> Any:
    """The reader called ``name``. Raises ``ConfigError`` with the nearest known name."""
    return load_member(__name__, name, CONSTANT)


def read(data: DataConfig) -> Iterator[Record]:
    """Records of ``data.path`` by the reader ``data.reader``, at most ``data.max_records``.

    Raises:
        ConfigError: no such reader.
        DataError: see ``Reader.read``; also when there is no record at all or there are too many.
    """
    reader = load(data.reader)
    return limited(reader.read(data), data)


def refuse_unfit(data: DataConfig, *, needs_labels: bool) -> None:
    """Raise ``ConfigError`` where the records of ``data`` would lack the labels that training needs."""
    if needs_labels and data.reader == "images":
        from client.readers.images import refuse_unlabelled_pictures  # a member: it imports this package

        refuse_unlabelled_pictures(data)


def limited(records: Iterator[Record], data: DataConfig) -> Iterator[Record]:
    """Pass records on, and refuse none at all and more than ``data.max_records``."""
    count = 0
    for record in records:
        count += 1
        if count > data.max_records:
            raise DataLimitError(
                f"{data.path}: more than {data.max_records:,} records",
                remedy="Raise data.max_records, or give less data.",
            )
        yield record
    if not count:
        raise DataFormatError(
            f"{data.path}: no records", remedy="Check data.path and data.reader; blank text is not a record."
        )
