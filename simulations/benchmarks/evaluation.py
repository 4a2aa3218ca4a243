"""Every quality task on a table of a million rows: seconds, and peak memory of its process against 4 GiB.

One process a task, so that no task profits from what another has left in memory. The table of random vectors has 64
columns; benchmark files name a thousand pairs, labels, edges or users of it. Rankings of all rows, neighbour lists and
moments are what costs; the figures themselves are tested elsewhere.
"""

from __future__ import annotations

from dataclasses import asdict

from common.evaluation import quality
from simulations.benchmarks._evaluation_side import DRIFT, NEIGHBORS, TABLE_ALONE, EvaluationJob, measure
from simulations.benchmarks._harness import Row, at_most, reported
from simulations.benchmarks._peers import run_ours

MODULE = "simulations.benchmarks._evaluation_side"
ROWS, DIMENSION, ITEMS = 1_000_000, 64, 1_000
QUICK_ROWS, QUICK_DIMENSION, QUICK_ITEMS = 1_500, 8, 60
MOST_GIB = 4.0
GIB = 2**30


class Evaluation:
    """See the module."""

    name = "evaluation"

    def run(self, quick: bool) -> list[Row]:
        """Full: some minutes. Quick: a small table in this process, whose memory says nothing about the tasks."""
        rows: list[Row] = []
        for task in tasks():
            if quick:
                found = measure(EvaluationJob(task, QUICK_ROWS, QUICK_DIMENSION, QUICK_ITEMS))
            else:
                found = run_ours(MODULE, asdict(EvaluationJob(task, ROWS, DIMENSION, ITEMS)))
            rows += listed(task, found, judged=not quick)
        return rows


def tasks() -> list[str]:
    """What is measured: the table, every task that scores tables, drift and the neighbour search."""
    scored = [name for name in quality.names() if quality.load(name).needs == "table"]
    return [TABLE_ALONE, *scored, DRIFT, NEIGHBORS]


def listed(task: str, found: dict[str, float], *, judged: bool) -> list[Row]:
    """Peak memory and seconds of one task."""
    peak = found["peak_bytes"] / GIB
    measure_name = f"{task}: peak memory of the process, GiB"
    return [
        at_most(measure_name, peak, MOST_GIB) if judged else reported(measure_name, peak),
        reported(f"{task}: seconds", found["seconds"]),
    ]


BENCHMARK = Evaluation()
