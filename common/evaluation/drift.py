"""Drift: how far the table of one release has moved from that of another, over the keys that both have.

Coordinates mean nothing by themselves: a rotated table answers every query as before. So tables are compared after the
best rotation, or by their neighbour lists.
- ``procrustes_residual``: ||A - B R|| / ||A|| in Frobenius norm for the best orthogonal R (Schoenemann 1966), all rows
  scaled to length 1; 0 when one is the other turned, at most sqrt(2). Tables of different dimension are compared too,
  the smaller one with columns of zeros. It moves little even when neighbours do: read it beside the next one.
- ``procrustes_cosine``: mean cosine of a row with its counterpart after that rotation; residual^2 = 2 (1 - this).
- ``neighbor_overlap@10``: share of a key's 10 nearest in the one table that are among its 10 nearest in the other,
  candidates being the shared keys; of more than ``QUERIES`` shared keys, that many are asked, drawn by the seed.

Two trainings of equal quality do not reach an overlap of 1: 0.45 to 0.69 was measured between such tables.
The baseline of the first two is the same figure with the rows of B dealt out to the wrong keys, of the overlap chance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.errors import EvaluationError
from common.evaluation.neighbors import nearest
from common.evaluation.quality import _rows
from common.evaluation.score import Score
from common.table import EmbeddingTable, FloatArray, IntArray

NEIGHBORS = 10
QUERIES = 2_000
RESAMPLES = 1_000
TASK = "drift"


@dataclass(frozen=True)
class Drift:
    """What changed between two tables.

    Attributes:
        shared: number of keys that both have.
        added: number of keys that only the second has.
        removed: number of keys that only the first has.
        scores: see the module; coverage is the share of all keys of both that is behind the figure.
    """

    shared: int
    added: int
    removed: int
    scores: list[Score]


def drift(before: EmbeddingTable, after: EmbeddingTable, *, seed: int = 0) -> Drift:
    """Compare two tables key by key.

    Raises:
        EvaluationError: fewer than 20 shared keys with a direction in both tables, or no more of them than dimensions
            (any two tables then fit), or NaN or infinity, or rows that all point the same way.
    """
    keys = [key for key in before.keys if key in after.row_of]
    first, second = (_shared(table, keys) for table in (before, after))
    both = np.flatnonzero((np.abs(first).max(axis=1, initial=0) > 0) & (np.abs(second).max(axis=1, initial=0) > 0))
    least = max(2 * NEIGHBORS, max(before.dimensions, after.dimensions) + 1)
    if len(both) < least:
        raise EvaluationError(
            f"the tables share {len(both)} keys with a direction in both; {least} are needed",
            remedy="Compare releases of one vocabulary; --table chooses among a release's tables.",
        )
    first, second = _checked(first[both]), _checked(second[both])
    every = len(before) + len(after) - len(keys)
    aligned = _alignment(first, second, len(both) / every, seed)
    overlap = _overlap_score(first, second, every, seed)
    return Drift(len(keys), len(after) - len(keys), len(before) - len(keys), [*aligned, overlap])


def cross_products(first: FloatArray, second: FloatArray, seed: int) -> NDArray[np.float64]:
    """A^T B over each random group of rows, shape (G, D of A, D of B), in double precision."""
    groups = _rows.group_count(len(first))
    group = np.random.default_rng(seed).permutation(len(first)) % groups
    found = np.zeros((groups, first.shape[1], second.shape[1]))
    size = max(1, _rows.CHUNK_BYTES // (16 * max(first.shape[1], second.shape[1])))
    for start in range(0, len(first), size):
        piece = slice(start, start + size)
        left, right = first[piece].astype(np.float64), second[piece].astype(np.float64)
        for g in range(groups):
            own = group[piece] == g
            found[g] += left[own].T @ right[own]
    return found


def aligned_cosine(products: NDArray[np.float64], n: float) -> float:
    """Mean cosine of ``n`` unit rows with their counterparts after the best rotation: nuclear norm of A^T B over n."""
    return min(1.0, float(np.linalg.svd(products, compute_uv=False).sum()) / n)


def residual(cosine: float) -> float:
    """||A - B R|| / ||A|| from the mean cosine after rotation."""
    return math.sqrt(max(0.0, 2 * (1 - cosine)))


def overlaps(first: FloatArray, second: FloatArray, asked: IntArray, *, k: int = NEIGHBORS) -> NDArray[np.float64]:
    """Share of common members of the two lists of ``k`` nearest of each asked row, shape (Q,)."""
    near, other = (nearest(unit[asked], unit, k=k, own=asked).rows for unit in (first, second))
    return np.array([len(np.intersect1d(a, b, assume_unique=True)) / k for a, b in zip(near, other, strict=True)])


def _alignment(first: FloatArray, second: FloatArray, coverage: float, seed: int) -> list[Score]:
    products = cross_products(first, second, seed)
    sizes = np.bincount(np.arange(len(first)) % len(products)).astype(np.float64)

    def statistic(chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
        cosine = aligned_cosine(products[chosen].sum(axis=0), sizes[chosen].sum())
        return np.array([residual(cosine), cosine])

    values = statistic(np.ones(len(products), dtype=bool))
    errors = _rows.half_sample_errors(statistic, len(products), seed)
    dealt = np.random.default_rng(seed).permutation(len(second))
    chance = aligned_cosine(cross_products(first, second[dealt], seed).sum(axis=0), len(first))
    told = (("procrustes_residual", False, math.sqrt(2), residual(chance)), ("procrustes_cosine", True, 1.0, chance))
    scores = []
    for (metric, higher, most, baseline), value, error in zip(told, values, errors, strict=True):
        low, high = _rows.interval(value, error, 0.0, most)
        scores.append(
            Score(
                task=TASK,
                metric=metric,
                value=float(value),
                ci_low=low,
                ci_high=high,
                n=len(first),
                coverage=coverage,
                higher_is_better=higher,
                baseline_name="rows dealt out anew",
                baseline_value=baseline,
            )
        )
    return scores


def _overlap_score(first: FloatArray, second: FloatArray, every: int, seed: int) -> Score:
    asked = _rows.public_sample(np.arange(len(first)), seed, most=QUERIES)
    found = overlaps(first, second, asked)
    rng = np.random.default_rng(seed)
    means = [found[rng.integers(len(found), size=len(found))].mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(means, [0.025, 0.975])
    return Score(
        task=TASK,
        metric=f"neighbor_overlap@{NEIGHBORS}",
        value=float(found.mean()),
        ci_low=float(low),
        ci_high=float(high),
        n=len(asked),
        coverage=len(asked) / every,
        higher_is_better=True,
        baseline_name="chance",
        baseline_value=NEIGHBORS / (len(first) - 1),
    )


def _shared(table: EmbeddingTable, keys: list[str]) -> FloatArray:
    rows = table.vectors[np.array([table.row_of[key] for key in keys], dtype=np.int64)]
    if not np.isfinite(rows).all():
        raise EvaluationError("NaN or infinity in a table: it has no neighbours", remedy="Make the release again.")
    return rows


def _checked(rows: FloatArray) -> FloatArray:
    """Rows scaled to length 1. Raises ``EvaluationError`` where all are then the same."""
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    if float(np.abs(unit - unit[0]).max()) < _rows.SAME_DIRECTION:
        raise EvaluationError("all rows of a table point the same way", remedy="Check that training did anything.")
    return unit
