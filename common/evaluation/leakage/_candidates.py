"""Statistics of candidate units from a table alone, and what the attacks on membership check beforehand."""

from __future__ import annotations

import numpy as np

from common.errors import EvaluationError
from common.evaluation.leakage import required
from common.evaluation.leakage._rates import BoolVector, FloatVector
from common.evaluation.view import Question, Truth, View
from common.table import EmbeddingTable, FloatArray
from common.units import Units

WINDOW = 5  # neighbours in a unit whose pairs the loss counts, as skip-gram counts them
_CHUNK_PAIRS = 1 << 16


def asked(question: Question, attack: str) -> Units:
    """The candidates' rows.

    Raises:
        EvaluationError: there are no candidates.
    """
    candidates = question.candidates
    if candidates is None or not candidates.count or "rows" not in candidates.rows.columns:
        raise EvaluationError(f"the attack {attack} needs candidates, and none are given")
    return candidates.rows


def answers(truth: Truth, units: Units, attack: str) -> BoolVector:
    """Which candidates are members, shape (N,).

    Raises:
        EvaluationError: no answers, or not one for every candidate.
    """
    member: BoolVector = required(truth.member, attack, "the answer which candidates are members")
    if member.shape != (units.count,):
        raise EvaluationError(f"{len(member)} answers do not fit {units.count} candidates")
    return member


def checked_vectors(table: EmbeddingTable | None, view: View, attack: str) -> FloatArray:
    """Vectors of a table, shape (V, D).

    Raises:
        EvaluationError: no table, values that are not finite, or a start table of another shape.
    """
    vectors: FloatArray = required(table, attack, "a released table").vectors
    if not np.isfinite(vectors).all():
        raise EvaluationError("the table has values that are not finite: there is nothing to be seen in it")
    if view.start is not None and view.start.shape != vectors.shape:
        raise EvaluationError(f"a start table of shape {view.start.shape} does not fit a table of {vectors.shape}")
    return vectors


def unit_rows(vectors: FloatArray) -> FloatArray:
    """Rows scaled to length 1; zero rows stay zero."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)


def mean_cosine(vectors: FloatArray, units: Units) -> FloatVector:
    """Mean cosine over all pairs of different rows of each unit, shape (N,); NaN where a unit has no such pair.

    With unit vectors u_i, sum over pairs of u_i . u_j = |sum u_i|^2 - sum |u_i|^2, so that no pair is formed.

    Raises:
        EvaluationError: a unit holds a row that the table does not have.
    """
    from scipy.sparse import csr_matrix

    rows = _rows(vectors, units)
    inside = csr_matrix((np.ones(len(rows)), rows, units.offsets), shape=(units.count, len(vectors)))
    inside.sum_duplicates()
    inside.data[:] = 1.0
    unit = unit_rows(vectors).astype(np.float64)
    total = inside @ unit
    crossed = np.einsum("nd,nd->n", total, total) - inside @ np.einsum("vd,vd->v", unit, unit)
    size = np.asarray(inside.sum(axis=1)).ravel()
    return np.where(size > 1, crossed / np.maximum(size * (size - 1), 1), np.nan)


def log_likelihood(vectors: FloatArray, units: Units) -> FloatVector:
    """Mean of ln sigma(v_i . v_j) over neighbours within ``WINDOW``, shape (N,); NaN where a unit has none.

    It is the positive part of skip-gram's objective (Mikolov et al. 2013) with one table in both places; a row is no
    neighbour of itself.

    Raises:
        EvaluationError: a unit holds a row that the table does not have.
    """
    rows = _rows(vectors, units)
    owner = np.repeat(np.arange(units.count), np.diff(units.offsets))
    total, pairs = np.zeros(units.count), np.zeros(units.count)
    for step in range(1, WINDOW + 1):
        first = np.flatnonzero((owner[:-step] == owner[step:]) & (rows[:-step] != rows[step:]))
        for start in range(0, len(first), _CHUNK_PAIRS):
            index = first[start : start + _CHUNK_PAIRS]
            dots = np.einsum("nd,nd->n", vectors[rows[index]], vectors[rows[index + step]], dtype=np.float64)
            total += np.bincount(owner[index], weights=-np.logaddexp(0.0, -dots), minlength=units.count)
            pairs += np.bincount(owner[index], minlength=units.count)
    return np.where(pairs > 0, total / np.maximum(pairs, 1), np.nan)


def _rows(vectors: FloatArray, units: Units) -> np.ndarray:
    rows = units.columns["rows"]
    if len(rows) and (int(rows.min()) < 0 or int(rows.max()) >= len(vectors)):
        raise EvaluationError("a candidate holds a row that the table does not have")
    return rows


def kept(scores: FloatVector, member: BoolVector, attack: str) -> BoolVector:
    """Candidates with a score.

    Raises:
        EvaluationError: no member or no other one is left.
    """
    keep: BoolVector = ~np.isnan(scores)
    if not member[keep].any() or member[keep].all():
        raise EvaluationError(
            f"the attack {attack} needs members and others among the candidates that it can score",
            remedy="Give candidates that hold two different rows of the table, and about as many of either kind.",
        )
    return keep
