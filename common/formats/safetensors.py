"""safetensors: one float32 array ``vectors`` of shape (V, D), and the keys one a line in a file beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from common.errors import DataFormatError
from common.files import atomic_files
from common.formats import Format
from common.formats._checks import built, opened_bytes, refuse_non_finite
from common.keyfile import decode_keys, encode_keys
from common.table import EmbeddingTable


def keys_path(path: Path) -> Path:
    """``words.safetensors`` -> ``words.keys.txt``."""
    return path.with_suffix(".keys.txt")


def _write(table: EmbeddingTable, path: Path) -> None:
    from safetensors.numpy import save

    refuse_non_finite(table)
    vectors, keys = save({"vectors": np.ascontiguousarray(table.vectors)}), encode_keys(table.keys)
    with atomic_files(keys_path(path), path) as (keys_partial, partial):
        keys_partial.write_bytes(keys)
        partial.write_bytes(vectors)


def _read(path: Path) -> EmbeddingTable:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        vectors = load(opened_bytes(path)).get("vectors")
    except (SafetensorError, ValueError, KeyError, TypeError):
        raise DataFormatError(f"{path} is not a valid safetensors file") from None
    if vectors is None or vectors.dtype != np.float32:
        raise DataFormatError(f"{path} holds no float32 array named vectors")
    return built(decode_keys(opened_bytes(keys_path(path))), vectors, path)


FORMAT = Format(
    name="safetensors",
    suffix=".safetensors",
    summary="safetensors with a key file beside it: exact, holds any key",
    write=_write,
    read=_read,
)
