"""Inversion of released vectors: which rows went into the mean of a document's, a user's or a basket's row vectors?

The adversary holds the released table and the public popularity. It trains on bags that it draws itself: which of its
inverters does better, and from which score on a row should be named. Then it inverts the vectors of the candidates.
Nothing of this needs the training data, so that no noise in training stops it (``promised`` is false); whoever releases
vectors of documents releases much of the documents.

Source: Song and Raghunathan (2020, arXiv 2004.00053), section 4, for mean-pooled vectors; ``_inverters`` for the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.errors import EvaluationError
from common.evaluation.leak import Leak
from common.evaluation.leakage import required
from common.evaluation.leakage._inverters import INVERTERS, MOST_NAMED, Array, Pool
from common.evaluation.leakage._rates import leak, mean_interval
from common.evaluation.view import Truth, View
from common.table import IntArray
from common.units import Units

OWN_BAGS = 150
CLASSES = 6
MOST_BAGS = 300  # of the candidates; the interval is narrow by then
_THRESHOLDS = 40


@dataclass(frozen=True)
class Trained:
    """What the adversary learned on its own bags, for vectors of like length: the mean of few rows is a long vector.

    Attributes:
        edges: lengths that divide the classes, ascending, shape (K - 1,).
        inverters: name of the best inverter of each class, and
        thresholds: the lowest score of a row that it should name.
        popular: the rows to name when nothing is seen.
    """

    edges: Array
    inverters: tuple[str, ...]
    thresholds: tuple[float, ...]
    popular: IntArray


class Inversion:
    """``inversion``: F1 of the rows named, beside naming the most popular rows."""

    name = "inversion"
    sees = "table"
    promised = False

    def run(self, view: View, truth: Truth, *, seed: int) -> list[Leak]:
        """Mean F1 over the candidates that hold at least one row.

        Raises:
            EvaluationError: no table, no candidates, rows outside of the table, or a prior that does not fit it.
        """
        table = required(view.table, self.name, "a released table")
        candidates = truth.candidates
        if candidates is None or not candidates.count:
            raise EvaluationError("the attack inversion needs candidates whose vectors it inverts")
        pool = pool_of(table.vectors, view.prior)
        bags = _bags(candidates.rows, len(table), seed=seed)
        rng = np.random.default_rng([seed, 1])
        # Sizes from 1 to 64, evenly on a logarithmic scale: the true ones are not known.
        trained = trained_on(pool, np.floor(2.0 ** rng.uniform(0, 6, OWN_BAGS)).astype(np.int64), rng)
        vectors = pool.pooled(bags.offsets, bags.columns["rows"])
        found = f1_of(guessed(pool, vectors, trained), bags)
        blind = f1_of(np.tile(trained.popular, (bags.count, 1)), bags)
        figure = (float(found.mean()), *mean_interval(found, seed=seed))
        return [leak(self, "f1", figure, bags.count, chance=("most popular rows", float(blind.mean())))]


def pool_of(vectors: NDArray[np.float32], prior: Array) -> Pool:
    """The pooling with the prior scaled to sum to one.

    Raises:
        EvaluationError: not one finite popularity a row, negative ones, or none above zero.
    """
    if prior.shape != (len(vectors),) or not np.isfinite(prior).all() or prior.min() < 0 or prior.sum() <= 0:
        raise EvaluationError("the popularity of the rows is not one finite number a row, at least one above zero")
    return Pool(vectors, prior / prior.sum())


def _bags(units: Units, rows: int, *, seed: int) -> Units:
    """Candidates with rows, at most ``MOST_BAGS`` of them."""
    held = units.columns.get("rows")
    if held is None or (len(held) and (int(held.min()) < 0 or int(held.max()) >= rows)):
        raise EvaluationError("the candidates of the attack inversion hold rows that the table does not have")
    filled = np.flatnonzero(np.diff(units.offsets) > 0)
    if not len(filled):
        raise EvaluationError("no candidate of the attack inversion holds a row")
    if len(filled) > MOST_BAGS:
        filled = np.sort(np.random.default_rng([seed, 2]).choice(filled, MOST_BAGS, replace=False))
    return units.take(filled)


def trained_on(pool: Pool, sizes: IntArray, rng: np.random.Generator) -> Trained:
    """The best inverter and threshold of each class, on bags of the given sizes drawn from the prior."""
    offsets, rows = pool.drawn(sizes, rng)
    own = Units(offsets, {"rows": rows})
    vectors = pool.pooled(offsets, rows)
    found = {name: inverter(pool, vectors) for name, inverter in INVERTERS.items()}
    lengths = pool.lengths(vectors)
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, CLASSES + 1)[1:-1]))
    chosen: list[tuple[str, float]] = []
    for number in range(len(edges) + 1):
        members = np.flatnonzero(np.searchsorted(edges, lengths) == number)
        chosen.append(_best(found, own, members) if len(members) else chosen[-1] if chosen else ("linear", 0.0))
    popular = np.argsort(-pool.probabilities, kind="stable")[: int(sizes.max())]
    blind = [float(f1_of(np.tile(popular[:k], (own.count, 1)), own).mean()) for k in range(1, len(popular) + 1)]
    inverters, thresholds = zip(*chosen, strict=True)
    return Trained(edges, inverters, thresholds, popular[: 1 + int(np.argmax(blind))])


def _best(found: Mapping[str, tuple[IntArray, Array]], own: Units, members: IntArray) -> tuple[str, float]:
    """Inverter and threshold of the highest mean F1 over some of the adversary's own bags."""
    bags, best = own.take(members), (-1.0, "", 0.0)
    for name, (rows, scores) in found.items():
        for threshold in np.quantile(scores[members], np.linspace(0, 1, _THRESHOLDS)).tolist():
            value = float(f1_of(_above(rows[members], scores[members], threshold), bags).mean())
            best = max(best, (value, name, threshold), key=lambda tried: tried[0])
    return best[1:]


def guessed(pool: Pool, vectors: Array, trained: Trained) -> IntArray:
    """Rows named of each vector, -1 where none: shape (N, ``MOST_NAMED``)."""
    named = np.full((len(vectors), MOST_NAMED), -1, np.int64)
    group = np.searchsorted(trained.edges, pool.lengths(vectors))
    for number, (name, threshold) in enumerate(zip(trained.inverters, trained.thresholds, strict=True)):
        members = np.flatnonzero(group == number)
        rows, scores = INVERTERS[name](pool, vectors[members])
        named[members, : rows.shape[1]] = _above(rows, scores, threshold)
    return named


def _above(rows: IntArray, scores: Array, threshold: float) -> IntArray:
    return np.where(scores >= threshold, rows, -1)


def f1_of(named: IntArray, bags: Units) -> Array:
    """F1 of each bag's named rows (N, named; distinct, -1 for none) against its distinct rows. Shape (N,)."""
    owners = np.repeat(np.arange(bags.count), np.diff(bags.offsets))
    width = int(max(bags.columns["rows"].max(initial=0), named.max(initial=0))) + 1
    true = np.unique(owners * width + bags.columns["rows"])
    present = named >= 0
    keys = np.repeat(np.arange(bags.count), present.sum(axis=1)) * width + named[present]
    hits = np.bincount(keys[np.isin(keys, true)] // width, minlength=bags.count)
    held = np.bincount(true // width, minlength=bags.count)
    return 2.0 * hits / np.maximum(present.sum(axis=1) + held, 1)


ATTACK = Inversion()
