"""What a release folder is made of: file names, canonical JSON, digests, and reading that trusts nothing.

A release may come from anybody, so every read goes through ``Folder``: plain names only, regular files only, no link
followed, sizes bounded before memory is taken. Whatever is wrong ends in ``ReleaseError``.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from common.errors import ReleaseError

FORMAT_NAME = "fedembed-release"
FORMAT_VERSION = 1
MANIFEST = "manifest.json"
CERTIFICATE = "certificate.json"
EVALUATION = "evaluation.json"
ROUNDS = "rounds.json"
MODEL = "model.safetensors"
MODEL_CONFIG = "config.json"
REPORT = "report.html"
CARD = "README.md"
REQUIRED = frozenset({CERTIFICATE, EVALUATION, ROUNDS, REPORT, CARD})
MAX_JSON_BYTES = 64 << 20
_TABLE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")
_FILE_NAME = re.compile(r"(tables/)?[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


def checked_table_name(name: str) -> str:
    """Return ``name`` if it can be a file name everywhere.

    Raises:
        ReleaseError: otherwise.
    """
    if not _TABLE_NAME.fullmatch(name):
        raise ReleaseError(
            f"{name!r} cannot name a table",
            remedy="Name tables with at most 64 letters, digits, underscores and hyphens.",
        )
    return name


def checked_file_name(name: str) -> str:
    """Return ``name`` if it stays inside the release folder.

    Raises:
        ReleaseError: otherwise.
    """
    if not _FILE_NAME.fullmatch(name):
        raise ReleaseError(f"the release names an unsafe path {name[:80]!r}")
    return name


def vectors_file(table: str) -> str:
    """Name, inside the release, of the file with a table's vectors."""
    return f"tables/{table}.safetensors"


def keys_file(table: str) -> str:
    """Name, inside the release, of the file with a table's keys."""
    return f"tables/{table}.keys.txt"


def plain(value: Any) -> Any:
    """``value`` as strict JSON holds it: tuples become lists, infinity the string ``"inf"`` and NaN ``null``.

    Raises:
        ReleaseError: a type that JSON does not know, or a key that is not a string.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None if math.isnan(value) else "inf" if value > 0 else "-inf"
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in (sorted(value) if isinstance(value, (set, frozenset)) else value)]
    raise ReleaseError(f"a {type(value).__name__} cannot be written to a release: JSON has no such value")


def canonical_json(value: Any) -> bytes:
    """The one byte string for ``value``: sorted keys, ASCII, one final newline.

    Files are compared with it byte for byte, so spaces, key order or a second spelling of a number are alterations.
    """
    return (json.dumps(plain(value), sort_keys=True, indent=1, allow_nan=False) + "\n").encode()


def manifest_digest(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of the manifest without its own field ``manifest_sha256``."""
    return hashlib.sha256(canonical_json({k: v for k, v in manifest.items() if k != "manifest_sha256"})).hexdigest()


def scenario_digest(scenario: Mapping[str, Any]) -> str:
    """The same as ``Scenario.digest``, from the scenario's JSON."""
    return hashlib.sha256(json.dumps(scenario, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True)
class Folder:
    """Read access to a release folder that never leaves it."""

    root: Path

    def open(self, name: str) -> BinaryIO:
        """Open a regular file of the release for reading.

        Raises:
            ReleaseError: the name is unsafe, the file is missing, a link, or not a regular file.
        """
        path = self.root / checked_file_name(name)
        if path.parent != self.root and path.parent.is_symlink():
            raise ReleaseError(f"{path.parent.name}/ is a link; a release holds only regular files")
        # O_NONBLOCK: a named pipe in a crafted folder must not hang the reader before it is recognised.
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        try:
            descriptor = os.open(path, flags)
        except OSError as error:
            raise ReleaseError(f"cannot open {name}: {error.strerror}") from None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise ReleaseError(f"{name} is not a regular file")
        return os.fdopen(descriptor, "rb")

    def digest(self, name: str) -> tuple[str, int]:
        """SHA-256 and size in bytes of a file."""
        with self.open(name) as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
            return digest.hexdigest(), file.tell()

    def read(self, name: str, *, max_bytes: int) -> bytes:
        """Content of a file.

        Raises:
            ReleaseError: it is longer than ``max_bytes``, or cannot be opened.
        """
        with self.open(name) as file:
            size = os.fstat(file.fileno()).st_size
            if size > max_bytes:
                raise ReleaseError(f"{name} is larger than {max_bytes} bytes")
            try:
                return file.read(size)
            except MemoryError:
                raise ReleaseError(f"{name} ({size} bytes) does not fit into memory") from None

    def read_json(self, name: str) -> Any:
        """Parsed content of a JSON file written by ``canonical_json``.

        Raises:
            ReleaseError: not JSON, nested too deeply, or not in canonical form (then somebody edited it).
        """
        data = self.read(name, max_bytes=MAX_JSON_BYTES)
        try:
            value = json.loads(data)
            canonical = canonical_json(value)
        except (ValueError, RecursionError):
            raise ReleaseError(f"{name} is not valid JSON") from None
        if canonical != data:
            raise ReleaseError(f"{name} is not in the form that fedembed writes: it was edited")
        return value

    def listing(self) -> set[str]:
        """Names of everything in the folder that is not a plain directory ``tables``.

        Raises:
            ReleaseError: the folder does not exist or cannot be read.
        """
        names: set[str] = set()
        try:
            for entry in os.scandir(self.root):
                if entry.name == "tables" and entry.is_dir(follow_symlinks=False):
                    names |= {f"tables/{inner.name}" for inner in os.scandir(entry.path)}
                else:
                    names.add(entry.name)
        except OSError as error:
            raise ReleaseError(f"cannot read the release folder {self.root}: {error.strerror}") from None
        return names
