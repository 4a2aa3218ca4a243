"""Memory of a coordinator's processes over time, and whether it grows."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from simulations.benchmarks._processes import of_folder

PROGRAMS = ("server.coordinator.superlink", "flwr-serverapp", "flower-superexec", "nginx", "coordinator up")
INTERVAL_S = 5.0
KIB = 1024


@dataclass(frozen=True)
class Sample:
    """Proportional set sizes at one time.

    Attributes:
        time: Unix time, seconds.
        sizes: bytes by program.
    """

    time: float
    sizes: Mapping[str, int]


class Sampler:
    """Reads the sizes of a coordinator's processes every few seconds, in a thread, until the block ends."""

    def __init__(self, folder: Path, interval_s: float = INTERVAL_S) -> None:
        self._folder = folder
        self._interval_s = interval_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.samples: list[Sample] = []

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            self.samples.append(Sample(time.time(), sizes(self._folder)))
            if self._ended.wait(self._interval_s):
                return


def sizes(folder: Path, proc: Path = Path("/proc")) -> dict[str, int]:
    """Bytes by program of the processes that name the folder among their words, or work in it."""
    found: dict[str, int] = {}
    for process, words in of_folder(folder, proc):
        program = next((name for name in PROGRAMS if name in words), None)
        if program is not None:
            with suppress(OSError):  # it ended in the meantime
                found[program] = found.get(program, 0) + proportional_size(process)
    return found


def proportional_size(process: Path) -> int:
    """Bytes of ``/proc/PID``'s process: its own pages, and its share of those that others have too.

    Raises:
        OSError: it ended, or is another account's.
    """
    lines = (process / "smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * KIB


def growth(samples: Iterable[Sample], early: tuple[float, float], late: tuple[float, float]) -> dict[str, float]:
    """Mean size in the late time over mean size in the early one, by program, and of all of them under ``all``.

    A program that no sample saw in one of the two times has no figure; without samples there, ``all`` is NaN.
    """
    kept = list(samples)
    means = [_means([s for s in kept if start <= s.time <= end]) for start, end in (early, late)]
    before, after = means
    return {name: after[name] / before[name] if before.get(name) else float("nan") for name in after} or {
        "all": float("nan")
    }


def _means(samples: Sequence[Sample]) -> dict[str, float]:
    if not samples:
        return {}
    names = {name for sample in samples for name in sample.sizes}
    found = {name: statistics.fmean(sample.sizes.get(name, 0) for sample in samples) for name in sorted(names)}
    return {**found, "all": sum(found.values())}
