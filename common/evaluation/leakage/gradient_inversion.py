"""Inversion of single updates: which rows does a client hold, exactly, and whose data are behind an update?

* ``exact rows``: the rows of the sparsest table of an update; where it has all rows, those whose norm sticks out. An
  embedding table's gradient is zero outside of the rows that were looked up, so an update without noise is the list of
  rows (Melis et al. 2019, arXiv 1805.04049, section 4.1). Right only where no row is wrong or missing.
* ``line-up``: the adversary holds every client's data, and says which of them an update was computed from. It computes
  the gradient of each candidate itself and takes the one of highest cosine: gradient matching (Zhu, Liu and Han 2019,
  arXiv 1906.08935) over a finite set, which leaves nothing to the search. Without rehearsed gradients it compares the
  norms of an update's rows with the candidates' rows. Matches of several rounds add up.

Both look at every coordinate, so that noise on touched rows alone stops neither; noise on all coordinates stops both as
far as the claim goes. The guarantee speaks about a unit: clients' whole data are hidden where the unit is the client.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.errors import EvaluationError
from common.evaluation.leak import Leak
from common.evaluation.leakage import required
from common.evaluation.leakage._rates import clopper_pearson, leak
from common.evaluation.view import RoundView, Truth, View
from common.table import IntArray
from common.update import UpdateBatch, squared_norms

Array = NDArray[np.float64]

_RARE = 1e-3  # chance that any row of noise alone is named


class GradientInversion:
    """``gradient_inversion``: clients whose rows are read off exactly, and updates told apart in a line-up."""

    name = "gradient_inversion"
    sees = "updates"
    promised = True

    def run(self, view: View, truth: Truth, *, seed: int) -> list[Leak]:
        """Share of exactly known clients (where there are tables), and of updates given to the right client.

        Raises:
            EvaluationError: no single updates in view, or no rows of the clients to compare with.
        """
        held = required(truth.held_rows, self.name, "the rows that clients hold")
        rounds = [seen for seen in view.rounds if seen.updates is not None and seen.updates.count]
        required(rounds, self.name, "single clients' updates")
        _check(rounds, len(held), view.clients)
        rounds = comparable(rounds)
        present = holding(rounds, held)
        taking_part = np.unique(np.concatenate([seen.participants for seen in rounds]))
        asked = taking_part[present[taking_part]]
        if len(asked) < 2:
            raise EvaluationError("the attack gradient_inversion needs updates of two clients that hold data")
        found, rows = [], [np.unique(own) for own in held]
        if len(view.prior):
            named = named_rows(rounds, len(view.prior), table=view.row_table)
            right = [np.array_equal(named.get(client, ()), rows[client]) for client in asked]
            found.append(self._leak("exact rows", right, ("most popular rows", _popular(view.prior, rows, asked))))
        fit = line_up(rounds, rows, len(view.prior), table=view.row_table)
        scores = np.where(present, fit, -np.inf)
        guess = best_match(scores[asked], seed=seed)
        chance = ("one of the clients", 1 / int(np.count_nonzero(present)))
        return [*found, self._leak("line-up", (guess == asked).tolist(), chance)]

    def _leak(self, metric: str, right: Sequence[bool], chance: tuple[str, float]) -> Leak:
        figure = (sum(right) / len(right), *clopper_pearson(sum(right), len(right)))
        return leak(self, metric, figure, len(right), chance=chance)


def _check(rounds: Sequence[RoundView], held: int, clients: int) -> None:
    if held != clients:
        raise EvaluationError(f"the rows of {held} clients are given, and {clients} are enrolled")
    for seen in rounds:
        updates = seen.updates or UpdateBatch(0)
        known = bool(np.all((seen.participants >= 0) & (seen.participants < clients)))
        if len(seen.participants) != updates.count or not known:
            raise EvaluationError("the updates of a round are not those of its participants")
        if seen.rehearsed is not None and seen.rehearsed.count != clients:
            raise EvaluationError(f"{seen.rehearsed.count} rehearsed updates do not stand for {clients} clients")


def comparable(rounds: Sequence[RoundView]) -> list[RoundView]:
    """The rounds whose updates have tables, or rehearsed ones beside them.

    Raises:
        EvaluationError: there is none.
    """
    found = [seen for seen in rounds if seen.rehearsed is not None or (seen.updates and seen.updates.rows)]
    if not found:
        raise EvaluationError("updates without tables are told apart by rehearsed updates alone, and there are none")
    return found


def holding(rounds: Sequence[RoundView], held: Sequence[IntArray]) -> NDArray[np.bool_]:
    """Which clients hold anything: rows, or data that a rehearsal makes an update of. Shape (clients,)."""
    found = np.array([len(own) > 0 for own in held])
    for seen in rounds:
        if seen.rehearsed is not None:
            found |= squared_norms(seen.rehearsed) > 0
    return found


def _popular(prior: Array, held: Sequence[IntArray], asked: IntArray) -> float:
    """Share of the clients who hold exactly the most popular rows, had their number been known."""
    order = np.argsort(-prior, kind="stable")
    right = [np.array_equal(np.sort(order[: len(held[client])]), held[client]) for client in asked]
    return sum(right) / len(right)


@dataclass(frozen=True)
class Trace:
    """What one update shows of its rows.

    Attributes:
        ids: the rows that its sparsest table names; ``None`` where its tables name all rows.
        squares: shape (V,), squared norm of each row over the tables that name all rows.
        columns: how many numbers of a row those tables have together.
    """

    ids: IntArray | None
    squares: Array
    columns: int


def traces(seen: RoundView, rows: int, *, table: str = "") -> Iterator[tuple[int, Trace]]:
    """(client, trace) of every update of a round that has rows; only ``table`` is looked at where one is named."""
    updates = seen.updates or UpdateBatch(0)
    for k, client in enumerate(seen.participants.tolist()):
        parts = {n: slice(int(t.offsets[k]), int(t.offsets[k + 1])) for n, t in updates.rows.items()}
        sizes = {n: part.stop - part.start for n, part in parts.items() if table in ("", n) and part.stop > part.start}
        if not sizes:
            continue
        sparsest = min(sizes, key=sizes.__getitem__)
        if sizes[sparsest] < rows:
            yield client, Trace(updates.rows[sparsest].ids[parts[sparsest]], np.zeros(rows), 0)
            continue
        squares, columns = np.zeros(rows), 0
        for name in sizes:
            values = updates.rows[name].values[parts[name]].astype(np.float64)
            np.add.at(squares, updates.rows[name].ids[parts[name]], np.einsum("rd,rd->r", values, values))
            columns += values.shape[1]
        yield client, Trace(None, squares, columns)


def named_rows(rounds: Sequence[RoundView], rows: int, *, table: str = "") -> dict[int, IntArray]:
    """Rows read off every client's updates: the union over its rounds, ascending."""
    named: dict[int, list[IntArray]] = {}
    for seen in rounds:
        for client, trace in traces(seen, rows, table=table):
            named.setdefault(client, []).append(standing_out(trace))
    return {client: np.unique(np.concatenate(parts)) for client, parts in named.items()}


def standing_out(trace: Trace) -> IntArray:
    """The rows that an update names; if it names all, those longer than noise of the median's scale explains.

    Noise of stddev s gives squared norms s^2 chi^2_D; the median tells s, and a row is named where the chance of its
    norm is below ``_RARE`` over the number of rows.
    """
    from scipy import stats

    if trace.ids is not None:
        return trace.ids
    scale = float(np.median(trace.squares)) / float(stats.chi2.median(trace.columns))
    return np.flatnonzero(trace.squares > scale * float(stats.chi2.isf(_RARE / len(trace.squares), trace.columns)))


def line_up(rounds: Sequence[RoundView], held: Sequence[IntArray], rows: int, *, table: str = "") -> Array:
    """Score of every candidate for every client's updates, shape (clients, clients); higher fits better."""
    scores = np.zeros((len(held), len(held)))
    for seen in rounds:
        if seen.rehearsed is not None:
            for k, client in enumerate(seen.participants.tolist()):
                scores[client] += cosines(seen.updates or UpdateBatch(0), k, seen.rehearsed)
            continue
        for client, trace in traces(seen, rows, table=table):
            scores[client] += row_match(trace, held)
    return scores


def cosines(updates: UpdateBatch, k: int, rehearsed: UpdateBatch) -> Array:
    """Cosine of contribution k with every rehearsed one over all arrays, times the first's norm; shape (N,)."""
    products = np.zeros(rehearsed.count)
    for name, other in rehearsed.rows.items():
        own = updates.rows.get(name)
        if own is None or own.offsets[k + 1] == own.offsets[k]:
            continue
        part = slice(int(own.offsets[k]), int(own.offsets[k + 1]))
        ids, values = own.ids[part], own.values[part]
        place = np.minimum(np.searchsorted(ids, other.ids), len(ids) - 1)
        dots = np.einsum("rd,rd->r", values[place], other.values, dtype=np.float64) * (ids[place] == other.ids)
        products += np.bincount(other.owners, weights=dots, minlength=rehearsed.count)
    for name, array in rehearsed.dense.items():
        if name in updates.dense:
            flat = array.reshape(rehearsed.count, -1).astype(np.float64)
            products += flat @ updates.dense[name][k].ravel().astype(np.float64)
    norms = np.sqrt(squared_norms(rehearsed))
    return np.where(norms > 0, products / np.where(norms > 0, norms, 1.0), 0.0)


def row_match(trace: Trace, held: Sequence[IntArray]) -> Array:
    """Cosine of an update with the indicator of each candidate's rows, shape (N,).

    Of an update that names some rows, their indicator is compared; of one that names all, the norms of its rows less
    their median.
    """
    marks = np.sqrt(trace.squares)
    marks -= np.median(marks)
    if trace.ids is not None:
        marks[trace.ids] = 1.0
    length = float(np.linalg.norm(marks))
    sums = np.array([marks[own].sum() / max(len(own), 1) ** 0.5 for own in held])
    return sums / length if length > 0 else np.zeros(len(held))


def best_match(scores: Array, *, seed: int) -> IntArray:
    """Candidate of the highest score in every row; equals are drawn by lot."""
    lots = np.random.default_rng(seed).random(scores.shape)
    best = scores == scores.max(axis=1, keepdims=True)
    return np.argmax(np.where(best, lots, -1.0), axis=1).astype(np.int64)


ATTACK = GradientInversion()
