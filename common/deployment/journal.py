"""Structured logs: one JSON object a line, with time, event and public facts."""

from __future__ import annotations

import datetime
import json
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TextIO

LARGEST_BYTES = 64 * 2**20
LONGEST_LINE = 2**20
LONGEST_TEXT = 2_000  # of one fact: some come from other parties, who could push everything else out of the file


def now() -> str:
    """The time, ISO 8601 in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


class Journal:
    """Appends to one file; at 64 MiB the file is set aside as ``NAME.1`` and begun again."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, event: str, facts: Mapping[str, object]) -> None:
        """One line in one write: processes that append at once do not mix. A full disk loses the line, not the work."""
        short = {key: value[:LONGEST_TEXT] if isinstance(value, str) else value for key, value in facts.items()}
        stamp = {"time": now(), "event": event}
        line = json.dumps({**stamp, **short, **stamp}, default=str) + "\n"
        try:
            if self._path.exists() and self._path.stat().st_size > LARGEST_BYTES:
                os.replace(self._path, self._path.with_name(self._path.name + ".1"))
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
            try:
                os.write(descriptor, line.encode())
            finally:
                os.close(descriptor)
        except OSError:
            return

    def read(self) -> Iterator[dict[str, object]]:
        """Every whole line, oldest first; nothing where the path leads to anything but a file.

        Root reads journals that another account writes: that one must not choose what is read, or for how long.
        """
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            return
        with os.fdopen(descriptor, errors="replace") as lines:
            for line in _bounded(lines):
                try:
                    found = json.loads(line)
                except (ValueError, RecursionError):
                    continue
                if isinstance(found, dict):
                    yield found


def _bounded(lines: TextIO) -> Iterator[str]:
    """Lines, as far as a journal can go that was written here."""
    left = LARGEST_BYTES + LONGEST_LINE
    while left > 0 and (line := lines.readline(LONGEST_LINE)):
        left -= len(line)
        yield line
