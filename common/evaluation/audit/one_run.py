"""Bounds from one run with many canaries, each included by a fair coin of its own; canaries may depend on one another.

Of m canaries the auditor calls the ``top`` by score included and the ``bottom`` left out: r guesses, of which v are
right. Steinke, Nasr and Jagielski (2023, Theorem 5.2) bound epsilon at delta; Mahloujifar, Melis and Chaudhuri (2024,
Algorithm 3) bound the trade-off curve, here within the Gaussian family. Both hold when r is fixed before the scores.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from common.evaluation.audit._checks import (
    against,
    as_scored,
    refused,
    require_delta,
    require_epsilon,
    require_error_rate,
    require_whole,
)
from common.evaluation.audit.bounds import epsilon_of_mu

_NORMAL = NormalDist()
_MOST_EPSILON = 700.0
_PRECISION = 1e-8


@dataclass(frozen=True)
class Guesses:
    """What the auditor's guesses came to.

    Attributes:
        canaries: m, all that were drawn for.
        made: r, for how many a guess was made; fixed in advance.
        right: v, how many of these are right.

    Raises:
        EvaluationError: not 0 <= right <= made <= canaries, or no guess.
    """

    canaries: int
    made: int
    right: int

    def __post_init__(self) -> None:
        require_whole("the number of canaries", self.canaries, at_least=1)
        require_whole("the number of guesses", self.made, at_least=1)
        require_whole("the number of right guesses", self.right)
        if not self.right <= self.made <= self.canaries:
            raise refused(f"{self.right} right of {self.made} guesses for {self.canaries} canaries is not a count")


def guesses(scores: ArrayLike, included: ArrayLike, *, top: int, bottom: int) -> Guesses:
    """Call the ``top`` highest scores included and the ``bottom`` lowest left out, and count what is right.

    Where equal scores lie on the edge, as many of them as possible count as wrong: no order of the canaries and no
    answer can make a tie right. A NaN ranks where it is most wrong.

    Raises:
        EvaluationError: more guesses than canaries, none, or scores and answers that do not fit.
    """
    found, answers = as_scored(scores, included)
    require_whole("the number of top guesses", top)
    require_whole("the number of bottom guesses", bottom)
    if not 1 <= top + bottom <= len(found):
        raise refused(f"{top} and {bottom} guesses for {len(found)} canaries")
    ranked = against(found, answers)
    right = _surely_right(ranked, answers, top) + _surely_right(-ranked, ~answers, bottom)
    return Guesses(len(found), top + bottom, right)


def p_value(found: Guesses, *, epsilon: float, delta: float) -> float:
    """Bound on the chance of so many right guesses against an (epsilon, delta)-DP mechanism.

    beta + 2 m delta max_i P[v - i <= Bin(r, q) < v] / i, with q = 1 / (1 + e^-epsilon) and beta = P[Bin(r, q) >= v].

    Raises:
        EvaluationError: epsilon or delta out of range.
    """
    from scipy.special import gammaln

    require_epsilon(epsilon)
    require_delta(delta)
    r, v = found.made, found.right
    k = np.arange(r + 1)
    ways = gammaln(r + 1) - gammaln(k + 1) - gammaln(r - k + 1)
    likely = np.exp(ways - k * np.logaddexp(0, -epsilon) - (r - k) * np.logaddexp(0, epsilon))
    beta = float(likely[v:][::-1].sum())
    if v == 0 or beta >= 1:
        return 1.0
    just_below = np.cumsum(likely[:v][::-1]) / np.arange(1, v + 1)
    return min(1.0, beta + 2 * found.canaries * delta * float(just_below.max()))


def epsilon_bound(found: Guesses, *, delta: float, alpha: float) -> float:
    """The largest epsilon below which every claim at ``delta`` is rejected at error rate ``alpha``; at least 0.

    Raises:
        EvaluationError: ``delta`` or ``alpha`` out of range.
    """
    require_error_rate(alpha)
    return _last(lambda epsilon: p_value(found, epsilon=epsilon, delta=delta) <= alpha, most=_MOST_EPSILON)


def rejects(found: Guesses, *, blow_down: Callable[[float], float], alpha: float) -> bool:
    """Whether the guesses refute a trade-off curve f at error rate ``alpha`` (Mahloujifar et al. 2024, Algorithm 3).

    Args:
        blow_down: R -> f(1 - R), the inverse of R -> 1 - f(R); for mu-GDP it is Phi(Phi^-1(R) - mu).
    """
    require_error_rate(alpha)
    m, r, v = found.canaries, found.made, found.right
    wrong, right, most = alpha * (r - v) / m, alpha * v / m, r / m
    for i in range(v - 1, -1, -1):
        if right + wrong >= most:
            return True
        grown = blow_down(right)
        if grown <= wrong:  # nothing changes from here on
            return False
        right += i / (r - i) * (grown - wrong)
        wrong = grown
    return right + wrong >= most


def rejects_mu(found: Guesses, *, mu: float, alpha: float) -> bool:
    """``rejects`` for the Gaussian curve of ``mu``."""
    return rejects(found, blow_down=lambda rate: _NORMAL.cdf(_NORMAL.inv_cdf(rate) - mu), alpha=alpha)


def mu_bound(found: Guesses, *, alpha: float) -> float:
    """The largest mu below which every Gaussian curve is rejected at error rate ``alpha``; at least 0.

    Raises:
        EvaluationError: ``alpha`` is not between 0 and 1.
    """
    require_error_rate(alpha)
    return _last(lambda mu: rejects_mu(found, mu=mu, alpha=alpha), most=100.0)


def fdp_epsilon_bound(found: Guesses, *, delta: float, alpha: float) -> float:
    """``mu_bound`` as epsilon at ``delta``."""
    return epsilon_of_mu(mu_bound(found, alpha=alpha), delta)


def fdp_p_value(found: Guesses, *, mu: float) -> float:
    """The smallest error rate at which the guesses refute the Gaussian curve of ``mu``; 1 where none does."""
    low, high = 0.0, 1.0 - 1e-12
    if not rejects_mu(found, mu=mu, alpha=high):
        return 1.0
    while high - low > _PRECISION * high and high > 1e-300:
        middle = (low + high) / 2 if low > 0 else high / 4
        low, high = (low, middle) if rejects_mu(found, mu=mu, alpha=middle) else (middle, high)
    return high


def critical_right(canaries: int, made: int, *, refuted: Callable[[Guesses], bool]) -> int | None:
    """The fewest right guesses that ``refuted`` a claim; ``None`` where not even all of them would.

    Args:
        refuted: whether given guesses reject the claim; more right guesses never reject less.
    """
    if not refuted(Guesses(canaries, made, made)):
        return None
    low, high = -1, made
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if refuted(Guesses(canaries, made, middle)) else (middle, high)
    return high


def _surely_right(scores: NDArray[np.float64], answers: NDArray[np.bool_], count: int) -> int:
    """Right guesses among the ``count`` highest scores, whichever of equal ones are taken."""
    if count == 0:
        return 0
    edge = np.partition(scores, len(scores) - count)[len(scores) - count]
    above, level = scores > edge, scores == edge
    taken = count - int(above.sum())
    return int(answers[above].sum()) + max(0, taken - int((~answers[level]).sum()))


def _last(refuted: Callable[[float], bool], *, most: float) -> float:
    """The end of the range from 0 in which everything is refuted, rounded down."""
    if not refuted(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while high < most and refuted(high):
        low, high = high, 2 * high
    while high - low > _PRECISION:
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low if math.isfinite(low) else 0.0
