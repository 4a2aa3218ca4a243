"""Single owners: rows of a sum that exactly one client of the cohort holds.

Threat: an adversary that sees sums over clients and the cohort's size, not who touched what (a coordinator under secure
aggregation, or the public where sums are released). A row with one owner passes through the sum as it was sent: secure
aggregation hides nothing of it (Suimon et al. 2025, "Per-element secure aggregation against data reconstruction attacks
in federated learning", arXiv 2508.04285).

With N the number of owners, N ~ Binomial(n, q_r) by popularity; a row scores by the probability of N = 1 given

* whether the row was touched at all (``_evidence``; exact where sums are sparse), and,
* where it is exact, the row's squared length, taken as log-normal about a common length times N: unrelated updates add
  up in squares. The spread is that of all touched rows, so that lengths count for little where rows differ anyway.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from common.errors import EvaluationError
from common.evaluation.leak import Leak
from common.evaluation.leakage import required
from common.evaluation.leakage._evidence import CERTAIN, log_odds, of_any, touched
from common.evaluation.leakage._rates import BoolVector, FloatVector, auc, ranked
from common.evaluation.leakage._rows import (
    RowGuess,
    chosen,
    f1,
    hits_among,
    mean_leak,
    prior_odds,
    rounds_with_sums,
    rows_of_clients,
    squared_of_sum,
    table_of_sums,
)
from common.evaluation.view import Question, Truth, View

MOST_OWNERS = 32  # owners told apart; more count as so many
_CHUNK_ROWS = 1 << 16
_SMALLEST = 1e-300
_NARROW = 1e-3  # of equal lengths, rounding shall not decide


@dataclass(frozen=True)
class OwnerGuess:
    """For the rows of one round, the odds of exactly one owner, and of any."""

    single: RowGuess
    union: RowGuess


class SingleOwner:
    """``single_owner``: rows that one client of the cohort holds, beside what popularity says; means over rounds."""

    name = "single_owner"
    sees = "sums"
    promised = True

    def run(self, view: View, truth: Truth, *, seed: int) -> list[Leak]:
        """Precision, F1 and AUC of "exactly one holds it", and the exposure: of the rows named as touched, the share
        that has one owner. Where supports are visible, these are the union's rows, and nobody is hidden among others.

        Raises:
            EvaluationError: no sums in view, no known participants, or no row with one owner to find.
        """
        required(truth.held_rows, self.name, "the rows that clients hold")
        found = []
        for guess in self.guess(view, truth.question, seed=seed):
            cohort = np.unique(view.rounds[guess.single.target].participants)
            owners = rows_of_clients(truth, cohort.tolist(), len(view.prior))
            single = owners == 1
            if 0 < single.sum() < len(single):
                found.append(_figures(guess, single))
        if not found:
            raise EvaluationError("the attack single_owner saw no round with a row that one client alone holds")
        table = np.array(found)
        return [
            mean_leak(self, metric, table[:, 2 * i], table[:, 2 * i + 1], seed=seed)
            for i, metric in enumerate(("precision", "f1", "auc", "exposure"))
        ]

    def guess(self, view: View, question: Question, *, seed: int) -> Iterator[OwnerGuess]:
        """The odds of exactly one owner, and of any, for every row, one round after the other."""
        table, prior = table_of_sums(view, self.name), prior_odds(view)
        rounds = required(rounds_with_sums(view, table), self.name, "sums whose participants are known")
        for number in chosen(rounds, seed=seed):
            clients = len(np.unique(view.rounds[number].participants))
            squared, degrees = squared_of_sum(view, number, table)
            anyone = of_any(prior, clients)
            share = float((1 / (1 + np.exp(-anyone))).mean())
            ratio = touched(squared, degrees, share=share)
            exact = bool(np.all((ratio == CERTAIN) | np.isneginf(ratio)))
            union = RowGuess(number, anyone + ratio, anyone)
            one, before = alone(prior, clients, squared=squared if exact else None), alone(prior, clients)
            yield OwnerGuess(RowGuess(number, _joint(union.odds, one), _joint(anyone, before)), union)


def _figures(guess: OwnerGuess, single: BoolVector) -> list[float]:
    """Precision, F1, AUC and exposure, of the attack and of the prior in turn."""
    named, union = guess.single.named, guess.union.named
    both = (guess.single.odds, guess.single.prior)
    return [
        *(hits_among(odds, named, single) / max(named, 1) for odds in both),
        *(f1(odds, named, single) for odds in both),
        *(ranked(auc, odds, single) for odds in both),
        *(hits_among(odds, union, single) / max(union, 1) for odds in (guess.union.odds, guess.union.prior)),
    ]


def _joint(union: FloatVector, one: FloatVector) -> FloatVector:
    """Log odds of exactly one owner from the log odds of any and the probability of one, given any."""
    from scipy.special import expit

    return np.where(np.isneginf(union), -np.inf, log_odds(expit(union) * one))


def alone(prior: FloatVector, clients: int, *, squared: FloatVector | None = None) -> FloatVector:
    """Probability that a touched row has one owner, shape (V,).

    Args:
        prior: log odds that one client holds each row.
        clients: size of the cohort.
        squared: squared lengths of the rows in the sum; ``None`` where noise decides them.
    """
    lengths = None if squared is None or (squared > 0).sum() < 2 else _Lengths.of(squared, prior, clients)
    found = np.empty(len(prior))
    for start in range(0, len(prior), _CHUNK_ROWS):
        part = slice(start, start + _CHUNK_ROWS)
        logs = _log_owners(prior[part], clients)
        if lengths is not None and squared is not None:
            logs = logs + lengths.log_density(squared[part], logs.shape[1])
        weights = np.exp(logs - logs.max(axis=1, keepdims=True))
        found[part] = weights[:, 0] / weights.sum(axis=1)
    return found


@dataclass(frozen=True)
class _Lengths:
    """Log of a touched row's squared length: normal about ``centre`` + ln(owners)."""

    centre: float
    spread: float

    @classmethod
    def of(cls, squared: FloatVector, prior: FloatVector, clients: int) -> _Lengths:
        seen = squared > 0
        logs = np.log(squared[seen])
        owners = np.exp(_log_owners(prior[seen], clients))
        usual = owners @ np.log(np.arange(1, owners.shape[1] + 1))
        return cls(float((logs - usual).mean()), float(logs.std()))

    def log_density(self, squared: FloatVector, owners: int) -> FloatVector:
        """For each row and number of owners, up to a constant, shape (rows, owners); zero for a row of length zero."""
        logs = np.log(np.where(squared > 0, squared, 1.0))[:, None]
        apart = (logs - self.centre - np.log(np.arange(1, owners + 1))) / max(self.spread, _NARROW)
        return np.where(squared[:, None] > 0, -0.5 * apart**2, 0.0)


def _log_owners(odds: FloatVector, clients: int) -> FloatVector:
    """Log probability of 1, 2, ..., owners of a row that has at least one; (V, owners), the last for "or more"."""
    from scipy.special import bdtrc, gammaln, log_expit

    most = min(clients, MOST_OWNERS)
    counts = np.arange(1, most + 1)
    ways = gammaln(clients + 1) - gammaln(counts + 1) - gammaln(clients - counts + 1)
    held, free = log_expit(odds), log_expit(-odds)
    logs: FloatVector = ways + counts * held[:, None] + (clients - counts) * free[:, None]
    if most < clients:
        logs[:, -1] = np.log(np.maximum(bdtrc(most - 1, clients, np.exp(held)), _SMALLEST))
    return logs - np.log(-np.expm1(clients * free))[:, None]


ATTACK = SingleOwner()
