"""The processes of a deployment's folder, as ``/proc`` shows them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def of_folder(folder: Path, proc: Path = Path("/proc")) -> Iterator[tuple[Path, str]]:
    """``/proc/PID`` and command line of every process that names the folder among its words, or works in it."""
    for process in proc.glob("[0-9]*"):
        with suppress(OSError):  # it ended in the meantime
            words = (process / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
            if str(folder) in words or (process / "cwd").readlink().is_relative_to(folder):
                yield process, words
