"""Logs of programs stay bounded: what has grown large is set aside, and the file begins again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from common.errors import StorageError
from common.files import atomic_files

LARGEST_BYTES = 64 * 2**20


def bound_logs(paths: Iterable[Path], *, largest: int = LARGEST_BYTES) -> None:
    """Set every log larger than ``largest`` aside as ``NAME.1``, in the place of the one before, and empty it.

    The file is copied and cut, not renamed: a program keeps it open, and nginx's workers could not open another one
    where root started it and they run as ``nobody``. Whoever writes appends, so that the next line is the first of the
    emptied file; a line that comes between copy and cut is lost. On a full disk the log stays as it is.
    """
    for path in paths:
        try:
            if path.stat().st_size > largest:
                with atomic_files(path.with_name(f"{path.name}.1")) as (partial,):
                    shutil.copyfile(path, partial)
                    shutil.copymode(path, partial)
                os.truncate(path, 0)
        except (OSError, StorageError):
            continue
