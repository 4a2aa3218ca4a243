"""Lower bounds on epsilon and mu from how often a test of membership errs, or from how far its scores lie apart.

A mechanism is (epsilon, delta)-DP only if every test with false positive rate a and false negative rate b has
a + e^epsilon b >= 1 - delta and b + e^epsilon a >= 1 - delta (Kairouz et al. 2015); it is mu-GDP only if
b >= Phi(Phi^-1(1 - a) - mu) (Dong et al. 2022). The rates are bounded from above by Clopper and Pearson (1934), each at
half the error rate. All of it holds for tests fixed in advance and canaries that are independent of one another.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from common.evaluation.audit._checks import refused, require_delta, require_epsilon, require_error_rate

Floats = NDArray[np.float64]
Counts = int | NDArray[np.int64]


@dataclass(frozen=True)
class ErrorCounts:
    """How often a test erred: plain numbers, or arrays of one shape, one entry for each of several tests.

    Attributes:
        false_positives: canaries called included, of the
        negatives: canaries that were left out.
        false_negatives: canaries called left out, of the
        positives: canaries that were included.

    Raises:
        EvaluationError: no canary of a kind, or more errors than canaries.
    """

    false_positives: Counts
    negatives: Counts
    false_negatives: Counts
    positives: Counts

    def __post_init__(self) -> None:
        for errors, trials in (
            (self.false_positives, self.negatives),
            (self.false_negatives, self.positives),
        ):
            found, among = np.asarray(errors), np.asarray(trials)
            if found.dtype.kind not in "iu" or among.dtype.kind not in "iu":
                raise refused("errors and trials are counted in whole numbers")
            if np.any(among < 1) or np.any(found < 0) or np.any(found > among):
                raise refused(f"{errors} errors among {trials} canaries is not a count")


def upper_rate(errors: ArrayLike, trials: ArrayLike, *, alpha: float) -> Floats:
    """One-sided upper confidence bound of an error rate: BetaInv(1 - alpha; k + 1, n - k), 1 where all are errors.

    Raises:
        EvaluationError: ``alpha`` is not between 0 and 1.
    """
    from scipy.special import betainccinv

    require_error_rate(alpha)
    k, n = np.asarray(errors, dtype=np.float64), np.asarray(trials, dtype=np.float64)
    return np.where(k >= n, 1.0, betainccinv(k + 1, np.maximum(n - k, 1), alpha))


def upper_rates(counts: ErrorCounts, *, alpha: float) -> tuple[Floats, Floats]:
    """Upper bounds of the false positive and the false negative rate that hold together: each at alpha / 2."""
    require_error_rate(alpha)
    return (
        upper_rate(counts.false_positives, counts.negatives, alpha=alpha / 2),
        upper_rate(counts.false_negatives, counts.positives, alpha=alpha / 2),
    )


def epsilon_bound(counts: ErrorCounts, *, delta: float, alpha: float) -> Floats:
    """Lower bound of epsilon at ``delta``, of the counts' shape; never below 0.

    Raises:
        EvaluationError: ``alpha`` or ``delta`` out of range.
    """
    require_delta(delta)
    return _epsilon_of_rates(*upper_rates(counts, alpha=alpha), delta)


def epsilon_estimate(counts: ErrorCounts, *, delta: float) -> Floats:
    """Point estimate of epsilon, half an error added to either side; no bound."""
    require_delta(delta)
    return _epsilon_of_rates(*_plain_rates(counts), delta)


def mu_bound(counts: ErrorCounts, *, alpha: float) -> Floats:
    """Lower bound of mu for a mechanism with a Gaussian trade-off curve, of the counts' shape; never below 0.

    A test that errs more often than chance shows nothing: its bound is 0, not the bound of the test turned round.

    Raises:
        EvaluationError: ``alpha`` is not between 0 and 1.
    """
    return _mu_of_rates(*upper_rates(counts, alpha=alpha))


def mu_estimate(counts: ErrorCounts) -> Floats:
    """Point estimate of mu, half an error added to either side; no bound."""
    return _mu_of_rates(*_plain_rates(counts))


def mean_difference_bound(members: ArrayLike, others: ArrayLike, *, noise_stddev: float, alpha: float) -> Floats:
    """Lower bound of mu from normal scores with a known standard deviation; never below 0, and 0 where one is NaN.

    mu >= (mean of members - mean of others) / s - z_alpha sqrt(1 / n1 + 1 / n0).

    Args:
        members, others: scores of included and left-out canaries, shapes (..., n1) and (..., n0).
        noise_stddev: of a score's noise as it **is**. The claimed one hides noise that is too small.

    Raises:
        EvaluationError: a kind without canaries, a standard deviation that is not positive, or ``alpha`` out of range.
    """
    from scipy.special import ndtri

    require_error_rate(alpha)
    if not (math.isfinite(noise_stddev) and noise_stddev > 0):
        raise refused(f"the standard deviation of the noise must be above 0, not {noise_stddev}")
    inside, outside = _two_kinds(members, others, fewest=1)
    with np.errstate(invalid="ignore"):
        shift = (inside.mean(axis=-1) - outside.mean(axis=-1)) / noise_stddev
    lowest = shift + float(ndtri(alpha)) * _spread(inside, outside)
    return np.where(np.isfinite(lowest), np.maximum(lowest, 0.0), 0.0)


def effect_size_bound(members: ArrayLike, others: ArrayLike, *, alpha: float) -> Floats:
    """``mean_difference_bound`` where the noise is not known: its variance is that within the two kinds.

    The standardised difference has a noncentral t distribution, which is inverted: exact for normal scores of equal
    variance. 0 where a score is not finite or the scores within a kind do not vary.
    """
    from scipy.special import ndtr, ndtri

    require_error_rate(alpha)
    inside, outside = _two_kinds(members, others, fewest=2)
    spread, degrees = _spread(inside, outside), inside.shape[-1] + outside.shape[-1] - 2
    with np.errstate(divide="ignore", invalid="ignore"):
        shift = (inside.mean(axis=-1) - outside.mean(axis=-1)) / pooled_stddev(inside, outside)
    seen = np.where(np.isfinite(shift), shift, 0.0) / spread
    aim = float(ndtri(alpha))
    centre = seen + aim * np.sqrt(1 + seen**2 / (2 * degrees))
    y, weights = _chi_over_root(seen, degrees)
    for _ in range(_STEPS):  # Newton on the scale of normal quantiles, on which the tail is all but linear
        below = centre[..., None] - seen[..., None] * y
        reached = ndtri(np.clip(ndtr(below) @ weights, 1e-300, 1 - 1e-16))
        slope = np.exp((reached[..., None] ** 2 - below**2) / 2) @ weights
        centre = centre + (aim - reached) / np.maximum(slope, _FLATTEST)
    return np.maximum(centre * spread, 0.0)


def noncentral_t_tail(seen: ArrayLike, degrees: int, centre: ArrayLike) -> Floats:
    """P[T >= seen] of Student's t with noncentrality ``centre``, of the arguments' common shape.

    T = (Z + centre) / Y with Y the root of a chi-square over its degrees: E[Phi(centre - seen Y)].
    """
    from scipy.special import ndtr

    t = np.asarray(seen, dtype=np.float64)
    y, weights = _chi_over_root(t, degrees)
    return ndtr(np.asarray(centre)[..., None] - t[..., None] * y) @ weights


def pooled_stddev(members: Floats, others: Floats) -> Floats:
    """Standard deviation within the two kinds, over the last axis."""
    squares = members.var(axis=-1) * members.shape[-1] + others.var(axis=-1) * others.shape[-1]
    return np.sqrt(squares / (members.shape[-1] + others.shape[-1] - 2))


def delta_of(epsilon: float, mu: float) -> float:
    """The smallest delta of a mu-GDP mechanism at ``epsilon`` (Dong et al. 2022, Corollary 1).

    Phi(-x) - e^epsilon Phi(-y) with x = epsilon / mu - mu / 2 and y = x + mu. As e^epsilon phi(y) = phi(x), the second
    term is phi(x) times Mills' ratio at y, in which nothing overflows.

    Raises:
        EvaluationError: epsilon or mu is negative or not finite.
    """
    from scipy.special import erfcx, ndtr

    require_epsilon(epsilon)
    _require_mu(mu)
    if mu == 0:
        return 0.0
    x = epsilon / mu - mu / 2
    density = math.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    beyond = _HALF_PI_ROOT * float(erfcx((x + mu) / math.sqrt(2)))
    if x < 0:
        return float(ndtr(-x)) - density * beyond
    return density * (_HALF_PI_ROOT * float(erfcx(x / math.sqrt(2))) - beyond)


def epsilon_of_mu(mu: float, delta: float) -> float:
    """Epsilon at ``delta`` of a mechanism that is exactly mu-GDP; infinite for infinite mu.

    Raises:
        EvaluationError: mu is negative or NaN, or delta not between 0 and 1.
    """
    from scipy.optimize import brentq
    from scipy.special import ndtri

    require_delta(delta, positive=True)
    if mu == math.inf:
        return math.inf
    _require_mu(mu)
    if delta_of(0.0, mu) <= delta:
        return 0.0
    most = mu * (mu / 2 - float(ndtri(delta)))  # there the first term alone is delta
    if delta_of(most, mu) >= delta:  # the second term is lost in rounding
        return most
    return float(brentq(lambda epsilon: delta_of(epsilon, mu) - delta, 0.0, most, xtol=1e-11, rtol=1e-13))


def mu_of_epsilon(epsilon: float, delta: float) -> float:
    """The mu whose GDP mechanism has ``epsilon`` at ``delta``: inverse of ``epsilon_of_mu``.

    Raises:
        EvaluationError: epsilon is negative or not finite, or delta not between 0 and 1.
    """
    from scipy.optimize import brentq

    require_epsilon(epsilon)
    require_delta(delta, positive=True)
    most = 1.0
    while delta_of(epsilon, most) < delta:
        most *= 2
    return float(brentq(lambda mu: delta_of(epsilon, mu) - delta, 0.0, most, xtol=1e-14, rtol=1e-13))


_HALF_PI_ROOT = math.sqrt(math.pi / 2)
_NODES, _STEPS, _FLATTEST, _MOST_STEPS = 65, 4, 0.01, 8192


def _require_mu(mu: float) -> None:
    if not (math.isfinite(mu) and mu >= 0):
        raise refused(f"mu must be finite and at least 0, not {mu}")


def _chi_over_root(seen: Floats, degrees: int) -> tuple[Floats, Floats]:
    """Nodes and weights of E over Y, the root of a chi-square over its degrees, by the trapezoidal rule.

    Its error falls exponentially for a density that vanishes at both ends; Phi(. - seen Y) is a step of width 1 / seen.
    """
    half = 9 / math.sqrt(2 * degrees)
    steps = 2 * half * float(np.max(np.abs(seen), initial=0.0))
    nodes = _NODES + math.ceil(min(steps, _MOST_STEPS))  # beyond, scores are apart, and the bound is huge anyway
    y = np.linspace(max(1 - half, 1e-9), 1 + half, nodes)
    density = np.exp((degrees - 1) * np.log(y) - degrees * (y**2 - 1) / 2)
    return y, density / density.sum()


def _plain_rates(counts: ErrorCounts) -> tuple[Floats, Floats]:
    a = (np.asarray(counts.false_positives) + 0.5) / (np.asarray(counts.negatives) + 1.0)
    b = (np.asarray(counts.false_negatives) + 0.5) / (np.asarray(counts.positives) + 1.0)
    return a, b


def _epsilon_of_rates(a: Floats, b: Floats, delta: float) -> Floats:
    found = np.zeros(np.broadcast(a, b).shape)
    for errs, other in ((a, b), (b, a)):
        left = 1 - delta - other
        found = np.maximum(found, np.log(np.where(left > 0, left, errs) / errs))
    return found


def _mu_of_rates(a: Floats, b: Floats) -> Floats:
    from scipy.special import ndtri

    return np.maximum(-ndtri(a) - ndtri(b), 0.0)


def _two_kinds(members: ArrayLike, others: ArrayLike, *, fewest: int) -> tuple[Floats, Floats]:
    inside, outside = (np.asarray(kind, dtype=np.float64) for kind in (members, others))
    if min(inside.ndim, outside.ndim) < 1 or min(inside.shape[-1], outside.shape[-1]) < fewest:
        raise refused(f"a difference of means needs at least {fewest} canaries of each kind")
    return inside, outside


def _spread(inside: Floats, outside: Floats) -> float:
    return math.sqrt(1 / inside.shape[-1] + 1 / outside.shape[-1])
