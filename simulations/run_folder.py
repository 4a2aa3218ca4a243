"""The folder of a run: its own, one process at a time, and empty after a run that failed before it began."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.errors import StorageError
from common.files import storage_error

LOCK_FILE = ".lock"


@contextmanager
def exclusive(out: Path) -> Iterator[None]:
    """Hold ``out``, which is made if need be; a failure that leaves it empty takes it away again.

    Raises:
        StorageError: the folder cannot be made, holds files of something else, or another process holds it.
    """
    _refuse_foreign(out)
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    path = out / LOCK_FILE
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = path.open("w")
    except OSError as error:
        raise storage_error(out, error) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = path.exists() and os.path.samestat(os.fstat(lock.fileno()), path.stat())
        except OSError:
            held = False
        if not held:  # or the process that held it has just taken the file away
            raise StorageError(f"another process is running in {out}", remedy="Wait for it to end.")
        try:
            yield
        except BaseException:
            _clear(out, made)
            raise


def _refuse_foreign(out: Path) -> None:
    with contextlib.suppress(OSError):
        names = {entry.name for entry in out.iterdir()}
        if names and LOCK_FILE not in names:
            raise StorageError(
                f"{out} holds other files, and a run keeps its ledger, state and release in a folder of its own",
                remedy="Name a new or empty folder with --out, or one of an earlier run.",
            )


def _clear(out: Path, made: list[Path]) -> None:
    with contextlib.suppress(OSError):
        if [entry.name for entry in out.iterdir()] == [LOCK_FILE]:
            (out / LOCK_FILE).unlink()
            for folder in made:  # from the innermost outwards, as far as they are empty
                folder.rmdir()
