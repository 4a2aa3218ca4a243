"""All rows or selected rows: textbook DP-SGD, lazy noise and row selection at equal epsilon, on one large client.

Words: word2vec on 94 novels, unit sentence or document of 15 sentences; delta 1e-6. Items: lists of
items, unit user, a generated population and MovieLens latest-small; delta 1e-5. A figure is the mean over noise seeds
(start, samples and noise all change) with Student's 95 % interval. The textbook runs where an array of the whole
table's size can be held for every unit. The sweep moves one setting at a time around the default of ``[privacy]``,
and once two together.
Two bars: lazy noise gives the textbook's quality within an interval that is 95 % for all comparisons together; and no
engine accounts more than the epsilon asked for.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from common.privacy import accounting
from simulations.benchmarks._harness import Row, at_most, reported
from simulations.benchmarks._rows_cases import Case, full_cases, quick_cases
from simulations.benchmarks._rows_report import advantage, agreement, figures
from simulations.benchmarks._rows_training import LAZY, SELECTED, TEXTBOOK, Outcome, Problem, Setting, run

if TYPE_CHECKING:
    from dp_accounting import DpEvent

THRESHOLDS, RATIOS, CLIP_FACTORS = (2.0, 3.0, 5.0, 6.0), (2.0, 3.0, 10.0), (0.25, 0.5, 2.0, 4.0)
BOTH = (3.0, 3.0)  # a threshold and a ratio below the default together
SWEEP_EPSILON = 8.0

Found = dict[tuple[float, str], list[Outcome]]


class RowsBenchmark:
    """See the module."""

    name = "rows"

    def run(self, quick: bool) -> list[Row]:
        """Every case, then the sweeps.

        Raises:
            DataError: no folder of benchmark data, and not ``quick``.
        """
        with tempfile.TemporaryDirectory() as name:
            found = [(case, _measured(case)) for case in (quick_cases if quick else full_cases)(Path(name).resolve())]
        rows = [row for case, outcomes in found for row in _compared(case, outcomes)]
        rows += _agreements(found, judged=not quick)
        return rows + [row for case, _ in found for row in _sweep(case, quick=quick)]


def _measured(case: Case) -> Found:
    methods = (TEXTBOOK, LAZY, SELECTED) if case.textbook else (LAZY, SELECTED)
    found = {}
    for epsilon in case.epsilons:
        sigma = noise_multiplier(case.problem, epsilon)
        for method in methods:
            found[epsilon, method] = _runs(case, Setting(method, sigma))
    return found


def _runs(case: Case, setting: Setting) -> list[Outcome]:
    return [run(case.problem, setting, seed) for seed in range(case.seeds)]


def noise_multiplier(problem: Problem, epsilon: float) -> float:
    """Sigma of one step at which all of them cost ``epsilon``."""
    return accounting.calibrate(
        lambda sigma: event([(sigma, problem.unit_rate, problem.steps)]), epsilon=epsilon, delta=problem.delta
    )


def event(history: Sequence[tuple[float, float, int]]) -> DpEvent:
    """What (noise multiplier, rate, steps) one after the other cost."""
    import dp_accounting as dp

    steps = [
        dp.SelfComposedDpEvent(
            dp.GaussianDpEvent(sigma) if rate == 1 else dp.PoissonSampledDpEvent(rate, dp.GaussianDpEvent(sigma)), count
        )
        for sigma, rate, count in history
    ]
    return steps[0] if len(steps) == 1 else dp.ComposedDpEvent(steps)


def _compared(case: Case, found: Found) -> Iterator[Row]:
    problem = case.problem
    for epsilon in case.epsilons:
        for measure, value in case.baseline(epsilon).items():
            yield reported(f"{problem.label}: {measure}, epsilon {epsilon:g}", value)
    for (epsilon, method), outcomes in found.items():
        yield from figures(f"{problem.label}: {method}, epsilon {epsilon:g}", outcomes)
    for epsilon in case.epsilons:
        pair = found[epsilon, SELECTED], found[epsilon, LAZY]
        yield from advantage(f"{problem.label}, epsilon {epsilon:g}", *pair)
        accounted = {outcome.accounted for outcomes in pair for outcome in outcomes}
        spent = max(accounting.epsilon(event(history), problem.delta) for history in accounted)
        yield at_most(f"{problem.label}, epsilon {epsilon:g}: accounted by the engines", spent, epsilon)


def _agreements(found: Sequence[tuple[Case, Found]], *, judged: bool) -> list[Row]:
    pairs = [
        (f"{case.problem.label}, epsilon {epsilon:g}", outcomes[epsilon, LAZY], outcomes[epsilon, TEXTBOOK])
        for case, outcomes in found
        if case.textbook
        for epsilon in case.epsilons
    ]
    comparisons = sum(len(lazy[0].scores) for _, lazy, _ in pairs)
    return [
        row
        for name, lazy, textbook in pairs
        for row in agreement(name, lazy, textbook, comparisons=comparisons, judged=judged)
    ]


def _sweep(case: Case, *, quick: bool) -> Iterator[Row]:
    """The default itself stands among the figures above."""
    if case.sweep:
        settings = _swept(noise_multiplier(case.problem, SWEEP_EPSILON))
        swept = [(name, setting) for name, setting in settings if name.startswith(case.sweep)]
        for name, setting in swept[::5] if quick else swept:
            yield from figures(f"sweep, {case.problem.label}: {name}", _runs(case, setting))


def _swept(sigma: float) -> Iterator[tuple[str, Setting]]:
    for threshold in THRESHOLDS:
        yield f"threshold {threshold:g}", Setting(SELECTED, sigma, threshold=threshold)
    for ratio in RATIOS:
        yield f"ratio {ratio:g}", Setting(SELECTED, sigma, ratio=ratio)
    threshold, ratio = BOTH
    yield f"threshold {threshold:g} and ratio {ratio:g}", Setting(SELECTED, sigma, threshold=threshold, ratio=ratio)
    for factor in CLIP_FACTORS:
        for method in (LAZY, SELECTED):
            yield f"clip x {factor:g}, {method}", Setting(method, sigma, clip_factor=factor)


BENCHMARK = RowsBenchmark()
