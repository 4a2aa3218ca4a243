"""Full rankings: where each query's relevant candidates stand, counted without favour to either side of a tie.

Scores that differ by at most ``TOLERANCE`` are ties: equal vectors get cosines that differ in the last bit, depending
on where in the table they stand. Memory: queries are taken in chunks of at most ``CHUNK_SCORES`` scores (float64, 32
MiB) and as many relevant entries; beside them a table of 1e6 x 64 costs its unit rows in float64 (512 MB). Time: at
most ``MAX_SCORES`` scores; of a benchmark with more queries than that allows, a random part is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from common.errors import EvaluationError
from common.table import FloatArray, IntArray

CHUNK_SCORES = 1 << 22
MAX_SCORES = 1 << 30  # 1,000 queries of 1e6 candidates, all of 32,000 by 32,000; some minutes on one core
TOLERANCE = 1e-12
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Lists:
    """One list of candidates for each of Q queries.

    Attributes:
        offsets: shape (Q + 1,); query q has ``items[offsets[q]:offsets[q + 1]]``.
        items: candidate numbers, shape (E,); none twice in a list.
        gains: shape (E,), positive; ``None`` where all are 1.
    """

    offsets: IntArray
    items: IntArray
    gains: Doubles | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def sizes(self) -> IntArray:
        """Length of each list, shape (Q,)."""
        return np.diff(self.offsets)

    @cached_property
    def owners(self) -> IntArray:
        """Query of each entry, shape (E,)."""
        return np.repeat(np.arange(len(self)), self.sizes)

    def taken(self, queries: IntArray) -> Lists:
        """The lists of these queries, in their order."""
        sizes, starts = self.sizes[queries], self.offsets[queries]
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        entries = np.repeat(starts - offsets[:-1], sizes) + np.arange(offsets[-1])
        return Lists(offsets, self.items[entries], None if self.gains is None else self.gains[entries])

    def part(self, start: int, stop: int) -> Lists:
        """The lists of the queries ``start`` to ``stop - 1``."""
        return self.taken(np.arange(start, stop))


def lists_of(owners: IntArray, items: IntArray, count: int, *, gains: Doubles | None = None) -> Lists:
    """Entries (owner, item) in any order as ``count`` lists."""
    order = np.argsort(owners, kind="stable")
    offsets = np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=count))]).astype(np.int64)
    return Lists(offsets, items[order], None if gains is None else gains[order])


def _nothing(start: int, stop: int) -> Lists:
    return Lists(np.zeros(stop - start + 1, dtype=np.int64), np.empty(0, dtype=np.int64))


def _nobody() -> IntArray:
    return np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class Ranking:
    """What is ranked for whom; every function takes (first query, last query + 1).

    Attributes:
        queries: Q.
        candidates: N.
        scores: scores of all candidates, shape (queries, N), float64, higher is better; the array is overwritten.
        relevant: relevant candidates, at least one a query, none of them left out.
        left_out: candidates outside this query's ranking: the query itself, answers that are known already.
        left_out_of_all: candidates outside every ranking, shape (n,); in no list of ``left_out``.
    """

    queries: int
    candidates: int
    scores: Callable[[int, int], Doubles]
    relevant: Callable[[int, int], Lists]
    left_out: Callable[[int, int], Lists] = _nothing
    left_out_of_all: IntArray = field(default_factory=_nobody)


@dataclass(frozen=True)
class Places:
    """Where the relevant candidates of some queries stand; one entry a (query, relevant candidate).

    Attributes:
        relevant: the lists; all arrays of shape (E,) go with its entries.
        candidates: number of candidates of each query, shape (Q,).
        better: candidates that score higher.
        tied: candidates that score the same, the entry itself included.
        relevant_better: relevant candidates that score higher.
        relevant_tied: relevant candidates that score the same, the entry itself included.
    """

    relevant: Lists
    candidates: IntArray
    better: IntArray
    tied: IntArray
    relevant_better: IntArray
    relevant_tied: IntArray

    def in_random_order(self) -> Places:
        """The same queries where nothing is known: all candidates tie."""
        owners, none = self.relevant.owners, np.zeros_like(self.better)
        sizes = self.relevant.sizes[owners]
        return Places(self.relevant, self.candidates, none, self.candidates[owners], none, sizes)


def places(ranking: Ranking) -> Iterator[Places]:
    """Rank every query, chunk by chunk.

    Raises:
        EvaluationError: a score is not finite.
    """
    size = max(1, CHUNK_SCORES // ranking.candidates)
    for start in range(0, ranking.queries, size):
        yield _placed(ranking, start, min(start + size, ranking.queries))


def _placed(ranking: Ranking, start: int, stop: int) -> Places:
    scores, relevant = ranking.scores(start, stop), ranking.relevant(start, stop)
    left_out = ranking.left_out(start, stop)
    target = scores[relevant.owners, relevant.items]
    scores[left_out.owners, left_out.items] = -np.inf
    scores[:, ranking.left_out_of_all] = -np.inf
    scores.sort(axis=1)
    if not (np.isfinite(target).all() and np.isfinite(scores[:, -1]).all()):
        raise EvaluationError("scores are not finite", remedy="Score a table of finite numbers.")
    found = np.empty((4, len(target)), dtype=np.int64)
    for query in range(stop - start):
        first, last = relevant.offsets[query], relevant.offsets[query + 1]
        order = np.argsort(target[first:last])  # looked up in ascending order: several times faster for many
        own = target[first:last][order]
        found[:, first + order] = [*_counts(scores[query], own), *_counts(own, own)]
    candidates = ranking.candidates - len(ranking.left_out_of_all) - left_out.sizes
    return Places(relevant, candidates, *found)


def _counts(ascending: Doubles, target: Doubles) -> tuple[IntArray, IntArray]:
    """How many are better than each target, and how many tie with it."""
    upto = np.searchsorted(ascending, target + TOLERANCE, side="right")
    return len(ascending) - upto, upto - np.searchsorted(ascending, target - TOLERANCE, side="left")


def unit_rows(vectors: FloatArray) -> Doubles:
    """Rows scaled to length 1 in float64 (zero rows stay zero): parallel vectors tie to the last few bits.

    Raises:
        EvaluationError: a number is NaN or infinite.
    """
    unit = vectors.astype(np.float64)
    norms = np.sqrt(np.einsum("nd,nd->n", unit, unit))
    if not np.isfinite(norms).all():
        raise EvaluationError("the table holds numbers that are not finite", remedy="Score a table of finite numbers.")
    unit /= np.where(norms > 0, norms, 1.0)[:, None]
    return unit


def asked(queries: int, candidates: int, seed: int) -> IntArray:
    """Numbers of the queries to rank: all, or a random part where the scores would exceed ``MAX_SCORES``."""
    most = max(1, MAX_SCORES // candidates)
    if queries <= most:
        return np.arange(queries)
    return np.sort(np.random.default_rng(seed).choice(queries, most, replace=False))
