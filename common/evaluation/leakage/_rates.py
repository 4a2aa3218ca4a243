"""Rates of success with their 95 % intervals, shared by the attacks.

Every figure of a ranking (AUC, average precision, TPR at a fixed FPR) is a function of two tallies: how many positives
and how many negatives have each score, from the highest score to the lowest. A bootstrap resample of the units only
changes the tallies, so that scores are sorted once. Candidates of equal score share one place: none of them counts as
found before the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from common.errors import EvaluationError
from common.evaluation.leak import Leak
from common.evaluation.leakage import Attack

FloatVector = NDArray[np.float64]
BoolVector = NDArray[np.bool_]
Interval = tuple[float, float]
Metric = Callable[[FloatVector, FloatVector], FloatVector]

RESAMPLES = 1_000
FPRS = (0.01, 0.001)
NO_INTERVAL = (math.nan, math.nan)
_TAIL = 0.025
_CHUNK_DRAWS = 1 << 20


def auc(positives: FloatVector, negatives: FloatVector) -> FloatVector:
    """Area under the ROC curve: how often a positive scores above a negative, equals half (Hanley and McNeil 1982).

    Args:
        positives, negatives: tallies, shape (..., places), best place first.
    """
    below = negatives.sum(axis=-1, keepdims=True) - np.cumsum(negatives, axis=-1)
    won = (positives * (below + negatives / 2)).sum(axis=-1)
    with np.errstate(invalid="ignore"):
        return won / (positives.sum(axis=-1) * negatives.sum(axis=-1))


def average_precision(positives: FloatVector, negatives: FloatVector) -> FloatVector:
    """Mean over the positives of the precision at their place, without interpolation; arguments as for ``auc``."""
    found = np.cumsum(positives, axis=-1)
    named = found + np.cumsum(negatives, axis=-1)
    with np.errstate(invalid="ignore"):
        return (positives * found / np.maximum(named, 1)).sum(axis=-1) / positives.sum(axis=-1)


def tpr_at(fpr: float) -> Metric:
    """Share of the positives in places that at most ``fpr`` of the negatives reach (Carlini et al. 2022)."""

    def tpr(positives: FloatVector, negatives: FloatVector) -> FloatVector:
        allowed = np.floor(fpr * negatives.sum(axis=-1, keepdims=True) + 1e-9)
        with np.errstate(invalid="ignore"):
            return (positives * (np.cumsum(negatives, axis=-1) <= allowed)).sum(axis=-1) / positives.sum(axis=-1)

    return tpr


def places(scores: FloatVector) -> NDArray[np.int64]:
    """Place of each candidate, 0 for the highest score; equals share one.

    Raises:
        EvaluationError: a score is not a number.
    """
    if np.isnan(scores).any():
        raise EvaluationError("an attack gave a score that is not a number")
    return np.unique(-scores, return_inverse=True)[1].astype(np.int64).reshape(-1)


def tallies(scores: FloatVector, positive: BoolVector) -> tuple[FloatVector, FloatVector]:
    """How many positives, and how many negatives, have each place."""
    place = places(scores)
    count = int(place.max(initial=-1)) + 1
    positives = np.bincount(place[positive], minlength=count)
    return positives.astype(np.float64), np.bincount(place[~positive], minlength=count).astype(np.float64)


def ranked(metric: Metric, scores: FloatVector, positive: BoolVector) -> float:
    """A figure of a ranking; NaN where one kind is missing."""
    return float(metric(*tallies(scores, positive))) if 0 < positive.sum() < len(positive) else math.nan


def ranked_intervals(
    metrics: Sequence[Metric], scores: FloatVector, positive: BoolVector, *, seed: int
) -> list[Interval]:
    """Bootstrap percentile interval of each figure (Efron 1979); positives and negatives are drawn among themselves."""
    place, rng = places(scores), np.random.default_rng(seed)
    count = int(place.max(initial=-1)) + 1
    kinds = [np.flatnonzero(positive), np.flatnonzero(~positive)]
    if min(map(len, kinds)) < 2:
        return [NO_INTERVAL] * len(metrics)
    values: list[list[FloatVector]] = [[] for _ in metrics]
    size = max(1, _CHUNK_DRAWS // len(place))
    for start in range(0, RESAMPLES, size):
        drawn = min(size, RESAMPLES - start)
        positives, negatives = (_resampled(place[kind], count, drawn, rng) for kind in kinds)
        for found, metric in zip(values, metrics, strict=True):
            found.append(metric(positives, negatives))
    return [percentiles(np.concatenate(found)) for found in values]


def percentiles(values: FloatVector) -> Interval:
    """The middle 95 % of the values."""
    low, high = np.quantile(values, [_TAIL, 1 - _TAIL])
    return float(low), float(high)


def _resampled(place: NDArray[np.int64], count: int, draws: int, rng: np.random.Generator) -> FloatVector:
    """Tallies of ``draws`` resamples, shape (draws, count)."""
    index = place[rng.integers(len(place), size=(draws, len(place)))] + count * np.arange(draws)[:, None]
    return np.bincount(index.ravel(), minlength=draws * count).reshape(draws, count).astype(np.float64)


def clopper_pearson(successes: int, n: int) -> Interval:
    """Exact 95 % interval of a proportion (Clopper and Pearson 1934)."""
    from scipy.stats import beta

    low = 0.0 if successes == 0 else float(beta.ppf(_TAIL, successes, n - successes + 1))
    high = 1.0 if successes == n else float(beta.ppf(1 - _TAIL, successes + 1, n - successes))
    return low, high


def tpr_by_chance(fpr: float, negatives: int) -> float:
    """Expected TPR of scores that say nothing: thresholds are taken from the negatives, so it is above ``fpr``.

    A positive is as likely as each of the n negatives to take any place: (floor(fpr n) + 1) / (n + 1).
    """
    return (math.floor(fpr * negatives + 1e-9) + 1) / (negatives + 1)


def mean_interval(values: FloatVector, *, seed: int) -> Interval:
    """Bootstrap percentile interval of a mean over clients or rounds; none for fewer than two."""
    if len(values) < 2:
        return NO_INTERVAL
    index = np.random.default_rng(seed).integers(len(values), size=(RESAMPLES, len(values)))
    return percentiles(values[index].mean(axis=1))


def detection_leaks(
    attack: Attack, statistics: Mapping[str, FloatVector], member: BoolVector, *, seed: int
) -> list[Leak]:
    """AUC and TPR at each of ``FPRS`` of every statistic; a TPR with fewer than 1 / FPR negatives is left out.

    The interval of a TPR is the wider of Clopper-Pearson's, which takes the threshold as fixed, and the bootstrap's,
    which sees that the threshold comes from few negatives.
    """
    negatives, total = int((~member).sum()), int(member.sum())
    rates = [fpr for fpr in FPRS if negatives * fpr >= 1 - 1e-9]
    metrics = [auc, *(tpr_at(fpr) for fpr in rates)]
    found = []
    for name, scores in statistics.items():
        values = [ranked(metric, scores, member) for metric in metrics]
        drawn = ranked_intervals(metrics, scores, member, seed=seed)
        found.append(leak(attack, f"auc:{name}", (values[0], *drawn[0]), len(member), chance=("coin", 0.5)))
        for fpr, value, interval in zip(rates, values[1:], drawn[1:], strict=True):
            exact = clopper_pearson(round(value * total), total)
            wide = (float(np.fmin(exact[0], interval[0])), float(np.fmax(exact[1], interval[1])))
            chance = ("coin", tpr_by_chance(fpr, negatives))
            found.append(leak(attack, f"tpr@{fpr}:{name}", (value, *wide), len(member), chance=chance))
    return found


def leak(attack: Attack, metric: str, figure: tuple[float, float, float], n: int, *, chance: tuple[str, float]) -> Leak:
    """A leak of ``attack``; ``figure`` is (value, low, high)."""
    value, low, high = figure
    return Leak(
        attack=attack.name,
        sees=attack.sees,
        metric=metric,
        value=value,
        ci_low=low,
        ci_high=high,
        n=n,
        chance_name=chance[0],
        chance_value=chance[1],
        promised=attack.promised,
    )
