"""Intersection over rounds: rows that are always there when a client is, and otherwise are not.

Threat: an adversary that sees sums over clients, and who took part in each (a coordinator under secure aggregation, or
whoever reads the releases and the list of participants). It is the statistical disclosure attack on mix networks
(Danezis 2003; Kesdogan, Agrawal and Penz 2002) on rows in place of recipients.

Per round, a row's likelihood ratio of touched against untouched is L (``_evidence``; exact where sums are sparse). A
client that holds a row touches it when it takes part, but for a share ``MISS`` of the rounds; somebody else does with
probability b, estimated from the rounds without the client and, before any was seen, from popularity. A held row is
then missing with probability m = MISS (1 - b), and

    log odds = prior + sum over its rounds of ln(((1 - m) L + m) / (b L + 1 - b)).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from common.evaluation.leak import Leak
from common.evaluation.leakage import required
from common.evaluation.leakage._evidence import of_any, touched
from common.evaluation.leakage._rates import FloatVector
from common.evaluation.leakage._rows import (
    MOST_TARGETS,
    RowGuess,
    chosen,
    client_leaks,
    prior_odds,
    rounds_with_sums,
    squared_of_sum,
    table_of_sums,
)
from common.evaluation.view import Question, Truth, View

MISS = 0.05  # a client's own row may be missing from a round: sampled batches, subsampled words
PRIOR_ROUNDS = 2.0  # as many rounds' worth is the popularity in the estimate of b
_SURE = 1e-6


class Intersection:
    """``intersection``: F1 and AUC of a client's rows from sums alone, beside naming the most popular ones."""

    name = "intersection"
    sees = "sums"
    promised = True

    def run(self, view: View, truth: Truth, *, seed: int) -> list[Leak]:
        """F1, AUC, and AUC of the clients with the fewest rows.

        Raises:
            EvaluationError: no sums in view, no known participants, or no rows to compare with.
        """
        required(truth.held_rows, self.name, "the rows that clients hold")
        guesses = self.guess(view, truth.question, seed=seed)
        return client_leaks(self, view, truth, guesses, seed=seed)

    def guess(self, view: View, question: Question, *, seed: int) -> Iterator[RowGuess]:
        """The odds of every row, one client after the other; of more than ``MOST_TARGETS`` rounds the last are used."""
        table, prior = table_of_sums(view, self.name), prior_odds(view)
        rounds = required(rounds_with_sums(view, table), self.name, "sums whose participants are known")[-MOST_TARGETS:]
        cohorts = [np.unique(view.rounds[number].participants) for number in rounds]
        background = [of_any(prior, len(cohort)) for cohort in cohorts]
        ratios = np.array([_ratio(view, n, table, b) for n, b in zip(rounds, background, strict=True)])
        expected = np.array([_probability(ratio + b) for ratio, b in zip(ratios, background, strict=True)])
        usual = np.mean([_probability(b) for b in background], axis=0)
        for client in chosen((int(c) for cohort in cohorts for c in cohort), seed=seed):
            inside = np.array([client in cohort for cohort in cohorts])
            yield RowGuess(client, prior + gain(ratios, expected, inside, usual=usual), prior)


def _ratio(view: View, number: int, table: str, background: FloatVector) -> NDArray[np.float32]:
    squared, degrees = squared_of_sum(view, number, table)
    return touched(squared, degrees, share=float(_probability(background).mean())).astype(np.float32)


def _probability(odds: FloatVector) -> NDArray[np.float32]:
    from scipy.special import expit

    return expit(odds).astype(np.float32)


def gain(
    ratios: NDArray[np.float32], expected: NDArray[np.float32], inside: NDArray[np.bool_], *, usual: FloatVector
) -> FloatVector:
    """What the rounds add to a client's log odds, shape (V,).

    Args:
        ratios: log L, shape (T, V).
        expected: probability that a row was touched by anybody, shape (T, V).
        inside: whether the client took part, shape (T,).
        usual: probability that anybody touches a row in a round, by popularity, shape (V,).
    """
    without = expected[~inside].sum(axis=0, dtype=np.float64)
    b = (without + PRIOR_ROUNDS * usual) / ((~inside).sum() + PRIOR_ROUNDS)
    b = np.clip(b, _SURE, 1 - _SURE)
    missing = MISS * (1 - b)  # the client did not touch it, and nobody else did
    total = np.zeros(ratios.shape[1])
    for ratio in ratios[inside].astype(np.float64):
        held = np.logaddexp(np.log1p(-missing) + ratio, np.log(missing))
        total += held - np.logaddexp(np.log(b) + ratio, np.log1p(-b))
    return total


ATTACK = Intersection()
