"""Intervals that several quality tasks print."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from common.table import IntArray

RESAMPLES = 1_000
_Z95 = 1.959963984540054
_TAILS = (0.025, 0.975)


def wilson_interval(successes: float, n: int) -> tuple[float, float]:
    """95 % Wilson score interval of a proportion (Wilson 1927): (low, high) in [0, 1]."""
    p, z2 = successes / n, _Z95**2 / n
    centre = (p + z2 / 2) / (1 + z2)
    half = _Z95 * math.sqrt(p * (1 - p) / n + z2 / (4 * n)) / (1 + z2)
    return max(0.0, centre - half), min(1.0, centre + half)


def bootstrap_interval(values: NDArray[np.float64], seed: int) -> tuple[float, float]:
    """95 % percentile interval of the mean over resampled items (Efron 1979), ``RESAMPLES`` resamples."""
    return resampled_interval(lambda drawn: float(values[drawn].mean()), len(values), seed=seed)


def resampled_interval(statistic: Callable[[IntArray], float], n: int, *, seed: int) -> tuple[float, float]:
    """95 % percentile interval of ``statistic`` of ``n`` resampled items; it is given their numbers, shape (n,).

    Resamples on which the statistic is not defined (NaN) are left out.
    """
    rng = np.random.default_rng(seed)
    values = [statistic(rng.integers(0, n, n)) for _ in range(RESAMPLES)]
    low, high = np.nanquantile(values, _TAILS)
    return float(low), float(high)


def median_interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """Exact interval of the median between two order statistics: covers at least 95 % whatever the distribution.

    With fewer than six values no two order statistics reach 95 %: the whole range is given.

    Source: Conover, Practical Nonparametric Statistics, section 3.2 (interval for a quantile from the binomial).
    """
    from scipy.stats import binom

    ordered, n = np.sort(values), len(values)
    below = max(int(binom.ppf(_TAILS[0], n, 0.5)), 1)  # P(fewer than `below` values under the median) <= 2.5 %
    return float(ordered[below - 1]), float(ordered[n - below])
