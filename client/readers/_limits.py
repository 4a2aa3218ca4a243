"""Files, compressed or not, line by line under limits: errors name the place, never the content."""

from __future__ import annotations

import contextlib
import gzip
import lzma
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from common.errors import DataError, DataFormatError, DataLimitError

COMPRESSED = (".gz", ".xz")


class Place:
    """Where a reader stands: a file and a line; ``str()`` gives the words for an error message."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.line = 0

    def __str__(self) -> str:
        return f"{self.path}, line {self.line}" if self.line else str(self.path)


def bare_name(name: str, suffixes: tuple[str, ...]) -> str | None:
    """``name`` without its suffixes (``a.jsonl.gz`` gives ``a``), or None when the suffix is not among these."""
    stem = name
    if stem.lower().endswith(COMPRESSED):
        stem = stem[:-3]
    for suffix in suffixes:
        if stem.lower().endswith(suffix) and len(stem) > len(suffix):
            return stem[: -len(suffix)]
    return None


def suffix_of(path: Path) -> str:
    """The suffix that says what is inside, in lower case and without .gz or .xz: ``.jsonl`` for ``a.jsonl.gz``."""
    inner = path.with_suffix("") if path.suffix.lower() in COMPRESSED else path
    return inner.suffix.lower()


def files(path: str, suffixes: tuple[str, ...]) -> list[tuple[Path, str]]:
    """Files to read, sorted, each with its name inside ``path`` without suffixes (parts joined by ``/``).

    In a folder, hidden files, links to folders and other suffixes are passed over.

    Raises:
        DataError: the path is empty, missing, neither file nor folder, or holds no fitting file.
    """
    root = Path(path)
    if not path:
        raise DataError("data.path is empty", remedy="Set [data] path to a file or folder.")
    if root.is_dir():
        found = sorted(_walk(root, suffixes))
        if not found:
            raise DataFormatError(f"{root}: no file with a suffix among {', '.join(suffixes)} (also .gz, .xz)")
        return found
    if not root.exists():
        raise DataError(f"{root}: no such file or folder")
    name = bare_name(root.name, suffixes)
    if name is None:
        raise DataFormatError(f"{root}: the suffix is none of {', '.join(suffixes)} (also .gz, .xz)")
    if not root.is_file():
        raise DataError(f"{root}: not a regular file")
    return [(root, name)]


def _walk(root: Path, suffixes: tuple[str, ...]) -> Iterator[tuple[Path, str]]:
    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: {error.strerror}")

    for folder, folders, names in os.walk(root, onerror=refuse):
        folders[:] = [f for f in folders if not f.startswith(".")]
        for name in names:
            bare = bare_name(name, suffixes)
            path = Path(folder, name)
            if bare is not None and not name.startswith(".") and path.is_file():
                yield path, (path.relative_to(root).parent / bare).as_posix()


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The bytes of a file, decompressed by its suffix; damage found while it is open becomes a ``DataError``.

    Raises:
        DataFormatError: the compressed stream is cut off or damaged.
        DataError: the operating system refuses.
    """
    openers: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open}
    try:
        with openers.get(path.suffix.lower(), open)(path, "rb") as stream:
            yield stream
    except (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError):
        raise DataFormatError(
            f"{path}: the compressed file is cut off or damaged", remedy="Copy the file again from its source."
        ) from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or type(error).__name__})") from None


def lines(path: Path, max_line_bytes: int) -> Iterator[tuple[Place, str]]:
    """Lines of a UTF-8 file without their ends, blank ones left out; at most one line is in memory.

    The ``Place`` is one object that moves along with the lines.

    Raises:
        DataFormatError: not UTF-8, a NUL byte, a damaged compressed stream, or no line that is not blank.
        DataLimitError: a line is longer than ``max_line_bytes``.
    """
    place = Place(path)
    blank = True
    with opened(path) as stream:
        while raw := stream.readline(max_line_bytes + 1):
            place.line += 1
            text = decoded(raw, place, max_line_bytes)
            if text and not text.isspace():
                blank = False
                yield place, text
    if blank:
        raise DataFormatError(f"{path}: the file is empty", remedy="Remove the file, or choose another data.path.")


def decoded(raw: bytes, place: Place, max_bytes: int) -> str:
    """``raw`` as text without its line end and byte-order mark, checked."""
    if len(raw) > max_bytes:
        raise DataLimitError(
            f"{place}: longer than {max_bytes:,} bytes (data.max_line_bytes)",
            remedy="Split the record, or raise data.max_line_bytes.",
        )
    if b"\0" in raw:
        raise DataFormatError(f"{place}: a NUL byte; this is not UTF-8 text", remedy="Convert the file to UTF-8.")
    try:
        text = raw.decode("utf-8-sig" if place.line <= 1 else "utf-8")
    except UnicodeDecodeError:
        raise DataFormatError(f"{place}: not UTF-8 text", remedy="Convert the file to UTF-8.") from None
    return text.rstrip("\r\n")
