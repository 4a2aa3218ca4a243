"""Link prediction: are two rows that a held-out edge joins closer than two that none joins?

Scored by cosine, and only by cosine: the decoder moves the figure by more than methods differ. Pairs have no
direction. A file of lines ``key<TAB>key[<TAB>test|train|negative]`` gives held-out edges (the default), edges that
training saw, and pairs that are no edge; without the last, as many as held-out edges are drawn with the seed from the
pairs of the table that the file names in no role.

``auc`` and ``average_precision`` set held-out edges against negatives. ``hits@k`` and ``mrr`` rank, for either end of
a held-out edge, the other end among all rows of the table, filtered: known neighbours are left out (Bordes et al. 2013;
the rank is the mean of the best and the worst possible one among ties, as in OGB and PyKEEN).

Beside them, where training edges are given, preferential attachment (the product of training degrees, Liben-Nowell and
Kleinberg 2007), otherwise a random order. What bounds memory: ``_ranking.CHUNK_SCORES``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from common.errors import EvaluationError
from common.evaluation.quality import _ranking_metrics as metrics
from common.evaluation.quality._edges import Edges, read_edges, with_negatives
from common.evaluation.quality._fields import task_label
from common.evaluation.quality._intervals import bootstrap_interval
from common.evaluation.quality._ranking import Doubles, Lists, Places, Ranking, asked, places, unit_rows
from common.evaluation.quality._two_classes import by_chance, separation
from common.evaluation.score import Score
from common.table import EmbeddingTable, IntArray

CUTOFFS = (1, 3, 10)
DEGREES = "preferential attachment"
Scorer = Callable[[IntArray], Doubles]  # rows -> scores of all rows beside each, shape (len(rows), V)


class LinkPrediction:
    """``link_prediction:FILE``: see the module."""

    name = "link_prediction"
    needs = "table"
    reads_training_data = True  # degrees and filters are functions of training edges

    def score(self, table: EmbeddingTable, benchmark: Path | None, *, seed: int) -> list[Score]:
        """``auc``, ``average_precision``, ``hits@1``, ``hits@3``, ``hits@10`` and ``mrr``, with bootstrap intervals.

        Intervals are over held-out edges (and, for the first two, negatives): what other edges of this graph, held out
        alike, would give. The coverage is the share of held-out edges with both keys; n counts the pairs parted, or the
        held-out edges ranked.

        Raises:
            EvaluationError: unreadable or malformed file, no covered held-out edge, too few pairs to draw negatives
                from, or vectors that give all pairs the same score.
        """
        edges = with_negatives(read_edges(benchmark, table), seed)
        make = partial(
            Score,
            task=task_label(self.name, benchmark),
            coverage=len(edges.test) / edges.asked,
            higher_is_better=True,
            baseline_name=DEGREES if len(edges.train) else metrics.BASELINE,
        )
        return [*_parted(table, edges, make, seed), *_ranked(table, edges, make, seed)]


def _parted(table: EmbeddingTable, edges: Edges, make: Callable[..., Score], seed: int) -> Iterator[Score]:
    pairs = (edges.test, edges.negative)
    positive, negative = (_cosines(table, pair) for pair in pairs)
    if np.ptp(np.concatenate([positive, negative])) <= 1e-12:
        raise EvaluationError("the table gives all pairs the same cosine: there is nothing to part them by")
    parted = separation(positive, negative)
    baseline = by_chance(len(positive), len(negative))
    if len(edges.train):
        baseline = separation(*(edges.degrees[pair].astype(np.float64).prod(axis=1) for pair in pairs)).metrics()
    named = ("auc", "average_precision")
    for name, value, interval, chance in zip(named, parted.metrics(), parted.intervals(seed), baseline, strict=True):
        n, (low, high) = len(positive) + len(negative), interval
        yield make(metric=name, value=value, ci_low=low, ci_high=high, n=n, baseline_value=chance)


def _cosines(table: EmbeddingTable, pairs: IntArray) -> Doubles:
    left, right = (unit_rows(table.vectors[pairs[:, side]]) for side in (0, 1))
    return np.einsum("nd,nd->n", left, right)


def _ranked(table: EmbeddingTable, edges: Edges, make: Callable[..., Score], seed: int) -> Iterator[Score]:
    chosen = asked(len(edges.test), 2 * edges.rows, seed)
    unit = unit_rows(table.vectors)
    ranks, candidates = filtered_ranks(edges, chosen, lambda rows: unit[rows] @ unit.T)
    chance = _by_chance(candidates)
    if len(edges.train):
        degrees = edges.degrees.astype(np.float64)
        chance = _metrics(filtered_ranks(edges, chosen, lambda rows: np.tile(degrees, (len(rows), 1)))[0])
    for name, values in _metrics(ranks).items():
        of_edge = values.mean(axis=1)
        low, high = bootstrap_interval(of_edge, seed)
        mean, blind = float(of_edge.mean()), float(chance[name].mean())
        yield make(metric=name, value=mean, ci_low=low, ci_high=high, n=len(of_edge), baseline_value=blind)


def filtered_ranks(edges: Edges, chosen: IntArray, scorer: Scorer) -> tuple[Doubles, IntArray]:
    """Rank, from 1, of either end of each chosen held-out edge as seen from the other, and how many were ranked.

    Args:
        chosen: numbers of held-out edges, shape (C,).

    Returns:
        Two arrays of shape (C, 2), in the order of ``rows * first + second``.
    """
    rest = np.delete(edges.test, chosen, axis=0)
    held, known = edges.neighbours(edges.test[chosen]), edges.neighbours(np.concatenate([edges.train, rest]))
    ends = np.flatnonzero(held.sizes)

    def left_out(start: int, stop: int) -> Lists:
        own = ends[start:stop]
        lists = known.taken(own)
        offsets = lists.offsets + np.arange(len(lists.offsets))  # each list grows by its own row
        return Lists(offsets, np.insert(lists.items, lists.offsets[:-1], own))

    ranking = Ranking(
        queries=len(ends),
        candidates=edges.rows,
        scores=lambda a, b: scorer(ends[a:b]),
        relevant=held.taken(ends).part,
        left_out=left_out,
    )
    found = [_ranks(chunk) for chunk in places(ranking)]
    owners, others = ends[held.taken(ends).owners], held.taken(ends).items
    by_edge = np.argsort(np.minimum(owners, others) * edges.rows + np.maximum(owners, others), kind="stable")
    ranks, candidates = (np.concatenate(part)[by_edge].reshape(-1, 2) for part in zip(*found, strict=True))
    return ranks, candidates


def _ranks(found: Places) -> tuple[Doubles, IntArray]:
    """Mean of the best and the worst rank among ties, and the candidates; other held-out neighbours left out."""
    ranks = 1 + (found.better - found.relevant_better) + (found.tied - found.relevant_tied) / 2
    return ranks, (found.candidates - found.relevant.sizes + 1)[found.relevant.owners]


def _metrics(ranks: Doubles) -> dict[str, Doubles]:
    return {f"hits@{k}": (ranks <= k).astype(np.float64) for k in CUTOFFS} | {"mrr": 1.0 / ranks}


def _by_chance(candidates: IntArray) -> dict[str, Doubles]:
    """Expectation of the metrics of one candidate in a random order of so many."""
    harmonic = np.cumsum(1.0 / np.arange(1, int(candidates.max()) + 1))
    hits: dict[str, Doubles] = {f"hits@{k}": np.minimum(k / candidates, 1.0) for k in CUTOFFS}
    return hits | {"mrr": harmonic[candidates - 1] / candidates}


TASK = LinkPrediction()
