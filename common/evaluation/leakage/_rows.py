"""What the attacks on rows share: reading lengths of rows from a view, guessing, and comparing with the prior.

A guess is a log odds for every row. How many rows are named follows from the odds, so that no threshold is chosen by
looking at the answer; the prior names the same number of rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from common.errors import EvaluationError
from common.evaluation.leak import Leak
from common.evaluation.leakage import Attack, required
from common.evaluation.leakage._evidence import held_log_odds
from common.evaluation.leakage._rates import BoolVector, FloatVector, auc, leak, mean_interval, ranked
from common.evaluation.view import Truth, View
from common.table import FloatArray, IntArray
from common.update import UpdateBatch

MOST_TARGETS = 256  # clients or rounds; the interval of a mean is narrow by then
PRIOR = "most popular rows"
FEWEST = "fewest rows"  # the clients that noise hides least: a tenth of them,
_FEWEST_SHARE = 0.1
_FEWEST_CLIENTS = 5  # and not less than so many, of at least twice as many


@dataclass(frozen=True)
class RowGuess:
    """What an attack says about the rows of one client or one round.

    Attributes:
        target: number of the client, or of the round.
        odds: log odds of every row, shape (V,).
        prior: the same before anything was seen.
    """

    target: int
    odds: FloatVector
    prior: FloatVector

    @cached_property
    def named(self) -> int:
        """How many rows are named: the number k for which F1 is expected to be highest, if the odds are right.

        With sorted probabilities p it is the k that maximises 2 sum_{i <= k} p_i / (k + sum p) (Lipton, Elkan and
        Naryanaswamy 2014, "Optimal thresholding of classifiers to maximize F1 measure", for many rows).
        """
        from scipy.special import expit

        p = -np.sort(-expit(self.odds))
        expected = 2 * np.cumsum(p) / (np.arange(1, len(p) + 1) + p.sum())
        return 1 + int(np.argmax(expected)) if p[0] > 0 else 0


def prior_odds(view: View) -> FloatVector:
    """Log odds that a client holds each row, from what is public."""
    return held_log_odds(view.prior, view.expected_rows)


def chosen(targets: Iterable[int], *, seed: int) -> list[int]:
    """The targets in order; at most ``MOST_TARGETS`` of them, drawn at random."""
    known = np.unique(np.fromiter(targets, dtype=np.int64))
    if len(known) > MOST_TARGETS:
        known = np.sort(np.random.default_rng(seed).choice(known, MOST_TARGETS, replace=False))
    found: list[int] = known.tolist()
    return found


def table_of_updates(view: View, attack: str) -> str:
    """Name of the table that is looked at, in the updates of all rounds.

    Raises:
        EvaluationError: no updates, no table in them, or not the one that the view names.
    """
    updates = [seen.updates for seen in view.rounds if seen.updates is not None and seen.updates.count]
    required(updates, attack, "single clients' updates")
    sizes: dict[str, int] = {}
    for batch in updates:
        for name, table in batch.rows.items():
            sizes[name] = sizes.get(name, 0) + len(table.ids)
    return _table(view, sizes, attack)


def table_of_sums(view: View, attack: str) -> str:
    """Name of the table that is looked at, in the sums of all rounds; errors as for ``table_of_updates``."""
    sums = [seen.total for seen in view.rounds if seen.total is not None]
    required(sums, attack, "sums over clients")
    sizes: dict[str, int] = {}
    for total in sums:
        for name, (ids, values) in total.rows.items():
            fits = ids is not None or len(values) == len(view.prior)
            if fits or name == view.row_table:
                sizes[name] = sizes.get(name, 0) + len(values)
    return _table(view, sizes, attack)


def _table(view: View, sizes: dict[str, int], attack: str) -> str:
    name = view.row_table or (min(sizes, key=lambda n: (sizes[n], n)) if sizes else "")
    if name not in sizes:
        raise EvaluationError(f"the attack {attack} needs the table {name!r} in what was seen, and it is not there")
    return name


def squared_of_update(batch: UpdateBatch, name: str, k: int, *, rows: int) -> FloatVector:
    """Squared length of each row of contribution k, shape (V,), float64; zeros where the table is absent.

    Raises:
        EvaluationError: a row that the prior does not have.
    """
    found = np.zeros(rows)
    if name in batch.rows:
        table = batch.rows[name]
        part = slice(int(table.offsets[k]), int(table.offsets[k + 1]))
        _fits(table.ids[part], rows)
        found[table.ids[part]] = _squares(table.values[part])
    return found


def sum_values(view: View, number: int, name: str) -> tuple[IntArray, FloatArray]:
    """Row numbers and values of the table in the sum of a round; none where the sum is hidden or lacks it.

    Raises:
        EvaluationError: rows that the prior does not have.
    """
    total = view.rounds[number].total
    if total is None or name not in total.rows:
        return np.empty(0, np.int64), np.empty((0, 1), np.float32)
    ids, values = total.rows[name]
    known = np.arange(len(values), dtype=np.int64) if ids is None else ids
    _fits(known, len(view.prior))
    return known, values


def squared_of_sum(view: View, number: int, name: str) -> tuple[FloatVector, int]:
    """Squared length of each row of a round's sum, shape (V,), and how many coordinates a row has."""
    ids, values = sum_values(view, number, name)
    found = np.zeros(len(view.prior))
    found[ids] = _squares(values)
    return found, int(values.shape[1])


def _squares(values: FloatArray) -> FloatVector:
    with np.errstate(over="ignore", invalid="ignore"):
        found: FloatVector = np.einsum("rd,rd->r", values, values, dtype=np.float64)
    return found


def _fits(ids: IntArray, rows: int) -> None:
    if len(ids) and (int(ids.min()) < 0 or int(ids.max()) >= rows):
        raise EvaluationError(f"what was seen has rows beyond the {rows} of the prior", remedy="Name View.row_table.")


def marked(held: IntArray, rows: int) -> BoolVector:
    """Which rows are held, shape (V,).

    Raises:
        EvaluationError: a row that the prior does not have.
    """
    _fits(held, rows)
    found = np.zeros(rows, dtype=np.bool_)
    found[held] = True
    return found


def hits_among(odds: FloatVector, named: int, held: BoolVector) -> float:
    """Expected number of held rows among the ``named`` rows of highest odds, equals drawn by lot."""
    named = min(named, len(odds))
    if named <= 0:
        return 0.0
    last = np.partition(odds, len(odds) - named)[len(odds) - named]
    above, level = odds > last, odds == last
    places = named - int(above.sum())
    return float(held[above].sum()) + places * float(held[level].sum()) / float(level.sum())


def f1(odds: FloatVector, named: int, held: BoolVector) -> float:
    """F1 of the ``named`` rows of highest odds: 2 hits / (named + held)."""
    total = named + int(held.sum())
    return 2 * hits_among(odds, named, held) / total if total else 0.0


def client_leaks(attack: Attack, view: View, truth: Truth, guesses: Iterable[RowGuess], *, seed: int) -> list[Leak]:
    """F1 and AUC, means over clients, and, where there are enough, AUC over those that hold the fewest rows.

    Clients that hold no row, or all of them, are left out.

    Raises:
        EvaluationError: no client is left.
    """
    found: list[list[float]] = []
    for guess in guesses:
        if guess.target >= len(truth.held_rows):
            raise EvaluationError(f"client {guess.target} was seen, and the truth has {len(truth.held_rows)} clients")
        held = marked(truth.held_rows[guess.target], len(view.prior))
        if 0 < held.sum() < len(held):
            both = (guess.odds, guess.prior)
            f1s = [f1(odds, guess.named, held) for odds in both]
            found.append([float(held.sum()), *f1s, *(ranked(auc, odds, held) for odds in both)])
    if not found:
        raise EvaluationError(f"the attack {attack.name} saw no client that holds some of the rows, and not all")
    table = np.array(found)
    leaks = [
        mean_leak(attack, "f1", table[:, 1], table[:, 2], seed=seed),
        mean_leak(attack, "auc", table[:, 3], table[:, 4], seed=seed),
    ]
    if len(table) >= 2 * _FEWEST_CLIENTS:
        size = max(_FEWEST_CLIENTS, round(_FEWEST_SHARE * len(table)))
        few = table[np.argsort(table[:, 0], kind="stable")[:size]]
        leaks.append(mean_leak(attack, f"auc:{FEWEST}", few[:, 3], few[:, 4], seed=seed))
    return leaks


def mean_leak(attack: Attack, metric: str, values: FloatVector, chance: FloatVector, *, seed: int) -> Leak:
    """Mean over clients or rounds, with its bootstrap interval, beside the mean of what the prior reaches."""
    figure = (float(values.mean()), *mean_interval(values, seed=seed))
    return leak(attack, metric, figure, len(values), chance=(PRIOR, float(chance.mean())))


def rounds_with_sums(view: View, name: str) -> list[int]:
    """Numbers of the rounds whose sum has the table and whose participants are known."""
    return [
        number
        for number, seen in enumerate(view.rounds)
        if seen.total is not None and name in seen.total.rows and len(seen.participants)
    ]


def rows_of_clients(truth: Truth, clients: Sequence[int], rows: int) -> IntArray:
    """How many of the clients hold each row, shape (V,)."""
    counts = np.zeros(rows, dtype=np.int64)
    for client in clients:
        if client >= len(truth.held_rows):
            raise EvaluationError(f"client {client} was seen, and the truth has {len(truth.held_rows)} clients")
        counts += marked(truth.held_rows[client], rows)
    return counts
