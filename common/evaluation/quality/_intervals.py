"""Intervals that several quality tasks print."""

from __future__ import annotations

import math

_Z95 = 1.959963984540054


def wilson_interval(successes: float, n: int) -> tuple[float, float]:
    """95 % Wilson score interval of a proportion (Wilson 1927): (low, high) in [0, 1]."""
    p, z2 = successes / n, _Z95**2 / n
    centre = (p + z2 / 2) / (1 + z2)
    half = _Z95 * math.sqrt(p * (1 - p) / n + z2 / (4 * n)) / (1 + z2)
    return max(0.0, centre - half), min(1.0, centre + half)
