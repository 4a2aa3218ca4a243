"""CPU time and memory of one private training step on embedding tables, beside training without privacy and Opacus.

Skip-gram with two tables: the mean of a unit's L centre rows against six context rows, row numbers by Zipf's law.
Sides: torch's sparse gradients without privacy; ours with every row noised (lazily) and with selected rows; Opacus'
ghost clipping. One thread, a process for each side and size, sides in turns, medians of CPU time over the last two
thirds of the steps. Ratios compare processes of one run; a machine that others use slows all sides alike.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import DependencyError
from simulations.benchmarks._dp_step_side import StepJob
from simulations.benchmarks._harness import Row, at_least, at_most, reported

MODULE = "simulations.benchmarks._dp_step_side"
ROOT = Path(__file__).resolve().parents[2]
STEPS, GHOST_STEPS, LARGE_STEPS = 18, 3, 9
REPETITIONS = 3
TIMEOUT_S = 1200.0
GIB = 2**30
GRID = [(10_000, 64, 256, 1), (10_000, 128, 256, 20), (100_000, 64, 1024, 20), (100_000, 128, 1024, 100)]
MAIN = (1_000_000, 128, 1024, 20)
SHORT, LONG = 100_000, 10_000_000


class DpStepBenchmark:
    """See the module."""

    name = "dp_step"

    def run(self, quick: bool) -> list[Row]:
        if quick:
            return _sides((500, 8, 16, 4), ("sgd", "dense", "selected", "ghost"), repetitions=1, judged=False)
        rows: list[Row] = []
        for size in GRID:
            rows += _sides(size, ("sgd", "dense", "selected", "ghost"), repetitions=1, judged=False)
        rows += _sides(MAIN, ("sgd", "dense", "selected", "ghost"), repetitions=REPETITIONS, judged=True)
        return rows + _growth() + _large()


def _sides(size: tuple[int, int, int, int], sides: tuple[str, ...], *, repetitions: int, judged: bool) -> list[Row]:
    """Milliseconds of a step of every side at one size, and the ratios."""
    name = "V={} D={} B={} L={}".format(*size)
    found = [{side: _measured(side, size) for side in sides} for _ in range(repetitions)]
    seconds = {side: np.array([result[side]["seconds"] for result in found]) for side in sides}
    rows = [reported(f"{name}: CPU ms a step, {side}", 1e3 * float(np.median(v))) for side, v in seconds.items()]
    bars = {"selected": (2.0, 150.0), "dense": (3.5, 75.0)}
    for side, (most, least) in bars.items():
        slower = float(np.median(seconds[side] / seconds["sgd"]))
        faster = float(np.median(seconds["ghost"] / seconds[side]))
        names = f"{name}: {side} / sgd", f"{name}: ghost / {side}"
        rows += [at_most(names[0], slower, most), at_least(names[1], faster, least)] if judged else []
        rows += [] if judged else [reported(names[0], slower), reported(names[1], faster)]
    tables = 2 * 4 * size[0] * size[1]
    for side in sides:
        share = float(np.median([result[side]["peak_bytes"] for result in found])) / tables
        measure = f"{name}: peak memory over the tables, {side}"
        rows.append(at_most(measure, share, 1.3) if judged and side in bars else reported(measure, share))
    return rows


def _growth() -> list[Row]:
    """A step on a table a hundred times longer."""
    cost: dict[tuple[str, int], list[float]] = {}
    for _ in range(REPETITIONS):
        for side in ("selected", "dense"):
            for length in (SHORT, LONG):
                result = _measured(side, (length, *MAIN[1:]), LARGE_STEPS)
                cost.setdefault((side, length), []).append(result["seconds"])
    ratios = {s: float(np.median(np.array(cost[s, LONG]) / np.array(cost[s, SHORT]))) for s in ("selected", "dense")}
    return [at_most(f"cost of a step, V={LONG} / V={SHORT}, {side}", ratio, 1.3) for side, ratio in ratios.items()]


def _large() -> list[Row]:
    """The longest table: memory of the whole process."""
    found = {side: _measured(side, (LONG, *MAIN[1:]), LARGE_STEPS) for side in ("selected", "dense")}
    return [at_most(f"V={LONG}: process, GiB, {s}", r["process_bytes"] / GIB, 11.0) for s, r in found.items()]


def _measured(side: str, size: tuple[int, int, int, int], steps: int = STEPS) -> dict[str, Any]:
    job = StepJob(side, *size, steps=GHOST_STEPS if side == "ghost" else steps)
    command = [sys.executable, "-m", MODULE, json.dumps(asdict(job))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
        return dict(json.loads(done.stdout.strip().splitlines()[-1]))
    except (subprocess.SubprocessError, OSError, json.JSONDecodeError, IndexError) as error:
        tail = "\n".join(str(getattr(error, "stderr", "") or error).strip().splitlines()[-5:])
        raise DependencyError(f"the side {side} of dp_step failed:\n{tail}") from None


BENCHMARK = DpStepBenchmark()
