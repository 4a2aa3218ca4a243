"""Delimited text with a header, row by row."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from client.readers._limits import Place, lines
from common.errors import DataFormatError, DataLimitError


class HeaderedRows:
    """Rows of a .csv or .tsv file; quoted fields may span lines, each field below ``csv.field_size_limit()``.

    Attributes:
        header: column names, stripped; distinct and not empty.
        place: moves along with the rows.
    """

    def __init__(self, path: Path, *, tabs: bool, max_line_bytes: int) -> None:
        """Open the file and read its header.

        Raises:
            DataFormatError: empty file, or a header with a duplicate or empty name.
        """
        self.place = Place(path)
        self._rows = csv.reader(
            self._text(path, max_line_bytes),
            delimiter="\t" if tabs else ",",
            quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL,
            strict=True,
        )
        self.header = [name.strip() for name in self._next() or []]
        if not all(self.header) or len(set(self.header)) != len(self.header):
            raise DataFormatError(f"{self.place}: the header has a duplicate or empty column name")

    def _text(self, path: Path, max_line_bytes: int) -> Iterator[str]:
        for place, text in lines(path, max_line_bytes):
            self.place.line = place.line
            yield text + "\n"

    def _next(self) -> list[str] | None:
        try:
            return next(self._rows, None)
        except csv.Error as error:
            if "limit" in str(error):
                raise DataLimitError(
                    f"{self.place}: a field of more than {csv.field_size_limit():,} characters",
                    remedy="Close the open quote, or split the field.",
                ) from None
            raise DataFormatError(f"{self.place}: quotes do not match") from None

    def __iter__(self) -> Iterator[list[str]]:
        """Rows as long as the header. Raises ``DataFormatError`` for any other row."""
        while (row := self._next()) is not None:
            if len(row) != len(self.header):
                raise DataFormatError(f"{self.place}: {len(row)} fields where the header has {len(self.header)}")
            yield row
