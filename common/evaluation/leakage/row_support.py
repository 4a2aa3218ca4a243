"""Row support: which rows does a client hold? Read off the rows of its updates.

Threat: an adversary that sees single clients' updates (an honest but curious coordinator without secure aggregation),
and their rows of every round. A table's gradient is zero outside of the rows that were looked up (Melis et al. 2019,
"Exploiting unintended feature leakage in collaborative learning", arXiv 1805.04049, section 4.1).

A row scores by its length over all updates of the client, weighed with its popularity (``_evidence``). Without noise,
and with noise on touched rows alone, that is the exact list; noise on every coordinate leaves the popularity.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from common.errors import EvaluationError
from common.evaluation.leak import Leak
from common.evaluation.leakage import required
from common.evaluation.leakage._evidence import touched
from common.evaluation.leakage._rates import FloatVector
from common.evaluation.leakage._rows import (
    RowGuess,
    chosen,
    client_leaks,
    prior_odds,
    squared_of_update,
    table_of_updates,
)
from common.evaluation.view import Question, Truth, View


class RowSupport:
    """``row_support``: F1 and AUC of a client's rows, beside naming the most popular ones."""

    name = "row_support"
    sees = "updates"
    promised = True

    def run(self, view: View, truth: Truth, *, seed: int) -> list[Leak]:
        """F1, AUC, and AUC of the clients with the fewest rows.

        Raises:
            EvaluationError: no single updates in view, or no rows of their senders to compare with.
        """
        required(truth.held_rows, self.name, "the rows that clients hold")
        guesses = self.guess(view, truth.question, seed=seed)
        return client_leaks(self, view, truth, guesses, seed=seed)

    def guess(self, view: View, question: Question, *, seed: int) -> Iterator[RowGuess]:
        """The odds of every row, one client after the other."""
        table, prior = table_of_updates(view, self.name), prior_odds(view)
        share = float((1 / (1 + np.exp(-prior))).mean())
        seen = [r for r in view.rounds if r.updates is not None]
        for client in chosen((int(c) for r in seen for c in r.participants), seed=seed):
            squared, degrees = lengths(view, table, client)
            yield RowGuess(client, prior + touched(squared, degrees, share=share), prior)


def lengths(view: View, table: str, client: int) -> tuple[FloatVector, int]:
    """Squared length of each row, summed over the client's updates, shape (V,), and how many coordinates went in.

    Raises:
        EvaluationError: a round does not have one update a participant.
    """
    squared, degrees = np.zeros(len(view.prior)), 0
    for seen in view.rounds:
        if seen.updates is None:
            continue
        if seen.updates.count != len(seen.participants):
            raise EvaluationError("the updates of a round are not those of its participants")
        width = seen.updates.rows[table].values.shape[1] if table in seen.updates.rows else 0
        for k in np.flatnonzero(seen.participants == client).tolist():
            squared += squared_of_update(seen.updates, table, k, rows=len(view.prior))
            degrees += width
    return squared, max(degrees, 1)


ATTACK = RowSupport()
