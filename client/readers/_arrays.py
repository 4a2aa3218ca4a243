"""Arrays of a .npz file under a size limit, without pickled objects: sizes are checked before memory is taken."""

from __future__ import annotations

import io
import math
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.readers._limits import opened
from common.errors import DataFormatError, DataLimitError

_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    ValueError,
    NotImplementedError,
    RuntimeError,
    struct.error,
    OverflowError,
    KeyError,
    IndexError,
    tokenize.TokenError,
    SyntaxError,
)
_KINDS = "biufU"  # truth values, whole numbers, floats, strings


def load_arrays(path: Path, max_array_bytes: int) -> dict[str, NDArray[Any]]:
    """Every array of the file by name.

    Raises:
        DataFormatError: not a .npz file, damaged, or an array of objects.
        DataLimitError: an array takes more than ``max_array_bytes``.
    """
    with opened(path) as stream:
        try:
            with zipfile.ZipFile(stream) as archive:
                return {
                    info.filename.removesuffix(".npy"): _member(archive, info, path, max_array_bytes)
                    for info in archive.infolist()
                    if info.filename.endswith(".npy")
                }
        except _DAMAGE:
            raise DataFormatError(
                f"{path}: not a .npz file of plain arrays, or damaged", remedy="Write it again with numpy.savez."
            ) from None


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, max_bytes: int) -> NDArray[Any]:
    if info.file_size > max_bytes:
        raise DataLimitError(
            f"{path}: an array of more than {max_bytes:,} bytes (data.max_array_bytes)",
            remedy="Split the file, or raise data.max_array_bytes.",
        )
    with archive.open(info) as stream:
        content = stream.read(info.file_size + 1)  # to its end, so that the checksum is compared
    shape, fortran, dtype, start = _header(content)
    if dtype.kind not in _KINDS or math.prod(shape) * dtype.itemsize != len(content) - start:
        raise ValueError("an array of objects, or header and content differ")
    flat = np.frombuffer(content, dtype=dtype, offset=start)
    return flat.reshape(shape, order="F" if fortran else "C")


def _header(content: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
    shape, fortran, dtype = read(stream)
    if any(length < 0 for length in shape):
        raise ValueError("a negative length")
    return shape, fortran, dtype, stream.tell()
