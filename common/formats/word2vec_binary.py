"""word2vec binary: a header ``V D``, then key, one space and D little-endian float32 a row, as gensim writes it.

The C tool puts a newline after each row and gensim does not; readers skip it, so this one does too.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from common.errors import DataFormatError
from common.files import atomic_files
from common.formats import Format
from common.formats._checks import built, opened_bytes, refuse_non_finite, refuse_unsplittable, utf8
from common.table import EmbeddingTable


def _write(table: EmbeddingTable, path: Path) -> None:
    refuse_non_finite(table)
    refuse_unsplittable(table)
    vectors = np.ascontiguousarray(table.vectors, dtype="<f4")
    with atomic_files(path) as (partial,), partial.open("wb") as file:
        file.write(f"{len(table)} {table.dimensions}\n".encode())
        for key, row in zip(table.keys, vectors, strict=True):
            file.write(utf8(key) + b" " + row.tobytes())


def _read(path: Path) -> EmbeddingTable:
    data = opened_bytes(path)
    header, _, body = data.partition(b"\n")
    try:
        rows, dimensions = (int(field) for field in header.split())
    except ValueError:
        raise DataFormatError(f"{path}: the first line is not `rows dimensions`") from None
    # Compared before anything is allocated: a header is a claim, the length of the file is a fact.
    if rows < 0 or dimensions < 0 or rows * (4 * dimensions + 2) > len(body):
        raise DataFormatError(f"{path}: {rows} rows of {dimensions} numbers do not fit into {len(body)} bytes")
    keys, vectors, position = [], np.empty((rows, dimensions), dtype=np.float32), 0
    for row in range(rows):
        space = body.find(b" ", position)
        end = space + 1 + 4 * dimensions
        if space < 0 or end > len(body):
            raise DataFormatError(f"{path} is cut off in row {row}")
        keys.append(_key(body[position:space], row, path))
        vectors[row] = np.frombuffer(body, dtype="<f4", count=dimensions, offset=space + 1)
        position = end
    if body[position:].strip(b"\n"):
        raise DataFormatError(f"{path} goes on after its last row")
    return built(tuple(keys), vectors, path)


def _key(data: bytes, row: int, path: Path) -> str:
    try:
        return data.removeprefix(b"\n").decode()
    except UnicodeDecodeError:
        raise DataFormatError(f"{path}: the key of row {row} is not UTF-8") from None


FORMAT = Format(
    name="word2vec_binary",
    suffix=".bin",
    summary="word2vec binary, for gensim: exact and fast; keys without white space",
    write=_write,
    read=_read,
)
