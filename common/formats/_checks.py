"""What every format checks before it writes and while it reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from common.errors import ConfigError, DataFormatError
from common.table import EmbeddingTable, FloatArray


def refuse_non_finite(table: EmbeddingTable) -> None:
    """Raise ``DataFormatError`` if a vector holds NaN or infinity: readers would take it for a valid vector."""
    bad = np.flatnonzero(~np.isfinite(table.vectors).all(axis=1))
    if len(bad):
        raise DataFormatError(
            f"row {bad[0]} ({_shown(table.keys[bad[0]])}) and {len(bad) - 1} more hold NaN or infinity",
            remedy="Export a table whose training did not diverge.",
        )


def refuse_unsplittable(table: EmbeddingTable) -> None:
    """Raise ``DataFormatError`` if a key is empty or holds white space, which formats split at spaces cannot hold."""
    for row, key in enumerate(table.keys):
        if not key or key.split() != [key]:
            what = "is empty" if not key else "holds white space"
            raise DataFormatError(
                f"the key of row {row} ({_shown(key)}) {what}, and this format separates keys by spaces",
                remedy="Export with --format safetensors, numpy or projector, which hold any key.",
            )


def utf8(key: str) -> bytes:
    """UTF-8 bytes of a key; ``DataFormatError`` for half a surrogate pair."""
    try:
        return key.encode()
    except UnicodeEncodeError:
        raise DataFormatError(
            "a key holds half of a surrogate pair, which is not valid Unicode text",
            remedy="Rename that key in the row domain; UTF-8 cannot hold it.",
        ) from None


def built(keys: tuple[str, ...], vectors: FloatArray, path: Path) -> EmbeddingTable:
    """The table that a reader found, or ``DataFormatError`` if keys repeat, counts differ or a number is not finite."""
    if len(set(keys)) != len(keys):
        raise DataFormatError(f"{path} holds a key twice")
    if not np.isfinite(vectors).all():
        raise DataFormatError(f"{path} holds NaN or infinity")
    try:
        return EmbeddingTable(keys, vectors)
    except ConfigError as error:
        raise DataFormatError(f"{path}: {error.message}") from None


def opened_bytes(path: Path) -> bytes:
    """Content of a file, or ``DataFormatError`` if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataFormatError(f"cannot read {path}: {error.strerror}") from None


def _shown(key: str) -> str:
    return ascii(key if len(key) <= 40 else key[:40] + "...")
