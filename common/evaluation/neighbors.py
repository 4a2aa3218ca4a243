"""Exact nearest neighbours by cosine, in pieces: no more than ``MAX_SCORE_BYTES`` of scores at a time.

A fast product in single precision proposes a few rows more than are wanted (``faiss`` where it is installed, ``numpy``
otherwise); their cosines are computed anew in double precision and sorted, equal ones by row number. Where rounding
could have kept a neighbour out of the proposal, the query is searched again with room for the rounding. So the answer
is the same with either engine, on every machine, and with any size of the pieces.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.errors import DependencyError, EvaluationError
from common.table import FloatArray, IntArray

MAX_SCORE_BYTES = 128 << 20
MAX_EXACT_BYTES = 64 << 20
SPARE = 8  # rows proposed beyond those wanted
FAISS_QUERIES = 2_000  # from here on faiss takes half as long as numpy; below 1,000 it takes five times as long
ENGINES = ("auto", "numpy", "faiss")
_UNIT_ROUNDOFF = 2.0**-24


@dataclass(frozen=True)
class Neighbors:
    """The nearest of each query, best first.

    Attributes:
        rows: shape (Q, k), row numbers; equal cosines stand in the order of their rows.
        cosines: shape (Q, k), float64, falling along each line.
    """

    rows: IntArray
    cosines: NDArray[np.float64]


def nearest(
    queries: FloatArray, rows: FloatArray, *, k: int, own: IntArray | None = None, engine: str = "auto"
) -> Neighbors:
    """The ``k`` rows with the largest inner product with each query.

    Args:
        queries: unit vectors, float32, shape (Q, D).
        rows: unit vectors, float32, shape (V, D).
        own: for each query the row that is the query itself and is no neighbour; shape (Q,).
        engine: ``numpy``, ``faiss`` (extra ``faiss``), or ``auto``: the second where it is installed and faster.

    Raises:
        EvaluationError: fewer than ``k`` rows (beside the query itself), or NaN or infinity among the numbers.
        DependencyError: ``faiss`` is asked for and not installed.
    """
    offered = len(rows) - (own is not None)
    if not 1 <= k <= offered:
        raise EvaluationError(f"{k} neighbours are asked for and {max(offered, 0)} rows can be one")
    largest = float(_lengths(rows).max()) * float(_lengths(queries).max(initial=0.0))
    if not np.isfinite(largest):
        raise EvaluationError("NaN or infinity among the vectors: they have no neighbours")
    error = 2 * (rows.shape[1] + 1) * _UNIT_ROUNDOFF * largest  # of a float32 inner product, with room to spare
    count = min(k + SPARE + (own is not None), len(rows))
    proposals = _from_faiss if uses_faiss(engine, len(queries)) else _from_numpy
    found = Neighbors(np.empty((len(queries), k), np.int64), np.empty((len(queries), k)))
    for piece, proposed, floor in proposals(queries, rows, count):
        itself = None if own is None else own[piece]
        cosines = _exact(queries[piece], rows, proposed)
        if itself is not None:
            cosines[proposed == itself[:, None]] = -np.inf
        order = np.lexsort((proposed, -cosines), axis=1)[:, :k]
        found.rows[piece] = np.take_along_axis(proposed, order, axis=1)
        found.cosines[piece] = np.take_along_axis(cosines, order, axis=1)
        if count < len(rows):
            for i in np.flatnonzero(found.cosines[piece, -1] <= floor + error) + piece.start:
                _search_again(found, i, (queries[i], rows), -1 if own is None else int(own[i]), error)
    return found


def uses_faiss(engine: str, queries: int) -> bool:
    """Whether ``engine`` means ``faiss`` for so many queries.

    Raises:
        DependencyError: it does, and ``faiss`` is not installed.
        EvaluationError: there is no such engine.
    """
    if engine not in ENGINES:
        raise EvaluationError(f"no engine {engine!r}", remedy=f"Engines: {', '.join(ENGINES)}.")
    present = importlib.util.find_spec("faiss") is not None
    if engine == "faiss" and not present:
        raise DependencyError("faiss is not installed", remedy="pip install 'fedembed[faiss]', or leave it out.")
    return engine == "faiss" or (present and engine == "auto" and queries >= FAISS_QUERIES)


def _from_numpy(
    queries: FloatArray, rows: FloatArray, count: int
) -> Iterator[tuple[slice, IntArray, NDArray[np.floating]]]:
    """Pieces of the queries, ``count`` proposed rows each, and the score that no other row exceeds.

    The ``count`` best lie in the ``count`` blocks whose largest scores are largest, so only these are sorted.
    """
    block = 1 << max(4, round(math.log2(len(rows) / count) / 2))  # about as many blocks to judge as scores to sort
    blocks = -(-len(rows) // block)
    size = max(1, min(len(queries), MAX_SCORE_BYTES // (4 * blocks * block)))
    room = np.full((size, blocks * block), -np.inf, dtype=np.float32)
    for start in range(0, len(queries), size):
        piece = slice(start, min(start + size, len(queries)))
        lines = piece.stop - piece.start
        np.matmul(queries[piece], rows.T, out=room[:lines, : len(rows)])
        blocked = room[:lines].reshape(lines, blocks, block)
        best = _largest(blocked.max(axis=2), min(count, blocks))
        scores = np.take_along_axis(blocked, best[:, :, None], axis=1).reshape(lines, -1)
        places = _largest(scores, count)
        numbers = (best[:, :, None] * block + np.arange(block)).reshape(lines, -1)
        yield (
            piece,
            np.take_along_axis(numbers, places, axis=1),
            np.take_along_axis(scores, places, axis=1).min(axis=1),
        )


def _from_faiss(
    queries: FloatArray, rows: FloatArray, count: int
) -> Iterator[tuple[slice, IntArray, NDArray[np.floating]]]:
    """The same from ``faiss.knn``, which holds a few thousand scores a thread at a time."""
    import faiss

    queries, rows = np.ascontiguousarray(queries), np.ascontiguousarray(rows)
    size = max(1, MAX_EXACT_BYTES // (12 * count))
    for start in range(0, len(queries), size):
        piece = slice(start, min(start + size, len(queries)))
        scores, numbers = faiss.knn(queries[piece], rows, count, metric=faiss.METRIC_INNER_PRODUCT)
        yield piece, numbers.astype(np.int64), scores[:, -1]


def _largest(scores: NDArray[np.float32], count: int) -> IntArray:
    """Places of the ``count`` largest of each line, in no order, shape (Q, count)."""
    if count >= scores.shape[1]:
        return np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
    return np.argpartition(scores, scores.shape[1] - count, axis=1)[:, -count:]


def _exact(queries: FloatArray, rows: FloatArray, numbers: IntArray) -> NDArray[np.float64]:
    """Inner products in double precision, shape (Q, C): products of float32 are exact, the order of adding is fixed."""
    found = np.empty(numbers.shape)
    size = max(1, MAX_EXACT_BYTES // (16 * numbers.shape[1] * rows.shape[1]))
    for start in range(0, len(queries), size):
        piece = slice(start, start + size)
        taken = np.take(rows, numbers[piece], axis=0).astype(np.float64, order="C")
        taken *= queries[piece, None, :]
        found[piece] = taken.sum(axis=2)
    return found


def _search_again(found: Neighbors, place: int, vectors: tuple[FloatArray, FloatArray], own: int, error: float) -> None:
    """Search for one query among all rows that could be among its ``k`` best for all that rounding did."""
    query, rows = vectors
    k = found.rows.shape[1]
    scores = rows @ query
    if own >= 0:
        scores[own] = -np.inf
    bar = np.partition(scores, len(scores) - k)[-k]
    near = np.flatnonzero(scores >= bar - 2 * error)
    size = max(1, MAX_EXACT_BYTES // (16 * rows.shape[1]))
    pieces = (near[start : start + size] for start in range(0, len(near), size))
    cosines = np.concatenate([_exact(query[None], rows, piece[None])[0] for piece in pieces])
    order = np.lexsort((near, -cosines))[:k]
    found.rows[place], found.cosines[place] = near[order], cosines[order]


def _lengths(vectors: FloatArray) -> NDArray[np.float64]:
    return np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))
