"""GloVe text: a key and D decimals a line, no header. Read by gensim (``no_header=True``) and by GloVe's own tools."""

from __future__ import annotations

from pathlib import Path

from common.errors import DataFormatError
from common.files import atomic_files
from common.formats import Format
from common.formats._checks import opened_bytes, refuse_non_finite, refuse_unsplittable
from common.formats._text import read_rows, write_rows
from common.table import EmbeddingTable


def _write(table: EmbeddingTable, path: Path) -> None:
    refuse_non_finite(table)
    refuse_unsplittable(table)
    with atomic_files(path) as (partial,), partial.open("wb") as file:
        write_rows(file, table)


def _read(path: Path) -> EmbeddingTable:
    data = opened_bytes(path)
    if not data.endswith(b"\n"):
        raise DataFormatError(f"{path} is empty, or its last line is cut off")
    lines = data.split(b"\n")[:-1]
    return read_rows(lines, lines[0].count(b" "), path)


FORMAT = Format(
    name="glove_text",
    suffix=".txt",
    summary="GloVe text, without a header; keys without white space",
    write=_write,
    read=_read,
)
