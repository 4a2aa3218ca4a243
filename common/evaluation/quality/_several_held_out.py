"""Recommendation where users have several held-out items: each is ranked among all items but the training ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from common.evaluation.quality._ranking import Doubles, Lists, Ranking
from common.evaluation.quality._ranking_metrics import (
    Metric,
    hit,
    mean_scores,
    measured,
    ndcg,
    recall,
    reciprocal_rank,
    values_and_chance,
)
from common.evaluation.score import Score

if TYPE_CHECKING:
    from common.evaluation.quality.recommendation import RecommendationBenchmark

Scorer = Callable[[int, int], NDArray[np.floating]]


def scores_of_several(
    split: RecommendationBenchmark, scorer: Scorer, popular: Scorer, *, cutoff: int, seed: int
) -> list[Score]:
    """``hit_rate``, ``ndcg`` and ``recall`` at the cutoff and ``mrr``: means over users, beside those of ``popular``.

    Raises:
        EvaluationError: the scorer gives every item of every user the same score, or one that is not finite.
    """
    metrics: dict[str, Metric] = {
        f"hit_rate@{cutoff}": partial(hit, k=cutoff),
        f"ndcg@{cutoff}": partial(ndcg, k=cutoff),
        f"recall@{cutoff}": partial(recall, k=cutoff),
        "mrr": reciprocal_rank,
    }
    found = measured(_ranking(split, scorer), metrics)
    popularity, _ = values_and_chance(_ranking(split, popular), metrics)
    beside = {name: (values, popularity[name][0]) for name, (values, _) in found.items()}
    return mean_scores(beside, task="recommendation", coverage=1.0, seed=seed, baseline="popularity")


def _ranking(split: RecommendationBenchmark, scorer: Scorer) -> Ranking:
    def scores(start: int, stop: int) -> Doubles:
        return np.array(scorer(start, stop), dtype=np.float64)  # a copy: rankings write into it

    return Ranking(
        queries=len(split),
        candidates=split.rows,
        scores=scores,
        relevant=split.held_out_lists.part,
        left_out=Lists(split.offsets, split.items).part,
    )
