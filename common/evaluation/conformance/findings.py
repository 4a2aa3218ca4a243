"""What a conformance check reports, and the few statistics that all of them use.

A check fails below ``ALARM``. A thousand runs of all checks make some 10^5 statistics, so that a correct mechanism is
accused in one of 10^4 such series; 2/3 and 3/2 of the declared noise are a thousand orders of magnitude away.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

ALARM = 1e-9  # p-value, two-sided
MOST_Z = 6.5  # the same for sums of products of normals, with room for their heavier tails
ENOUGH = 600  # residuals that tell 2/3 and 3/2 of a scale from 1 beyond doubt (9 standard deviations and more)


@dataclass(frozen=True)
class Finding:
    """One line of a conformance report.

    Attributes:
        test: ``T1`` to ``T5``.
        subject: what was tried.
        statistic: what was measured, with its bound.
        holds: whether it conforms.
    """

    test: str
    subject: str
    statistic: str
    holds: bool

    @property
    def verdict(self) -> str:
        """``conforms`` or ``VIOLATION``."""
        return "conforms" if self.holds else "VIOLATION"


def failures(findings: Iterable[Finding]) -> list[Finding]:
    """Those that do not hold."""
    return [finding for finding in findings if not finding.holds]


def two_sided(below: float, above: float) -> float:
    """A two-sided p-value from the probabilities of at most and at least what was seen; NaN stays NaN."""
    return 2 * min(below, above)


def scale_finding(test: str, subject: str, residuals: ArrayLike) -> Finding:
    """Whether residuals, in units of the declared stddev, have variance 1 (chi-square, both tails)."""
    values = np.asarray(residuals, dtype=np.float64).ravel()
    squares = float(np.sum(values**2))
    p = two_sided(float(stats.chi2.cdf(squares, values.size)), float(stats.chi2.sf(squares, values.size)))
    ratio = math.sqrt(squares / max(values.size, 1)) if math.isfinite(squares) else math.nan
    return Finding(test, subject, f"stddev {ratio:.4f} of declared, n = {values.size}, p = {p:.1g}", p > ALARM)


def correlation_finding(test: str, subject: str, first: ArrayLike, second: ArrayLike) -> Finding:
    """Whether two sets of standard normals have nothing in common: the z of the sum of their products."""
    a, b = (np.asarray(x, dtype=np.float64).ravel() for x in (first, second))
    z = float(np.sum(a * b)) / math.sqrt(max(a.size, 1))
    return Finding(test, subject, f"z = {z:+.2f}, n = {a.size}", abs(z) < MOST_Z)


def binomial_finding(test: str, subject: str, hits: int, draws: int, *, rate: float) -> Finding:
    """Whether ``hits`` of ``draws`` fit the rate (exact binomial, both tails)."""
    p = two_sided(float(stats.binom.cdf(hits, draws, rate)), float(stats.binom.sf(hits - 1, draws, rate)))
    return Finding(test, subject, f"{hits} of {draws}, expected {rate * draws:.0f}, p = {p:.1g}", p > ALARM)


def dispersion_finding(test: str, subject: str, counts: ArrayLike, variance: float) -> Finding:
    """Whether counts vary as independent ones of the given variance do (chi-square, both tails)."""
    found = np.asarray(counts, dtype=np.float64)
    statistic = float(np.var(found, ddof=1)) * (found.size - 1) / variance
    p = two_sided(float(stats.chi2.cdf(statistic, found.size - 1)), float(stats.chi2.sf(statistic, found.size - 1)))
    ratio = statistic / (found.size - 1)
    return Finding(test, subject, f"variance {ratio:.3f} of expected, p = {p:.1g}", p > ALARM)


def bound_finding(test: str, subject: str, moved: float, bound: float, *, slack: float = 0.0) -> Finding:
    """Whether ``moved`` is at most the bound, up to rounding; told in units of the bound."""
    within = moved <= bound * (1 + 1e-6) + slack  # also false for NaN
    return Finding(test, subject, f"moves the release by {moved / bound:.3f} of C", bool(within))
