"""Metrics of a ranking, each as its expectation when candidates that tie are put in random order.

So neither a table of constants nor a lucky order of keys gains anything. Without ties these are the metrics of
trec_eval and ranx; with ties nDCG is scikit-learn's. Source: McSherry and Najork, "Computing information retrieval
performance measures efficiently in the presence of tied scores" (ECIR 2008), sections 2 and 3.

Throughout, a group of tied candidates has ``t`` better ones, ``n`` members and ``r`` relevant members.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from common.errors import EvaluationError
from common.evaluation.quality._intervals import bootstrap_interval
from common.evaluation.quality._ranking import Doubles, Places, Ranking, places
from common.evaluation.score import Score
from common.table import IntArray

BASELINE = "random order"
Metric = Callable[[Places], Doubles]  # one value a query
Measured = Mapping[str, tuple[Doubles, Doubles]]  # metric -> (values, values of a random order), each of shape (Q,)


def measured(ranking: Ranking, metrics: Mapping[str, Metric]) -> Measured:
    """Every metric for every query, beside its exact expectation for a random order.

    Raises:
        EvaluationError: not a finite score, or no query for which any two candidates differ.
    """
    found, ranks_something = values_and_chance(ranking, metrics)
    if not ranks_something:
        raise EvaluationError(
            "every candidate scores the same for every query: there is no order to judge",
            remedy="Score a table whose vectors differ, on a benchmark with more than one candidate.",
        )
    return found


def values_and_chance(ranking: Ranking, metrics: Mapping[str, Metric]) -> tuple[Measured, bool]:
    """As ``measured``, and whether any two candidates of a query differ. Raises ``EvaluationError``: not finite."""
    parts: dict[str, list[tuple[Doubles, Doubles]]] = {name: [] for name in metrics}
    ranks_something = False
    for chunk in places(ranking):
        ranks_something |= bool(np.any(chunk.tied < chunk.candidates[chunk.relevant.owners]))
        blind = chunk.in_random_order()
        for name, metric in metrics.items():
            parts[name].append((metric(chunk), metric(blind)))
    joined = {name: [np.concatenate(side) for side in zip(*own, strict=True)] for name, own in parts.items()}
    return {name: (values, chance) for name, (values, chance) in joined.items()}, ranks_something


def mean_scores(found: Measured, *, task: str, coverage: float, seed: int, baseline: str = BASELINE) -> list[Score]:
    """Means over the queries with bootstrap intervals; higher is better."""
    make = partial(Score, task=task, coverage=coverage, higher_is_better=True, baseline_name=baseline)
    scores = []
    for name, (values, chance) in found.items():
        low, high = bootstrap_interval(values, seed)
        n, mean = len(values), float(values.mean())
        scores.append(make(metric=name, value=mean, ci_low=low, ci_high=high, n=n, baseline_value=float(chance.mean())))
    return scores


def recall(found: Places, *, k: int) -> Doubles:
    """Share of the relevant candidates among the first ``k``."""
    inside = np.clip(k - found.better, 0, found.tied) / found.tied
    return _summed(found, inside) / found.relevant.sizes


def hit(found: Places, *, k: int) -> Doubles:
    """Probability that any relevant candidate is among the first ``k``."""
    t, n, r = _first_groups(found)
    places_left, missed = np.clip(k - t, 0, n), np.ones(len(t))
    for taken in range(k):
        missed *= np.where(taken < places_left, np.maximum(n - r - taken, 0) / np.maximum(n - taken, 1), 1.0)
    return 1.0 - missed


def ndcg(found: Places, *, k: int) -> Doubles:
    """Discounted cumulative gain of the first ``k`` over the best possible one; gains count linearly.

    Source: Jarvelin and Kekalainen, ACM TOIS 2002, with the discount ``1 / log2(place + 1)``.
    """
    upto = np.concatenate([[0.0], np.cumsum(1.0 / np.log2(np.arange(2, k + 2)))])
    lists = found.relevant
    mean_discount = (upto[np.minimum(found.better + found.tied, k)] - upto[np.minimum(found.better, k)]) / found.tied
    if lists.gains is None:
        return _summed(found, mean_discount) / upto[np.minimum(lists.sizes, k)]
    best_first = np.lexsort((-lists.gains, lists.owners))
    place = np.arange(len(lists.gains)) - lists.offsets[lists.owners]
    ideal = lists.gains[best_first] * (upto[np.minimum(place + 1, k)] - upto[np.minimum(place, k)])
    return _summed(found, lists.gains * mean_discount) / _summed(found, ideal)


def reciprocal_rank(found: Places) -> Doubles:
    """One over the rank of the first relevant candidate; its mean is the MRR."""
    groups, which = np.unique(np.stack(_first_groups(found), axis=1), axis=0, return_inverse=True)
    return np.array([_expected_reciprocal(*map(int, group)) for group in groups])[which.reshape(-1)]


def average_precision(found: Places) -> Doubles:
    """Mean, over the relevant candidates, of the precision at their places; its mean over queries is the MAP."""
    harmonic = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, int(found.candidates.max()) + 1))])
    t, n = found.better, found.tied
    inverse = harmonic[t + n] - harmonic[t]  # sum of 1 / (t + j) over the places j = 1 .. n of the group
    others = (found.relevant_tied - 1) / np.maximum(n - 1, 1)  # chance that another place of the group is relevant
    # at place t + j: relevant ones above are relevant_better and, of the group's own, (j - 1) * others on average
    expected = ((found.relevant_better + 1) * inverse + others * (n - (t + 1) * inverse)) / n
    return _summed(found, expected) / found.relevant.sizes


def first_rank(found: Places) -> Doubles:
    """Expected rank, counted from 1, of the first relevant candidate."""
    t, n, r = _first_groups(found)
    rank: Doubles = t + (n + 1) / (r + 1)
    return rank


def _expected_reciprocal(t: int, n: int, r: int) -> float:
    """Expectation of ``1 / (t + j)`` where j is the place of the first of r relevant among n in random order."""
    taken = np.arange(n - r + 1)  # so many irrelevant ones stand before it
    none_yet = np.concatenate([[1.0], np.cumprod((n - r - taken[:-1]) / (n - taken[:-1]))])
    return float(np.sum(none_yet * r / (n - taken) / (t + 1 + taken)))


def _first_groups(found: Places) -> tuple[IntArray, IntArray, IntArray]:
    """t, n and r of the best group of each query that holds a relevant candidate, shapes (Q,)."""
    owners, best = found.relevant.owners, np.minimum.reduceat(found.better, found.relevant.offsets[:-1])
    entries = np.flatnonzero(found.better == best[owners])
    one = np.empty(len(best), dtype=np.int64)
    one[owners[entries]] = entries
    return best, found.tied[one], found.relevant_tied[one]


def _summed(found: Places, entries: Doubles) -> Doubles:
    return np.bincount(found.relevant.owners, weights=entries, minlength=len(found.relevant)).astype(np.float64)
