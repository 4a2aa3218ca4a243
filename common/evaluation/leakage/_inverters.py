"""Inverters of pooled vectors: from the mean of a bag's row vectors back to a guess of its rows.

The adversary knows the released table T (V, D) and the public popularity p, and no private bag. A bag of n rows drawn
from p is released as v = T^T w with w = counts / n. Centred at the prior mean m = T^T p and whitened by the covariance
of single rows, S = T^T (diag(p) - p p^T) T, this is v' = sum_i w_i a_i over a few of the rows a_i = S^(-1/2) (t_i - m).

* ``linear``: scores a_i . v' weighed by p_i. This is the limit of ridge regression from vectors to counts, trained on
  infinitely many bags of the adversary's own; ``tests`` compare it with that regression on many bags.
* ``pursuit``: orthogonal matching pursuit (Pati, Rezaiifar and Krishnaprasad 1993) with weights kept positive: the row
  that explains most of what is left joins, then all weights are fitted anew.

Both give scores in an order; how many rows to name is learned on the adversary's own bags as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from common.table import FloatArray, IntArray

Array = NDArray[np.float64]
Inverter = Callable[["Pool", Array], tuple[IntArray, Array]]

MOST_NAMED = 32  # rows named of one bag at most
_RIDGE = 1e-6  # of the mean eigenvalue of S: tables may have empty directions
_ROUNDING = 1e-12  # of the squared mean: where all rows are equal, S is rounding error
_CHUNK_SCORES = 1 << 23


@dataclass(frozen=True)
class Pool:
    """What the adversary knows of the pooling: the table, shape (V, D), and the rows' probabilities, shape (V,)."""

    vectors: FloatArray
    probabilities: Array

    @cached_property
    def mean(self) -> Array:
        """Expected vector of a bag, shape (D,)."""
        return self.probabilities @ self.vectors.astype(np.float64)

    @cached_property
    def whitener(self) -> Array:
        """S^(-1/2), shape (D, D)."""
        centred = self.vectors.astype(np.float64) - self.mean
        covariance = (centred * self.probabilities[:, None]).T @ centred
        values, axes = np.linalg.eigh(covariance)
        floor = max(float(values.mean()) * _RIDGE, float(self.mean @ self.mean) * _ROUNDING, np.finfo(np.float64).tiny)
        return (axes / np.sqrt(np.maximum(values, 0.0) + floor)) @ axes.T

    @cached_property
    def atoms(self) -> Array:
        """The rows a_i, shape (V, D)."""
        return (self.vectors.astype(np.float64) - self.mean) @ self.whitener

    def lengths(self, vectors: Array) -> Array:
        """|v'| of each vector, shape (N,): about sqrt(D / n) for a bag of n rows."""
        return np.linalg.norm((vectors - self.mean) @ self.whitener, axis=1)

    def pooled(self, offsets: IntArray, rows: IntArray) -> Array:
        """Mean of the rows of each bag, shape (N, D); the prior mean for an empty bag."""
        sizes = np.diff(offsets)
        out = np.tile(self.mean, (len(sizes), 1))
        filled = sizes > 0
        if filled.any():
            sums = np.add.reduceat(self.vectors[rows].astype(np.float64), offsets[:-1][filled], axis=0)
            out[filled] = sums / sizes[filled, None]
        return out

    def drawn(self, sizes: IntArray, rng: np.random.Generator) -> tuple[IntArray, IntArray]:
        """Bags of the adversary's own, of the given sizes: (offsets, rows)."""
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        return offsets, rng.choice(len(self.probabilities), int(offsets[-1]), p=self.probabilities).astype(np.int64)


def linear(pool: Pool, vectors: Array) -> tuple[IntArray, Array]:
    """Rows by expected count, best first: p_i (1 + n a_i . v'); the bag's size n only scales. Shape (N, MOST_NAMED)."""
    named = min(MOST_NAMED, len(pool.probabilities))
    whitened = (vectors - pool.mean) @ pool.whitener
    rows, scores = np.empty((len(vectors), named), np.int64), np.empty((len(vectors), named))
    size = max(1, _CHUNK_SCORES // len(pool.probabilities))
    for start in range(0, len(vectors), size):
        chunk = slice(start, start + size)
        weights = (whitened[chunk] @ pool.atoms.T + 1.0) * pool.probabilities
        rows[chunk] = np.argsort(-weights, axis=1, kind="stable")[:, :named]
        scores[chunk] = np.take_along_axis(weights, rows[chunk], axis=1)
    return rows, scores


def pursuit(pool: Pool, vectors: Array) -> tuple[IntArray, Array]:
    """Rows in the order in which they join; a row's score is the share of |v'|^2 that it explained.

    Shape (N, named) each, where ``named`` is at most ``MOST_NAMED`` and less than the number of columns; a bag that is
    explained already names row -1 with score 0.
    """
    atoms = pool.atoms
    lengths = np.linalg.norm(atoms, axis=1)
    units = atoms / np.where(lengths > 0, lengths, np.inf)[:, None]
    named = max(1, min(MOST_NAMED, len(atoms), atoms.shape[1] - 1))
    rows, scores = np.full((len(vectors), named), -1, np.int64), np.zeros((len(vectors), named))
    targets = (vectors - pool.mean) @ pool.whitener
    residuals, whole = targets.copy(), np.einsum("nd,nd->n", targets, targets)
    left, going = whole.copy(), np.arange(len(vectors))
    for step in range(named):
        going = going[left[going] > whole[going] * 1e-10]
        best, gain = _steepest(units, residuals[going], rows[going, :step])
        going, best = going[gain > 0], best[gain > 0]
        for bag, row in zip(going.tolist(), best.tolist(), strict=True):
            rows[bag, step] = row
            residuals[bag] = _unexplained(targets[bag], units[rows[bag, : step + 1]])
            now = float(residuals[bag] @ residuals[bag])
            scores[bag, step], left[bag] = (left[bag] - now) / whole[bag], now
    return rows, scores


def _steepest(units: Array, residuals: Array, taken: IntArray) -> tuple[IntArray, Array]:
    """The row that agrees most with each residual among those not taken, and by how much; shapes (n,)."""
    best, gain = np.empty(len(residuals), np.int64), np.empty(len(residuals))
    size = max(1, _CHUNK_SCORES // len(units))
    for start in range(0, len(residuals), size):
        chunk = slice(start, start + size)
        agreement = residuals[chunk] @ units.T
        np.put_along_axis(agreement, taken[chunk], -np.inf, axis=1)
        best[chunk] = np.argmax(agreement, axis=1)
        gain[chunk] = np.take_along_axis(agreement, best[chunk, None], axis=1)[:, 0]
    return best, gain


def _unexplained(target: Array, support: Array) -> Array:
    """What the best non-negative combination of the support leaves of the target."""
    from scipy.optimize import nnls

    return target - nnls(support.T, target, maxiter=100 * len(support))[0] @ support


INVERTERS: dict[str, Inverter] = {"linear": linear, "pursuit": pursuit}
