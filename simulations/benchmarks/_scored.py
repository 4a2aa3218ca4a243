"""Rows of the privacy table: a figure with its interval beside its baselines, and where it stops beating them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from common.evaluation.score import Score
from simulations.benchmarks._harness import Row, at_least

EPSILONS: tuple[float | None, ...] = (None, 8.0, 3.0, 1.0)
SMALLER: tuple[float, ...] = (0.3, 0.1)
MUST_BEAT = 8.0  # at this epsilon a method has to beat its baseline clearly


@dataclass(frozen=True)
class Figure:
    """One score of one method at one epsilon (``None``: without privacy).

    Attributes:
        target: the value that the method has to reach, where one was set beforehand; else NaN.
        baseline: what a table that has learned nothing reaches.
        barred: whether the method has to beat it at ``MUST_BEAT``.
    """

    method: str
    epsilon: float | None
    measure: str
    score: Score
    baseline: float
    target: float = math.nan
    barred: bool = True

    @property
    def beats(self) -> bool:
        """Whether the whole 95 % interval lies above the baseline."""
        return self.score.ci_low > self.baseline


def at_epsilons(figures_at: Callable[[float | None], list[Figure]]) -> Iterator[Figure]:
    """Figures at every epsilon, then at ``SMALLER`` ones for as long as some figure still beats its baseline."""
    found: list[Figure] = []
    for epsilon in (*EPSILONS, *SMALLER):
        if epsilon in SMALLER and not any(figure.beats for figure in found):
            return
        found = figures_at(epsilon)
        yield from found


def rows_of(figures: list[Figure]) -> list[Row]:
    """Every figure, then for every method and measure the smallest epsilon that still beats the baseline."""
    return [row for figure in figures for row in _rows(figure)] + _limits(figures)


def _rows(figure: Figure) -> list[Row]:
    score, name = figure.score, f"{figure.method}: {figure.measure}, epsilon {_word(figure.epsilon)}"
    beside = f"95 % {score.ci_low:.3f} to {score.ci_high:.3f}, baseline {figure.baseline:.3f}, n {score.n}"
    bar = figure.barred and figure.epsilon == MUST_BEAT
    rows = [Row(f"{name} ({beside})", score.value, "interval > baseline" * bar, figure.beats if bar else None)]
    if not math.isnan(figure.target):
        rows.append(at_least(f"{name}, against its target", score.value, figure.target))
    return rows


def _limits(figures: list[Figure]) -> list[Row]:
    groups: dict[str, dict[float, bool]] = {}
    for figure in figures:
        if figure.epsilon is not None:
            name = f"{figure.method}: {figure.measure}, smallest epsilon measured that beats the baseline"
            groups.setdefault(name, {})[figure.epsilon] = figure.beats
    return [Row(name, smallest_that_beats(beats), "", None) for name, beats in groups.items()]


def smallest_that_beats(beats: Mapping[float, bool]) -> float:
    """The smallest epsilon from which on every measured one beats the baseline; infinity when the largest fails."""
    smallest = math.inf
    for epsilon in sorted(beats, reverse=True):
        if not beats[epsilon]:
            return smallest
        smallest = epsilon
    return smallest


def _word(epsilon: float | None) -> str:
    return "none" if epsilon is None else f"{epsilon:g}"
