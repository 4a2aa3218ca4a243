"""The bound for sums of discrete Gaussian shares beside the exact law, convolved share by share."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special

from common.privacy.integer_events import ORDERS, DiscreteGaussianDpEvent, DiscreteGaussianSumDpEvent


def log_mass(sigma: float, shares: int) -> np.ndarray:
    """Log probabilities of the sum on -K..K: every summand from -L to L, convolved term by term in log space."""
    x = np.arange(-int(14 * sigma * math.sqrt(shares)) - 6, int(14 * sigma * math.sqrt(shares)) + 7)
    one = -(x**2) / (2 * sigma**2)
    one = one - special.logsumexp(one)
    total = one
    for _ in range(shares - 1):
        n = len(x)
        terms = np.full((n, n), -np.inf)
        for i in range(n):  # value i of the share, the rest is shifted
            shift = i - n // 2
            lo, hi = max(0, shift), min(n, n + shift)
            terms[i, lo:hi] = one[i] + total[lo - shift : hi - shift]
        total = special.logsumexp(terms, axis=0)
    return total


def renyi(sigma: float, shares: int, shift: int, order: float) -> float:
    """Oracle: the exact divergence of the sum from its shifted self."""
    mass = log_mass(sigma, shares)
    moved, still = mass[shift:], mass[:-shift]
    return float(special.logsumexp(order * moved + (1 - order) * still)) / (order - 1)


def event(sigma: float, shares: int, shift: int, dimension: int = 1) -> DiscreteGaussianSumDpEvent:
    return DiscreteGaussianSumDpEvent(sigma, shares, dimension, float(shift), float(shift))


@pytest.mark.parametrize("sigma", [0.5, 0.7, 1.0, 2.0])
@pytest.mark.parametrize("shares", [1, 2, 4])
@pytest.mark.parametrize("shift", [1, 2])
def test_the_bound_holds_for_exact_divergences(sigma: float, shares: int, shift: int) -> None:
    stated = dict(zip(ORDERS.tolist(), event(sigma, shares, shift).renyi().tolist(), strict=True))
    for order in (1.5, 2.0, 3.0, 5.0):
        assert renyi(sigma, shares, shift, order) <= stated[order] * (1 + 1e-9)


def test_without_tau_the_bound_would_not_hold() -> None:
    """A sum of narrow shares is no discrete Gaussian of the summed variance: the term is there for a reason."""
    violated = [
        renyi(0.5, 2, 1, order) > order / (2 * 2 * 0.5**2) * (1 + 1e-9) for order in (1.5, 2.0, 3.0, 5.0, 8.0, 12.0)
    ]
    assert any(violated)


def test_one_share_is_the_discrete_gaussian_itself() -> None:
    assert np.allclose(event(3.0, 1, 2, 77).renyi(), DiscreteGaussianDpEvent(3.0, 2.0).renyi(), rtol=1e-14, atol=0)


def test_with_wide_shares_nothing_is_added() -> None:
    wide = event(4.0, 16, 3, 10**6)
    assert wide.tau < 1e-60
    assert np.allclose(wide.renyi(), ORDERS * 9 / (2 * 16 * 16.0), rtol=1e-12)


def test_tau_is_the_published_sum() -> None:
    assert event(0.6, 4, 1).tau == pytest.approx(
        10 * sum(math.exp(-2 * math.pi**2 * 0.36 * k / (k + 1)) for k in (1, 2, 3))
    )


def test_narrow_shares_have_no_bound() -> None:
    assert np.all(np.isinf(event(0.49, 4, 1).renyi()))
