"""Isotropy: do the rows spread over all directions, or crowd into a few? Needs no benchmark file.

- ``partition_isotropy`` (Mu and Viswanath, ICLR 2018, arXiv 1702.01417, section 2): min Z(c) / max Z(c), where Z(c) is
  the sum of exp(c . v) over the rows v, scaled to length 1, and c runs over the eigenvectors of the second moment and
  their opposites (an eigenvector's sign is arbitrary; code that takes one of the two, as it comes, finds about the
  square root where a common direction dominates).
- ``isoscore`` (Rudman et al., Findings of ACL 2022, arXiv 2108.07344, algorithm 1): its steps come to
  (P - 1) / (D - 1), where P = trace(C)^2 / trace(C^2) is the participation ratio of the covariance matrix C.
- ``mean_cosine``: of all pairs of different rows, in closed form. 0 is best: rows share no direction.

1 is perfectly isotropic in the first two. The baseline is a table of as many Gaussian rows.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.evaluation.quality import _rows
from common.evaluation.quality._words import BASELINE
from common.evaluation.score import Score
from common.table import EmbeddingTable, IntArray

PART_ROWS = 5_000  # of the parts that the error of partition_isotropy comes from: each has its own eigenvectors
METRICS = (("partition_isotropy", True, 0.0), ("isoscore", True, 0.0), ("mean_cosine", False, -1.0))


class Isotropy:
    """See the module."""

    name = "isotropy"
    needs = "table"
    reads_training_data = False

    def score(self, table: EmbeddingTable, benchmark: Path | None, *, seed: int) -> list[Score]:
        """Three scores; ``benchmark`` is not used.

        Raises:
            EvaluationError: see ``_rows.usable_rows``.
        """
        kept = _rows.usable_rows(table, self.name)
        rows = _rows.table_rows(table, kept)
        values, errors = measured(rows, seed, errors=True)
        errors[0] = partition_error(table, kept, seed)
        baseline, _ = measured(_rows.gaussian_rows(rows, seed), seed)
        scores = []
        for (metric, higher, least), value, error, chance in zip(METRICS, values, errors, baseline, strict=True):
            low, high = _rows.interval(value, error, least, 1.0)
            scores.append(
                Score(
                    task=self.name,
                    metric=metric,
                    value=float(value),
                    ci_low=low,
                    ci_high=high,
                    n=len(kept),
                    coverage=len(kept) / len(table),
                    higher_is_better=higher,
                    baseline_name=BASELINE,
                    baseline_value=float(chance),
                )
            )
        return scores


def measured(rows: _rows.Rows, seed: int, *, errors: bool = False) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The three figures in the order of ``METRICS``, and the standard errors of the last two (else NaN)."""
    raw = _rows.moments(rows, seed)
    unit = _rows.unit_rows(rows)
    directions = _rows.moments(unit, seed, centred=False)
    sums = partition_sums(unit, np.linalg.eigh(directions.products.sum(axis=0))[1])

    def statistic(chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
        cosine = mean_cosine(directions.sums[chosen].sum(axis=0), directions.counts[chosen].sum())
        return np.array([isoscore(raw.covariance(chosen)), cosine])

    every = _rows.all_groups(rows)
    values = np.array([sums.min() / sums.max(), *statistic(every)])
    if not errors:
        return values, np.full(3, np.nan)
    return values, np.array([np.nan, *_rows.half_sample_errors(statistic, len(every), seed)])


def partition_error(table: EmbeddingTable, kept: IntArray, seed: int) -> float:
    """Standard error of ``partition_isotropy``, of parts of the rows."""

    def statistic(part: IntArray) -> NDArray[np.float64]:
        unit = _rows.unit_rows(_rows.table_rows(table, kept[part]))
        own = np.concatenate(list(unit.read())).astype(np.float64)
        sums = partition_sums(unit, np.linalg.eigh(own.T @ own)[1])
        return np.array([sums.min() / sums.max()])

    return float(_rows.subsample_errors(statistic, len(kept), seed, most=PART_ROWS)[0])


def partition_sums(unit: _rows.Rows, axes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Z(c) for every column c of ``axes`` and its opposite, shape (2 D,)."""
    found = np.zeros((2, unit.dimensions))
    for piece in unit.read():
        powers = np.exp(piece.astype(np.float64) @ axes)
        found += powers.sum(axis=0), (1 / powers).sum(axis=0)
    return found.ravel()


def participation_ratio(covariance: NDArray[np.float64]) -> float:
    """trace(C)^2 / trace(C^2): among how many directions the variance is spread, 1 to D; NaN where there is none."""
    squares = float(np.sum(covariance**2))
    return float(np.trace(covariance) ** 2) / squares if squares > 0 else math.nan


def isoscore(covariance: NDArray[np.float64]) -> float:
    """IsoScore of rows with this covariance matrix, between 0 and 1."""
    return (participation_ratio(covariance) - 1) / (len(covariance) - 1)


def mean_cosine(total: NDArray[np.float64], n: float) -> float:
    """Mean cosine of all pairs of different rows, from the sum of the ``n`` unit rows."""
    return float((total @ total - n) / (n * (n - 1)))


TASK = Isotropy()
