"""How well scores tell included canaries from the others: area under the curve, true positives at few false ones.

Descriptions with intervals for independent canaries, not bounds on epsilon. A NaN score never helps: it ranks last for
an included canary and first for one that was left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from common.evaluation.audit._checks import against, as_scored, refused, require_error_rate
from common.evaluation.audit.bounds import Floats
from common.evaluation.audit.thresholds import PUBLIC_SEED

FALSE_POSITIVE_RATES = (0.01, 0.1)
RESAMPLES = 1_000
_EDGE = 1e-12


@dataclass(frozen=True)
class Interval:
    """A figure and its interval."""

    value: float
    low: float
    high: float


def auc(scores: ArrayLike, included: ArrayLike, *, alpha: float = 0.05) -> Interval:
    """Chance that an included canary scores above one that was left out, ties half, with Newcombe's interval.

    The interval (Newcombe 2006, method 5) inverts a score test with Hanley and McNeil's variance; it does not shrink to
    a point where the kinds are apart.

    Raises:
        EvaluationError: scores and answers that do not fit, or ``alpha`` out of range.
    """
    from scipy.optimize import brentq
    from scipy.special import ndtri

    require_error_rate(alpha)
    members, others = _kinds(scores, included)
    ordered = np.sort(others)
    below = np.searchsorted(ordered, members, side="left") + np.searchsorted(ordered, members, side="right")
    value = float(below.sum() / 2 / (len(members) * len(others)))
    z, pairs = float(-ndtri(alpha / 2)), len(members) * len(others)
    n = (len(members) + len(others)) / 2

    def outside(area: float) -> float:
        variance = area * (1 - area) * (1 + (n - 1) * ((1 - area) / (2 - area) + area / (1 + area))) / pairs
        return abs(area - value) - z * math.sqrt(variance)

    inner = min(max(value, _EDGE), 1 - _EDGE)  # at 0 and 1 themselves the variance is 0
    low = float(brentq(outside, 0.0, inner)) if value > 0 else 0.0
    high = float(brentq(outside, inner, 1.0)) if value < 1 else 1.0
    return Interval(value, low, high)


def true_positive_rate(
    scores: ArrayLike, included: ArrayLike, *, false_positive_rate: float, alpha: float = 0.05
) -> Interval:
    """Share of included canaries above the threshold that at most this share of the others passes.

    The interval is the bootstrap's (percentiles, both kinds resampled, the threshold found anew each time).

    Raises:
        EvaluationError: fewer left-out canaries than the rate can be measured with, or a rate out of range.
    """
    require_error_rate(alpha)
    require_error_rate(false_positive_rate)
    members, others = _kinds(scores, included)
    if len(others) * false_positive_rate < 1:
        raise refused(f"a false positive rate of {false_positive_rate} cannot be seen on {len(others)} canaries")
    rng = np.random.default_rng(PUBLIC_SEED)
    drawn = np.empty(RESAMPLES)
    for i in range(RESAMPLES):
        inside = members[rng.integers(len(members), size=len(members))]
        drawn[i] = _passing(inside, others[rng.integers(len(others), size=len(others))], false_positive_rate)
    low, high = np.quantile(drawn, [alpha / 2, 1 - alpha / 2])
    return Interval(_passing(members, others, false_positive_rate), float(low), float(high))


def _passing(members: Floats, others: Floats, rate: float) -> float:
    """Share of members strictly above the score that floor(rate * n) of the others exceed."""
    allowed = int(rate * len(others))
    edge = np.partition(others, len(others) - allowed - 1)[len(others) - allowed - 1]
    return float(np.mean(members > edge))


def _kinds(scores: ArrayLike, included: ArrayLike) -> tuple[Floats, Floats]:
    found, answers = as_scored(scores, included)
    filled = against(found, answers)
    return filled[answers], filled[~answers]
