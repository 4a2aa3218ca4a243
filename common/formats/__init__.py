"""Export formats: one module each, with the constant ``FORMAT``, found by listing this package.

A format writes an ``EmbeddingTable`` so that other software reads it. Either the file holds every key and every bit of
every vector, or ``write`` refuses and leaves nothing behind; tests/contracts/test_formats.py holds each member to that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from common.discovery import load_member, member_names
from common.table import EmbeddingTable

CONSTANT = "FORMAT"


@dataclass(frozen=True)
class Format:
    """One export format.

    Attributes:
        name: the module's name; what ``fedembed export --format`` takes.
        suffix: usual end of the file's name; empty for a format that is a folder.
        summary: one line for ``fedembed list formats``: what reads it.
        write: ``write(table, path)``; the path appears only when it is complete. Raises ``DataFormatError`` for a
            table the format cannot hold, ``StorageError`` for a disk that cannot.
        read: ``read(path) -> EmbeddingTable``, bit for bit what was written; ``None`` where nobody reads it back.
            Raises ``DataFormatError`` for a malformed file.
    """

    name: str
    suffix: str
    summary: str
    write: Callable[[EmbeddingTable, Path], None]
    read: Callable[[Path], EmbeddingTable] | None = None


def names() -> list[str]:
    """Names of all export formats, sorted."""
    return member_names(__name__)


def load(name: str) -> Format:
    """The format called ``name``.

    Raises:
        ConfigError: there is none; the message names the nearest.
    """
    member: Format = load_member(__name__, name, CONSTANT)
    return member
