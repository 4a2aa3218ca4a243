"""Hubness: are a few rows among the nearest neighbours of everybody, and many rows of nobody? Needs no benchmark file.

N_k counts how often a row is among the k = 10 nearest (by cosine) of the other rows.
- ``skewness@10`` of N_k (Radovanovic et al., JMLR 11, 2010, equation 1).
- ``robin_hood@10`` (Feldbauer et al., ICBK 2018): sum |N_k - mean| / (2 sum N_k), the share of all the places in
  neighbour lists that would have to change hands for everybody to have as many; 0 even, towards 1 uneven.
- ``antihubs@10``: share of rows with N_k = 0; no search by neighbours ever finds them.

Less is better in all three. Up to ``_rows.SAMPLED_ROWS`` rows the search is complete. Of a larger table, so many,
drawn by the public seed, are searched among one another: were only the queries sampled, nearly every count would be
zero, and the figures would speak of the sample's size instead of the table. The interval is that of ``_rows``, from
searches among parts of the rows; the baseline is as many Gaussian rows, which in high dimension have hubs themselves.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.evaluation.neighbors import nearest
from common.evaluation.quality import _rows
from common.evaluation.quality._words import BASELINE
from common.evaluation.score import Score
from common.table import EmbeddingTable, FloatArray, IntArray

NEIGHBORS = 10
LEAST_ROWS = 4 * NEIGHBORS
METRICS = (f"skewness@{NEIGHBORS}", f"robin_hood@{NEIGHBORS}", f"antihubs@{NEIGHBORS}")
RANGES = ((-np.inf, np.inf), (0.0, 1.0), (0.0, 1.0))


class Hubness:
    """See the module."""

    name = "hubness"
    needs = "table"
    reads_training_data = False

    def score(self, table: EmbeddingTable, benchmark: Path | None, *, seed: int) -> list[Score]:
        """Three scores; ``benchmark`` is not used.

        Raises:
            EvaluationError: see ``_rows.usable_rows``; at least 40 rows.
        """
        kept = _rows.public_sample(_rows.usable_rows(table, self.name, least=LEAST_ROWS), seed)
        unit = _unit(table.vectors[kept])
        chance = _unit(np.random.default_rng(seed).standard_normal(unit.shape, dtype=np.float32))
        values, baseline = uneven(occurrences(unit)), uneven(occurrences(chance))
        errors = standard_errors(unit, seed)
        ends = [_rows.interval(*figure) for figure in zip(values, errors, *zip(*RANGES, strict=True), strict=True)]
        return [
            Score(
                task=self.name,
                metric=metric,
                value=float(values[i]),
                ci_low=ends[i][0],
                ci_high=ends[i][1],
                n=len(kept),
                coverage=len(kept) / len(table),
                higher_is_better=False,
                baseline_name=BASELINE,
                baseline_value=float(baseline[i]),
            )
            for i, metric in enumerate(METRICS)
        ]


def occurrences(unit: FloatArray, *, k: int = NEIGHBORS) -> IntArray:
    """N_k of each row: of how many other rows it is one of the ``k`` nearest, shape (V,)."""
    near = nearest(unit, unit, k=k, own=np.arange(len(unit))).rows
    return np.bincount(near.ravel(), minlength=len(unit))


def uneven(counts: IntArray) -> NDArray[np.float64]:
    """Skewness, Robin Hood index and share of zeros of the counts N_k. Constant counts have skewness 0."""
    mean = counts.mean()
    away = counts - mean
    spread = np.sqrt(np.mean(away**2))
    skewness = np.mean(away**3) / spread**3 if spread > 0 else 0.0
    return np.array([skewness, np.abs(away).sum() / (2 * counts.sum()), np.mean(counts == 0)])


def standard_errors(unit: FloatArray, seed: int) -> NDArray[np.float64]:
    """Standard errors of ``uneven``, of searches among parts of the rows."""
    return _rows.subsample_errors(lambda part: uneven(occurrences(unit[part])), len(unit), seed)


def _unit(vectors: FloatArray) -> FloatArray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


TASK = Hubness()
