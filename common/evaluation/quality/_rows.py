"""What the tasks that look at a table's shape share: which rows count, moments by group, intervals, Gaussian rows.

Rows of length zero have no direction: they are left out and lower the coverage.

Standard errors come from the same figure of random parts of the rows, drawn without replacement (delete-d jackknife,
Shao and Wu 1989): repeated rows, as the bootstrap draws them, would make any table look flatter than it is, and each
would be the other's nearest neighbour. Where sums are enough, the parts are halves, drawn in ``GROUPS`` random groups
whose sums are kept, so that one pass over the table will do; elsewhere they are at most ``SUBSAMPLE_ROWS`` rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.errors import EvaluationError
from common.table import EmbeddingTable, FloatArray, IntArray

GROUPS = 50
RESAMPLES = 200
LEAST_ROWS = 10
SUBSAMPLES = 40
SUBSAMPLE_ROWS = 1_000
SAMPLED_ROWS = 20_000  # rows of the public sample that neighbours are searched among
CHUNK_BYTES = 32 << 20
_Z95 = 1.959963984540054
SAME_DIRECTION = 1e-6  # difference of unit rows that rounding alone can make

Statistic = Callable[[NDArray[np.bool_]], NDArray[np.float64]]


@dataclass(frozen=True)
class Rows:
    """Rows that can be read again and again in pieces, so that no second copy of a large table is ever made.

    Attributes:
        count: number of rows.
        dimensions: D.
        read: starts a new pass: pieces of float32 rows, in the same order each time.
    """

    count: int
    dimensions: int
    read: Callable[[], Iterator[FloatArray]]


@dataclass(frozen=True)
class Moments:
    """Sums over each of G groups of rows, less ``pivot``.

    Attributes:
        counts: shape (G,).
        sums: shape (G, D).
        products: shape (G, D, D): sums of outer products.
        pivot: shape (D,): subtracted first, so that a mean far from the origin costs no digits.
    """

    counts: NDArray[np.float64]
    sums: NDArray[np.float64]
    products: NDArray[np.float64]
    pivot: NDArray[np.float64]

    def covariance(self, chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Covariance matrix of the rows of the chosen groups, shape (D, D)."""
        n = self.counts[chosen].sum()
        mean = self.sums[chosen].sum(axis=0) / n
        return (self.products[chosen].sum(axis=0) / n - np.outer(mean, mean)) * (n / (n - 1))


def usable_rows(table: EmbeddingTable, task: str, *, least: int = LEAST_ROWS) -> IntArray:
    """Numbers of the rows with a direction.

    Raises:
        EvaluationError: NaN or infinity in the table, fewer than ``least`` such rows or two columns, or all the
            same direction.
    """
    lengths = np.empty(len(table))
    for start, piece in _pieces(table.vectors):
        lengths[start : start + len(piece)] = np.einsum("nd,nd->n", piece, piece, dtype=np.float64)
    if not np.isfinite(lengths).all():
        raise EvaluationError(f"{task}: NaN or infinity in the table", remedy="Make the table again: it is damaged.")
    kept = np.flatnonzero(lengths > 0)
    if len(kept) < least or table.dimensions < 2:
        raise EvaluationError(
            f"{task} needs {least} rows other than zero and 2 columns; the table has {len(kept)} and "
            f"{table.dimensions}",
            remedy="Choose a larger table.",
        )
    unit = unit_rows(table_rows(table, kept))
    first = next(unit.read())[0]
    if max(float(np.abs(piece - first).max()) for piece in unit.read()) < SAME_DIRECTION:
        raise EvaluationError(f"{task}: all rows point the same way", remedy="Check that training did anything.")
    return kept


def public_sample(rows: IntArray, seed: int, *, most: int = SAMPLED_ROWS) -> IntArray:
    """At most ``most`` of the rows, drawn by the public seed, in ascending order."""
    if len(rows) <= most:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))


def table_rows(table: EmbeddingTable, kept: IntArray) -> Rows:
    """The given rows of a table."""
    size = _lines(table.dimensions)

    def read() -> Iterator[FloatArray]:
        for start in range(0, len(kept), size):
            yield table.vectors[kept[start : start + size]]

    return Rows(len(kept), table.dimensions, read)


def gaussian_rows(like: Rows, seed: int) -> Rows:
    """As many rows of independent standard normals: what no training at all has."""
    size = _lines(like.dimensions)

    def read() -> Iterator[FloatArray]:
        rng = np.random.default_rng(seed)
        for start in range(0, like.count, size):
            yield rng.standard_normal((min(size, like.count - start), like.dimensions), dtype=np.float32)

    return Rows(like.count, like.dimensions, read)


def unit_rows(rows: Rows) -> Rows:
    """The same rows, each scaled to length 1."""

    def read() -> Iterator[FloatArray]:
        for piece in rows.read():
            yield piece / np.linalg.norm(piece, axis=1, keepdims=True)

    return Rows(rows.count, rows.dimensions, read)


def grouped(rows: Rows, seed: int) -> Iterator[tuple[NDArray[np.float64], list[IntArray]]]:
    """Pieces in double precision, with the places in the piece that belong to each group."""
    group = np.random.default_rng(seed).permutation(rows.count) % group_count(rows.count)
    start = 0
    for piece in rows.read():
        own = group[start : start + len(piece)]
        start += len(piece)
        order = np.argsort(own, kind="stable")
        bounds = np.searchsorted(own[order], np.arange(1, group_count(rows.count)))
        yield piece.astype(np.float64), np.split(order, bounds)


def group_count(rows: int) -> int:
    """How many groups so many rows are drawn in; even, so that they have halves."""
    return min(GROUPS, rows // 2 * 2)


def moments(rows: Rows, seed: int, *, centred: bool = True) -> Moments:
    """One pass over the rows; ``centred`` takes the first piece's mean as the pivot, else the pivot is zero."""
    groups, d = group_count(rows.count), rows.dimensions
    pivot = np.zeros(d)
    if centred:
        pivot = next(rows.read()).mean(axis=0, dtype=np.float64)
    found = Moments(np.zeros(groups), np.zeros((groups, d)), np.zeros((groups, d, d)), pivot)
    for piece, members in grouped(rows, seed):
        piece -= pivot
        for g, places in enumerate(members):
            own = piece[places]
            found.counts[g] += len(own)
            found.sums[g] += own.sum(axis=0)
            found.products[g] += own.T @ own
    return found


def all_groups(rows: Rows) -> NDArray[np.bool_]:
    """Every group chosen."""
    return np.ones(group_count(rows.count), dtype=bool)


def half_sample_errors(statistic: Statistic, groups: int, seed: int) -> NDArray[np.float64]:
    """Standard errors of what ``statistic`` says of the chosen groups; NaN where it is NaN of some half."""
    rng = np.random.default_rng(seed)
    halves = np.zeros((RESAMPLES, groups), dtype=bool)
    halves[:, : groups // 2] = True
    found = np.array([statistic(half) for half in rng.permuted(halves, axis=1)])
    return found.std(axis=0)


def subsample_errors(
    statistic: Callable[[IntArray], NDArray[np.float64]], rows: int, seed: int, *, most: int = SUBSAMPLE_ROWS
) -> NDArray[np.float64]:
    """Standard errors of a figure of ``rows`` rows from the same figure of parts: half of them, at most ``most``."""
    rng = np.random.default_rng(seed)
    size = min(rows // 2, most)
    found = np.array([statistic(np.sort(rng.choice(rows, size, replace=False))) for _ in range(SUBSAMPLES)])
    return found.std(axis=0) * np.sqrt(size / (rows - size))


def interval(value: float, error: float, low: float, high: float) -> tuple[float, float]:
    """95 % normal interval, cut to the metric's range; NaN where the error is."""
    return float(np.maximum(low, value - _Z95 * error)), float(np.minimum(high, value + _Z95 * error))


def _lines(dimensions: int) -> int:
    return max(1, CHUNK_BYTES // (8 * dimensions))


def _pieces(vectors: FloatArray) -> Iterator[tuple[int, FloatArray]]:
    size = _lines(vectors.shape[1])
    return ((start, vectors[start : start + size]) for start in range(0, len(vectors), size))
