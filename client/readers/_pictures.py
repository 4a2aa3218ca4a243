"""Picture files through Pillow (it comes with matplotlib), under a pixel limit."""

from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.errors import DataFormatError, DataLimitError, DependencyError

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
_DAMAGE = (SyntaxError, ValueError, EOFError, OverflowError, KeyError, IndexError, struct.error, zlib.error, OSError)


def load_picture(path: Path, max_pixels: int) -> NDArray[np.uint8]:
    """Grey pixels of shape (H, W). The size is checked before pixels are decoded.

    Raises:
        DataFormatError: damaged, or not a PNG, JPEG or BMP picture.
        DataLimitError: more than ``max_pixels`` pixels.
        DependencyError: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError:
        raise DependencyError("picture files need Pillow", remedy="pip install pillow") from None
    too_large = DataLimitError(
        f"{path}: more than {max_pixels:,} pixels (data.max_pixels)",
        remedy="Scale the image down, or raise data.max_pixels.",
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its own size warning; a limit of ours follows
            with path.open("rb") as stream, Image.open(stream, formats=("PNG", "JPEG", "BMP")) as picture:
                if picture.width * picture.height > max_pixels:
                    raise too_large
                return np.asarray(picture.convert("L"), dtype=np.uint8).copy()
    except Image.DecompressionBombError:
        raise too_large from None
    except _DAMAGE:
        raise DataFormatError(f"{path}: damaged, or not a PNG, JPEG or BMP picture") from None


def save_picture(pixels: NDArray[np.uint8], path: Path) -> None:
    """Write (H, W) uint8 pixels in the format of the suffix."""
    from PIL import Image

    Image.fromarray(pixels).save(path)
