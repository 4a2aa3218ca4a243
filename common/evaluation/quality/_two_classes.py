"""How well scores part two classes: area under the ROC curve and average precision, with weights for resampling."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.evaluation.quality._intervals import RESAMPLES
from common.table import IntArray

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Separation:
    """Scores of n items in descending order, grouped where they are equal.

    Attributes:
        order: item numbers by descending score, shape (n,).
        starts: where each group of equal scores begins in ``order``.
        positive: shape (n,), whether an item (not in order) is of the positive class.
    """

    order: IntArray
    starts: IntArray
    positive: NDArray[np.bool_]

    def metrics(self, weights: NDArray[np.floating] | IntArray | None = None) -> tuple[float, float]:
        """(area under the ROC curve, average precision); a weight counts an item that many times.

        Ties: a positive and a negative of one score count one half in the area, and items of one score enter the
        precision together, as in scikit-learn's ``roc_auc_score`` and ``average_precision_score``.
        """
        weighed = np.ones(len(self.order)) if weights is None else weights.astype(np.float64)
        right = np.add.reduceat((weighed * self.positive)[self.order], self.starts)
        wrong = np.add.reduceat((weighed * ~self.positive)[self.order], self.starts)
        hits, false = np.cumsum(right), np.cumsum(wrong)
        area = float(np.sum(right * (false[-1] - false + wrong / 2)) / (hits[-1] * false[-1]))
        drawn = np.maximum(hits + false, 1)  # zero only where all weights so far are zero: nothing is counted there
        return area, float(np.sum(right * hits / drawn) / hits[-1])

    def intervals(self, seed: int) -> tuple[tuple[float, float], tuple[float, float]]:
        """95 % percentile intervals of both, each class resampled by itself (Efron 1979)."""
        rng, weights = np.random.default_rng(seed), np.zeros(len(self.order))
        classes = [np.flatnonzero(self.positive), np.flatnonzero(~self.positive)]
        values = []
        for _ in range(RESAMPLES):
            for own in classes:
                weights[own] = np.bincount(rng.integers(0, len(own), len(own)), minlength=len(own))
            values.append(self.metrics(weights))
        (area_low, precision_low), (area_high, precision_high) = np.quantile(values, [0.025, 0.975], axis=0)
        return (float(area_low), float(area_high)), (float(precision_low), float(precision_high))


def separation(positive: Doubles, negative: Doubles) -> Separation:
    """Scores of the positive and of the negative items, at least one each, all finite."""
    scores = np.concatenate([positive, negative])
    order = np.argsort(-scores, kind="stable")
    starts = np.concatenate([[0], np.flatnonzero(np.diff(scores[order])) + 1]).astype(np.int64)
    return Separation(order, starts, np.arange(len(scores)) < len(positive))


def by_chance(positives: int, negatives: int) -> tuple[float, float]:
    """Expected area and average precision of a random order without ties.

    Source: McSherry and Najork, ECIR 2008, section 3, with all items tied.
    """
    n = positives + negatives
    harmonic = float(np.sum(1.0 / np.arange(1, n + 1)))
    return 0.5, (harmonic + (positives - 1) / max(n - 1, 1) * (n - harmonic)) / n
