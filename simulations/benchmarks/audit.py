"""The audit on trial: correct and broken mechanisms, time, and how many rows of a client its messages tell.

Mechanisms: word2vec, whole clients, central noise, four rounds of all clients or 32 of a tenth, 1,000 canaries of each
of four designs; ``found`` counts audits in which any registered test rejects the claim. The default scenario and the
checks of conformance are timed. Row support is the F1 of guessing a client's rows from its messages, against guessing
as many of the most popular ones.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from common.evaluation.conformance import Bench
from common.evaluation.conformance.checks import COORDINATOR
from simulations.audit.scenario import audit_scenario
from simulations.benchmarks import _audit_mechanisms as trial
from simulations.benchmarks import _audit_rows
from simulations.benchmarks._harness import Row, at_least, at_most, reported, unjudged
from simulations.progress import Silent
from simulations.runs import find_scenario

EPSILONS = (1.0, 3.0, 8.0)
SEEDS = (1, 2)
ROUNDS, CANARIES = 4, 1000
QUICK_CANARIES = 100
MOST_AUDIT_S, MOST_CONFORMANCE_S = 180.0, 1.0
_SLACK = 0.02  # of an F1, over chance


class Audit:
    """See the module."""

    name = "audit"

    def run(self, quick: bool) -> list[Row]:
        """All of it; ``quick``: one broken and the correct mechanism, few canaries, one epsilon, no bar."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            if quick:
                some = trial.mechanisms()[:2]
                return unjudged(_mechanisms(folder, some, (8.0,), (1,), canaries=QUICK_CANARIES))
            rows = [*_times(folder), *_row_support(folder)]
            return rows + list(_mechanisms(folder, trial.mechanisms(), EPSILONS, SEEDS, canaries=CANARIES))


def _mechanisms(
    folder: Path,
    mechanisms: tuple[trial.Mechanism, ...],
    epsilons: tuple[float, ...],
    seeds: tuple[int, ...],
    *,
    canaries: int,
) -> Iterator[Row]:
    for mechanism in mechanisms:
        for epsilon in epsilons:
            found = [
                trial.audit(mechanism, epsilon, folder=folder, rounds_claimed=ROUNDS, canaries=canaries, seed=seed)
                for seed in seeds
            ]
            yield from _rows(mechanism, epsilon, found)
        if mechanism.by_sampler is not None:
            measure, seen = (
                f"{mechanism.name}: found by T4, of 1",
                float(trial.found_by_sampler(mechanism, epsilons[0])),
            )
            yield at_least(measure, seen, 1) if mechanism.by_sampler else at_most(measure, seen, 0)


def _rows(mechanism: trial.Mechanism, epsilon: float, found: list[trial.Audited]) -> Iterator[Row]:
    title = f"{mechanism.name}, claimed {epsilon:g}"
    for design in mechanism.designs:
        shown = {
            "one-run f-DP bound, all sums": [one.sums[design] for one in found],
            "one-run f-DP bound, final table": [one.table[design] for one in found],
            "threshold test bound, all sums": [one.gdp[design] for one in found],
        }
        for test, bounds in shown.items():
            if np.isfinite(bounds).all():  # some designs are not seen in the table
                yield reported(f"{title}, {design} canaries: {test}", float(np.median(bounds)))
    flagged, runs = sum(one.flagged for one in found), len(found)
    measure = f"{title}: found, of {runs}"
    if mechanism.found is None:
        yield reported(measure, flagged)
    else:
        yield at_least(measure, flagged, runs) if mechanism.found else at_most(measure, flagged, 0)


def _times(folder: Path) -> Iterator[Row]:
    started = time.monotonic()
    result = audit_scenario(find_scenario(None), reporter=Silent())
    yield at_most("audit of the default scenario, seconds", time.monotonic() - started, MOST_AUDIT_S)
    yield at_most("default scenario: violations", float(result.outcome[0] == "VIOLATION FOUND"), 0)
    bench = Bench()
    started = time.monotonic()
    for check in COORDINATOR:
        check.run(bench, 0)
    yield at_most("conformance of one mechanism, seconds", time.monotonic() - started, MOST_CONFORMANCE_S)


def _row_support(folder: Path) -> Iterator[Row]:
    for name, leak in _audit_rows.leaks(folder / "rows"):
        measure = f"row support, {name}: F1"
        if name.startswith("unprotected"):
            yield at_least(measure, leak.value, 1.0)
        else:
            yield at_most(measure, leak.value, leak.chance_value + _SLACK)
        yield reported(f"row support, {name}: F1 of the most popular rows", leak.chance_value)


BENCHMARK = Audit()
