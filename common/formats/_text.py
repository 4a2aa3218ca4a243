"""Rows of text: a key, then its D numbers, separated by single spaces. Shared by word2vec text and GloVe."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from common.errors import DataFormatError
from common.formats._checks import built, utf8
from common.table import EmbeddingTable


def write_rows(file: BinaryIO, table: EmbeddingTable) -> None:
    """Write one line a row. Nine significant digits determine a float32, so nothing is lost (IEEE 754-2019, 5.12.2)."""
    numbers = " ".join(["%.9g"] * table.dimensions)
    for key, row in zip(table.keys, table.vectors, strict=True):
        file.write(utf8(key) + b" " + (numbers % tuple(row.tolist())).encode() + b"\n")


def read_rows(lines: Iterable[bytes], dimensions: int, path: Path) -> EmbeddingTable:
    """Inverse of ``write_rows``.

    Raises:
        DataFormatError: a line with another number of fields, something that is no number, or not UTF-8.
    """
    keys, rows = [], []
    for number, line in enumerate(lines, start=1):
        fields = line.rstrip(b"\r\n").split(b" ")
        if len(fields) != dimensions + 1:
            raise DataFormatError(f"{path}: row {number} has {len(fields) - 1} numbers, not {dimensions}")
        try:
            keys.append(fields[0].decode())
            rows.append(np.array(fields[1:], dtype=np.float64).astype(np.float32))
        except ValueError:
            raise DataFormatError(f"{path}: row {number} is not a UTF-8 key followed by numbers") from None
    vectors = np.array(rows, dtype=np.float32).reshape(len(keys), dimensions)
    return built(tuple(keys), vectors, path)
