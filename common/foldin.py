"""Folding users in: a user's vector in closed form from a table of item vectors and the user's own items.

One place for the formula, because training (a client solves its own vector) and evaluation (a benchmark's users are
folded into a released table) must mean the same thing by it.

Source: Hu, Koren and Volinsky, "Collaborative filtering for implicit feedback datasets" (2008), equation 4, with
confidence 1 + alpha on a user's items and 1 elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from common.table import FloatArray, IntArray

_CHUNK_ELEMENTS = 1 << 21


def fold_in(table: FloatArray, offsets: IntArray, items: IntArray, *, alpha: float, ridge: float) -> FloatArray:
    """Solve ``(Y^T Y + alpha sum_i y_i y_i^T + lambda I) x = (1 + alpha) sum_i y_i`` for every user.

    ``lambda = ridge * trace(Y^T Y) / D``, so that the result does not depend on the table's scale but by a factor.
    A user's vector is the same bit for bit whoever else is folded in by the same call. O(V D^2) once a call, then
    O(n D^2 + D^3) a user with n items.

    Args:
        table: item vectors Y, shape (V, D).
        offsets: shape (U + 1,); user u owns ``items[offsets[u]:offsets[u + 1]]``.
        items: row numbers, shape (R,).
        alpha: extra confidence of an interaction, >= 0.
        ridge: relative regularisation, > 0.

    Returns:
        Shape (U, D), float32; zeros for a user without items and for an all-zero table.
    """
    y = table.astype(np.float64)
    dimension = y.shape[1]
    out = np.zeros((len(offsets) - 1, dimension), dtype=np.float32)
    gram = y.T @ y
    scale = float(np.trace(gram)) / dimension
    if not 0.0 < scale < np.inf:
        return out
    base = gram + (ridge * scale) * np.eye(dimension)
    for users, index, present in _padded(offsets, items, dimension):
        own = y[index] * present[:, :, None]
        left = base + alpha * (own.transpose(0, 2, 1) @ own)
        right = (1.0 + alpha) * own.sum(axis=1)
        out[users] = _solved(left, right)
    return out


def _solved(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Solve for each user; a system that is singular in floating point gives that user zeros and nobody an error."""
    try:
        solved = np.linalg.solve(left, right[:, :, None])[:, :, 0].astype(np.float64, copy=False)
    except np.linalg.LinAlgError:
        if len(left) == 1:
            return np.zeros_like(right)
        each = [_solved(left[k : k + 1], right[k : k + 1]) for k in range(len(left))]
        return np.concatenate(each)
    return solved


def _padded(
    offsets: IntArray, items: IntArray, dimension: int
) -> Iterator[tuple[IntArray, IntArray, NDArray[np.float64]]]:
    """Users in groups of equal padded length: (users, item rows (B, L), 1 where a row is real (B, L)).

    The padded length is the next power of two of the user's own length: it depends on nobody else, and therefore
    neither does the order of any floating-point sum.
    """
    sizes = np.diff(offsets)
    lengths = np.where(sizes > 0, 2 ** np.ceil(np.log2(np.maximum(sizes, 1))).astype(np.int64), 0)
    for length in np.unique(lengths[lengths > 0]):
        members = np.flatnonzero(lengths == length)
        chunk = max(1, _CHUNK_ELEMENTS // (int(length) * dimension))
        for lo in range(0, len(members), chunk):
            users = members[lo : lo + chunk]
            position = np.arange(length)[None, :]
            present = position < sizes[users][:, None]
            index = items[np.where(present, offsets[users][:, None] + position, offsets[users][:, None])]
            yield users, index, present.astype(np.float64)
