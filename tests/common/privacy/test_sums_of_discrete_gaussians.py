"""The bound for sums of discrete Gaussian shares beside the exact law, convolved share by share."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special

from common.errors import PrivacyConfigError
from common.privacy.integer_events import (
    ORDERS,
    DiscreteGaussianDpEvent,
    DiscreteGaussianSumDpEvent,
    discrete_gaussian_shares,
)


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


def shares_event(sigma: float, shares: int, shift: float, **changes: float) -> object:
    numbers = {"dimension": 1, "l1_sensitivity": shift, "l2_sensitivity": shift} | changes
    return discrete_gaussian_shares(sigma, shares, **numbers)


def excess(upper: np.ndarray, lower: np.ndarray, epsilon: float) -> float:
    """Oracle: the smallest delta at ``epsilon``, summed term by term."""
    gap = upper - lower - epsilon
    keep = gap > 0
    return float(np.sum(np.exp(upper[keep]) * -np.expm1(-gap[keep])))


def gaussian_delta(multiplier: float, epsilon: float) -> float:
    """Balle and Wang 2018, theorem 8."""
    a, b = 1 / (2 * multiplier) - epsilon * multiplier, -1 / (2 * multiplier) - epsilon * multiplier
    return float(special.ndtr(a) - math.exp(epsilon + special.log_ndtr(b)))


@pytest.mark.parametrize(("shares", "shift"), [(1, 12), (2, 17), (3, 5), (3, 60)])
def test_the_gaussian_dominates_the_exact_sum(shares: int, shift: int) -> None:
    made = shares_event(12.0, shares, shift)
    mass = log_mass(12.0, shares)
    moved, still = mass[shift:], mass[:-shift]
    for epsilon in (0.0, 0.1, 0.5, 1.0, 2.0, 4.0):
        for pair in ((moved, still), (still, moved)):
            assert excess(*pair, epsilon) <= gaussian_delta(made.noise_multiplier, epsilon) + 1e-15
    assert excess(moved, still, 0.1) > gaussian_delta(1.5 * made.noise_multiplier, 0.1)


def test_the_sum_is_pointwise_a_discrete_gaussian_of_the_summed_variance() -> None:
    for sigma, shares in ((0.7, 3), (1.0, 4), (2.0, 3)):
        mass = log_mass(sigma, shares)
        x = np.arange(len(mass)) - len(mass) // 2
        wanted = -(x**2) / (2 * shares * sigma**2)
        wanted = wanted - special.logsumexp(wanted)
        inside = np.abs(x) < 6 * sigma * math.sqrt(shares)  # where the oracle's cut tails do not show
        most = 10 * shares * math.exp(-(math.pi**2) * sigma**2)
        assert np.abs(mass - wanted)[inside].max() <= most + 1e-9


def test_narrow_shares_and_little_noise_keep_the_bound_with_tau() -> None:
    assert isinstance(shares_event(11.9, 4, 20.0), DiscreteGaussianSumDpEvent)
    assert isinstance(shares_event(12.0, 1, 600.0), DiscreteGaussianSumDpEvent)
    with pytest.raises(PrivacyConfigError):
        shares_event(12.0, 4, 20.0, l1_sensitivity=1.0)
