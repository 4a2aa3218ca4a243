"""NumPy: a ``.npy`` of shape (V, D), float32, and the keys one a line in a file beside it. No pickle on either side."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from common.errors import DataFormatError
from common.files import atomic_files
from common.formats import Format
from common.formats._checks import built, opened_bytes, refuse_non_finite
from common.keyfile import decode_keys, encode_keys
from common.table import EmbeddingTable


def keys_path(path: Path) -> Path:
    """``words.npy`` -> ``words.keys.txt``."""
    return path.with_suffix(".keys.txt")


def _write(table: EmbeddingTable, path: Path) -> None:
    refuse_non_finite(table)
    keys = encode_keys(table.keys)
    with atomic_files(keys_path(path), path) as (keys_partial, partial):
        keys_partial.write_bytes(keys)
        with partial.open("wb") as file:
            np.save(file, np.ascontiguousarray(table.vectors), allow_pickle=False)


def _read(path: Path) -> EmbeddingTable:
    data = opened_bytes(path)
    try:
        vectors = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError, MemoryError):
        raise DataFormatError(f"{path} is not a .npy file of plain numbers") from None
    if not isinstance(vectors, np.ndarray) or vectors.dtype != np.float32 or vectors.ndim != 2:
        raise DataFormatError(f"{path} does not hold one float32 matrix")
    return built(decode_keys(opened_bytes(keys_path(path))), vectors, path)


FORMAT = Format(
    name="numpy",
    suffix=".npy",
    summary=".npy with a key file beside it: exact, holds any key",
    write=_write,
    read=_read,
)
