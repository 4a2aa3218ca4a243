"""Tables and encoder parameters as safetensors files, read with every claim of the file checked first."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import ConfigError, DataFormatError, ReleaseError
from common.keyfile import decode_keys
from common.release.folder import MODEL, Folder, keys_file, vectors_file
from common.table import EmbeddingTable

MAX_HEADER_BYTES = 1 << 20
_MAX_FILE_BYTES = 1 << 40


def safetensors_bytes(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The safetensors file of ``arrays``.

    Raises:
        ReleaseError: an array is not numeric, or holds NaN or infinity: such a model must not be published.
    """
    from safetensors.numpy import save

    for name, array in arrays.items():
        if array.dtype.kind not in "fiub":
            raise ReleaseError(f"{name} has dtype {array.dtype}; a release holds plain numbers only")
        if not np.isfinite(array).all():
            raise ReleaseError(
                f"{name} holds NaN or infinity: training diverged, and such a table is not released",
                remedy="Lower training.lr or server.lr and run again.",
            )
    return save({name: np.ascontiguousarray(array) for name, array in arrays.items()})


def read_safetensors(folder: Folder, name: str) -> dict[str, NDArray[Any]]:
    """Arrays of a safetensors file of the release.

    Raises:
        ReleaseError: an oversized header, offsets outside the file, an unknown dtype, NaN or infinity.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    data = folder.read(name, max_bytes=_MAX_FILE_BYTES)
    if len(data) < 8 or struct.unpack("<Q", data[:8])[0] > min(MAX_HEADER_BYTES, len(data) - 8):
        raise ReleaseError(f"{name} is not a safetensors file: its header length is impossible")
    try:
        arrays = load(data)
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError):
        raise ReleaseError(f"{name} is not a valid safetensors file") from None
    for key, array in arrays.items():
        if array.dtype.kind not in "fiub" or not np.isfinite(array).all():
            raise ReleaseError(f"{key[:80]!r} in {name} holds NaN, infinity or something that is no number")
    return arrays


def read_table(folder: Folder, table: str) -> EmbeddingTable:
    """One table of the release.

    Raises:
        ReleaseError: vectors and keys do not fit together, or either file is damaged.
    """
    arrays = read_safetensors(folder, vectors_file(table))
    vectors = arrays.get("vectors")
    if len(arrays) != 1 or vectors is None or vectors.dtype != np.float32:
        raise ReleaseError(f"{vectors_file(table)} must hold one float32 array named vectors")
    try:
        keys = decode_keys(folder.read(keys_file(table), max_bytes=_MAX_FILE_BYTES))
        if len(set(keys)) != len(keys):
            raise ReleaseError(f"{keys_file(table)} holds a key twice")
        return EmbeddingTable(keys, vectors)
    except (ConfigError, DataFormatError) as error:
        raise ReleaseError(f"table {table}: {error.message}") from None


def read_model(folder: Folder) -> dict[str, NDArray[Any]]:
    """Parameters of the release's encoder."""
    return read_safetensors(folder, MODEL)
