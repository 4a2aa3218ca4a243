"""A clock that is wrong: what every Python program of one site takes for the time, off by the seconds in a file.

One machine has one clock, and Linux gives no process another. Programs that find the ``sitecustomize`` of this module
on their path read theirs through it; TLS, which OpenSSL reads a clock for, stays right.
"""

from __future__ import annotations

import datetime
import time
from pathlib import Path

OFFSET_FILE = "clock-offset"


def make(folder: Path) -> None:
    """A folder for ``PYTHONPATH``, with a clock that is right until ``put`` says otherwise."""
    folder.mkdir()
    folder.chmod(0o755)
    put(folder, 0.0)
    line = f"from simulations.benchmarks._fault_clock import install\ninstall({str(folder / OFFSET_FILE)!r})\n"
    (folder / "sitecustomize.py").write_text(line)


def put(folder: Path, seconds: float) -> None:
    """Put the clock forward by so many seconds; backward where they are negative."""
    (folder / OFFSET_FILE).write_text(str(seconds))


def install(offset_file: str) -> None:
    """From now on this process reads a clock that is off by the seconds in a file."""
    right, seconds = datetime.datetime, time.time

    def offset() -> float:
        return float(Path(offset_file).read_text() or 0)

    class Kind(type):
        """What the interpreter's own code makes is a time as well."""

        def __instancecheck__(cls, value: object) -> bool:
            return isinstance(value, right)

    class Wrong(datetime.datetime, metaclass=Kind):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:  # type: ignore[override]
            return right.now(tz) + datetime.timedelta(seconds=offset())

    datetime.datetime = Wrong  # type: ignore[misc]
    time.time = lambda: seconds() + offset()
