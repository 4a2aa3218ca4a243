"""Differencing: two sums whose cohorts differ by one client give away that client.

Threat: an adversary that sees sums over clients and who took part (a coordinator under secure aggregation, or whoever
is shown two releases), and that meets, or arranges, two cohorts A = B + {c}. Secure aggregation hides each sum's parts,
not the difference of two sums (Pasquini et al. 2022, "Eluding secure aggregation in federated learning", arXiv
2111.07380, treats the active case; section 5 of Ngo et al. 2024, arXiv 2403.17775, the passive one).

Where the others' updates cancel (both sums are of one model), the rows that are left are the client's. Where the model
has moved on in between, a row that A touched and B did not is the client's, a row that A did not touch is not, and of
the rows touched in both the popularity decides.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from common.errors import EvaluationError
from common.evaluation.leak import Leak
from common.evaluation.leakage import required
from common.evaluation.leakage._evidence import CERTAIN, ROWS_OF_PADDING, touched
from common.evaluation.leakage._rates import FloatVector
from common.evaluation.leakage._rows import (
    RowGuess,
    chosen,
    client_leaks,
    prior_odds,
    rounds_with_sums,
    sum_values,
    table_of_sums,
)
from common.evaluation.view import Question, Truth, View

_ROUNDING = 4e-6  # of the summands' lengths: sums are rounded to float32
_CANCELLED = 0.01  # of the rows touched in both sums: then both are of one model; by chance hardly one row cancels


class Differencing:
    """``differencing``: F1 and AUC of the rows of a client that is in one of two cohorts only."""

    name = "differencing"
    sees = "sums"
    promised = True

    def run(self, view: View, truth: Truth, *, seed: int) -> list[Leak]:
        """F1, AUC, and AUC of the clients with the fewest rows.

        Raises:
            EvaluationError: no sums in view, no two cohorts that differ by one client, or no rows to compare with.
        """
        required(truth.held_rows, self.name, "the rows that clients hold")
        guesses = self.guess(view, truth.question, seed=seed)
        return client_leaks(self, view, truth, guesses, seed=seed)

    def guess(self, view: View, question: Question, *, seed: int) -> Iterator[RowGuess]:
        """The odds of every row, for each client whose absence is the only difference between two cohorts."""
        table, prior = table_of_sums(view, self.name), prior_odds(view)
        pairs = cohort_pairs(view, rounds_with_sums(view, table))
        share = float((1 / (1 + np.exp(-prior))).mean())
        for client in chosen(pairs, seed=seed):
            with_client, without = pairs[client]
            odds = prior + evidence(view, table, with_client, without, share=share)
            yield RowGuess(client, odds, prior)


def cohort_pairs(view: View, rounds: list[int]) -> dict[int, tuple[int, int]]:
    """Client -> (round with it, round of all the others), the two rounds that are nearest in time.

    Raises:
        EvaluationError: no two cohorts differ by one client.
    """
    from scipy.sparse import csr_matrix

    cohorts = [np.unique(view.rounds[number].participants) for number in rounds]
    found: dict[int, tuple[int, int]] = {}
    if cohorts:
        sizes = np.array([len(c) for c in cohorts])
        owner, member = np.repeat(np.arange(len(cohorts)), sizes), np.concatenate(cohorts)
        inside = csr_matrix((np.ones(len(member), np.int64), (owner, member)))
        shared = (inside @ inside.T).toarray()
        subset = (shared == sizes) & (shared == sizes[:, None] - 1)  # all of column's cohort, all but one of row's
        order = sorted(zip(*np.nonzero(subset), strict=True), key=lambda pair: abs(rounds[pair[0]] - rounds[pair[1]]))
        for whole, part in order:
            (client,) = np.setdiff1d(cohorts[whole], cohorts[part]).tolist()
            found.setdefault(client, (rounds[whole], rounds[part]))
    if not found:
        raise EvaluationError(
            "the attack differencing needs two rounds whose cohorts differ by exactly one client",
            remedy="With every client in every round, or cohorts drawn anew, there may be no such pair.",
        )
    return found


def evidence(view: View, table: str, whole: int, part: int, *, share: float) -> FloatVector:
    """Log likelihood ratio of each row being held by the client that is in ``whole`` and not in ``part``; (V,)."""
    (ids_a, a), (ids_b, b) = sum_values(view, whole, table), sum_values(view, part, table)
    difference, scale = np.zeros(len(view.prior)), np.zeros(len(view.prior))
    in_a, in_b = np.zeros(len(view.prior), np.bool_), np.zeros(len(view.prior), np.bool_)
    in_a[ids_a], in_b[ids_b] = a.any(axis=1), b.any(axis=1)
    both = np.intersect1d(ids_a, ids_b, return_indices=True)
    with np.errstate(over="ignore", invalid="ignore"):
        for ids, values in ((ids_a, a), (ids_b, b)):
            squares = np.einsum("rd,rd->r", values, values, dtype=np.float64)
            difference[ids], scale[ids] = squares, scale[ids] + squares
        left = a[both[1]].astype(np.float64) - b[both[2]]
        difference[both[0]] = np.einsum("rd,rd->r", left, left)
    difference[difference <= _ROUNDING**2 * scale] = 0.0
    overlap = in_a & in_b
    same_model = bool(overlap.any()) and float((difference[overlap] == 0).mean()) >= _CANCELLED
    if same_model or min(in_a.sum(), in_b.sum()) >= len(in_a) - ROWS_OF_PADDING:
        return touched(difference, a.shape[1], share=share)
    return np.where(in_a, np.where(in_b, 0.0, CERTAIN), -np.inf)


ATTACK = Differencing()
