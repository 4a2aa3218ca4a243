"""Figures of the benchmark rows: means over seeds with their intervals, and whether two methods agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from simulations.benchmarks._harness import Row, reported
from simulations.benchmarks._rows_training import Outcome

LEVEL = 0.95


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and 95 % interval (Student's t) over independent runs; NaN bounds for fewer than two."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, float("nan"), float("nan")
    half = float(stats.t.ppf((1 + LEVEL) / 2, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return mean, mean - half, mean + half


def difference(left: Sequence[float], right: Sequence[float], *, comparisons: int = 1) -> tuple[float, float]:
    """``mean(left) - mean(right)`` and the half-width of its interval (Welch), 95 % for all comparisons together."""
    squares = [np.var(values, ddof=1) / len(values) for values in (left, right)]
    total = max(float(sum(squares)), 1e-300)
    freedom = total**2 / max(
        sum(float(s) ** 2 / (len(v) - 1) for s, v in zip(squares, (left, right), strict=True)), 1e-300
    )
    width = float(stats.t.ppf(1 - (1 - LEVEL) / (2 * comparisons), max(freedom, 1.0)) * np.sqrt(total))
    return float(np.mean(left) - np.mean(right)), width


def figures(name: str, outcomes: Sequence[Outcome]) -> list[Row]:
    """Every score with its interval over the seeds, and how rows were used."""
    rows = []
    for measure in outcomes[0].scores:
        mean, low, high = mean_interval([outcome.scores[measure] for outcome in outcomes])
        beside = f"95 % {low:.4f} to {high:.4f}, {len(outcomes)} seeds"
        rows.append(reported(f"{name}: {measure} ({beside})", mean))
    for use in outcomes[0].rows:
        rows.append(reported(f"{name}: rows, {use}", float(np.mean([outcome.rows[use] for outcome in outcomes]))))
    return rows


def advantage(name: str, selected: Sequence[Outcome], lazy: Sequence[Outcome]) -> list[Row]:
    """Selected less lazily noised rows, paired by seed: both have the start and the samples of their seed."""
    rows = []
    for measure in lazy[0].scores:
        gains = [one.scores[measure] - other.scores[measure] for one, other in zip(selected, lazy, strict=True)]
        mean, low, high = mean_interval(gains)
        rows.append(reported(f"{name}: {measure}, selected - all rows (95 % {low:+.4f} to {high:+.4f}, paired)", mean))
    return rows


def agreement(
    name: str, lazy: Sequence[Outcome], textbook: Sequence[Outcome], *, comparisons: int, judged: bool
) -> list[Row]:
    """Lazily noised against textbook: the interval of the difference has to cover zero for every measure."""
    rows = []
    for measure in lazy[0].scores:
        values: Mapping[str, list[float]] = {
            side: [outcome.scores[measure] for outcome in found]
            for side, found in (("lazy", lazy), ("textbook", textbook))
        }
        found, width = difference(values["lazy"], values["textbook"], comparisons=comparisons)
        bar = f"within {width:.3g}, its interval" if judged else ""
        label = f"{name}: {measure}, all rows lazily - textbook"
        rows.append(Row(label, found, bar, abs(found) <= width if judged else None))
    return rows
