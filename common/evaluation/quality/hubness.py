"""Hubness: are a few rows among the nearest neighbours of everybody, and many rows of nobody? Needs no benchmark file.

N_k counts how often a row is among the k = 10 nearest (by cosine) of the other rows.
- ``skewness@10`` of N_k (Radovanovic et al., JMLR 11, 2010, equation 1).
- ``robin_hood@10`` (Feldbauer et al., ICBK 2018): sum |N_k - mean| / (2 sum N_k), the share of all the places in
  neighbour lists that would have to change hands for everybody to have as many; 0 even, towards 1 uneven.
- ``antihubs@10``: share of rows with N_k = 0; no search by neighbours ever finds them.

Less is better in all three. Up to ``_rows.SAMPLED_ROWS`` rows the search is complete. Of a larger table, so many,
drawn by the public seed, are searched among one another: were only the queries sampled, nearly every count would be
zero, and the figures would speak of the sample's size instead of the table. The interval is the percentile bootstrap
over rows; the baseline is a table of as many Gaussian rows, which in high dimension is not free of hubs itself.
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
RESAMPLES = 1_000
METRICS = (f"skewness@{NEIGHBORS}", f"robin_hood@{NEIGHBORS}", f"antihubs@{NEIGHBORS}")


class Hubness:
    """See the module."""

    name = "hubness"
    needs = "table"
    reads_training_data = False

    def score(self, table: EmbeddingTable, benchmark: Path | None, *, seed: int) -> list[Score]:
        """Three scores; ``benchmark`` is not used.

        Raises:
            EvaluationError: see ``_rows.usable_rows``; at least 20 rows.
        """
        kept = _rows.public_sample(_rows.usable_rows(table, self.name, least=2 * NEIGHBORS), seed)
        counts = occurrences(_unit(table.vectors[kept]))
        chance = occurrences(
            _unit(np.random.default_rng(seed).standard_normal((len(kept), table.dimensions), dtype=np.float32))
        )
        values, baseline = uneven(*histogram(counts))[0], uneven(*histogram(chance))[0]
        low, high = _interval(counts, seed)
        return [
            Score(
                task=self.name,
                metric=metric,
                value=float(values[i]),
                ci_low=float(low[i]),
                ci_high=float(high[i]),
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


def histogram(counts: IntArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distinct values of N_k, shape (L,), and how many rows have each, shape (1, L)."""
    levels, rows = np.unique(counts, return_counts=True)
    return levels.astype(np.float64), rows[None].astype(np.float64)


def uneven(levels: NDArray[np.float64], rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Skewness, Robin Hood index and share of zeros for each line of ``rows`` (B, L), shape (B, 3).

    The skewness of constant counts is 0: nobody is preferred.
    """
    n = rows.sum(axis=1, keepdims=True)
    mean = (rows @ levels)[:, None] / n
    away = levels[None] - mean
    second, third = ((rows * away**p).sum(axis=1) / n[:, 0] for p in (2, 3))
    flat = second <= 0
    skewness = np.where(flat, 0.0, third / np.where(flat, 1.0, second) ** 1.5)
    hoover = (rows * np.abs(away)).sum(axis=1) / (2 * n[:, 0] * mean[:, 0])
    absent = (rows * (levels == 0)).sum(axis=1) / n[:, 0]
    return np.stack([skewness, hoover, absent], axis=1)


def _interval(counts: IntArray, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Percentile interval over resampled rows; rows with one count are alike, so their numbers are drawn at once."""
    levels, rows = histogram(counts)
    drawn = np.random.default_rng(seed).multinomial(len(counts), rows[0] / len(counts), size=RESAMPLES)
    low, high = np.quantile(uneven(levels, drawn.astype(np.float64)), [0.025, 0.975], axis=0)
    return low, high


def _unit(vectors: FloatArray) -> FloatArray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


TASK = Hubness()
