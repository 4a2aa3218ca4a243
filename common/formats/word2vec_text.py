"""word2vec text: a header ``V D``, then a key and D decimals a line. Read by gensim, fastText tools and spaCy."""

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
        file.write(f"{len(table)} {table.dimensions}\n".encode())
        write_rows(file, table)


def _read(path: Path) -> EmbeddingTable:
    header, _, body = opened_bytes(path).partition(b"\n")
    try:
        rows, dimensions = (int(field) for field in header.split())
    except ValueError:
        raise DataFormatError(f"{path}: the first line is not `rows dimensions`") from None
    lines = body.split(b"\n")[:-1]
    if len(lines) != rows:
        raise DataFormatError(f"{path}: the header announces {rows} rows, the file holds {len(lines)} whole lines")
    return read_rows(lines, dimensions, path)


FORMAT = Format(
    name="word2vec_text",
    suffix=".txt",
    summary="word2vec text, for gensim and most tools; keys without white space",
    write=_write,
    read=_read,
)
