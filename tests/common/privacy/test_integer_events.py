"""Integer noise: the Renyi bounds beside exact divergences, and what is refused."""

from __future__ import annotations

import dataclasses
import math

import dp_accounting as dp
import numpy as np
import pytest
from scipy import special

from common.errors import PrivacyConfigError
from common.privacy.accounting import calibrate, epsilon, first_accountant, second_opinion
from common.privacy.integer_events import ORDERS, DiscreteGaussianDpEvent, SkellamDpEvent

DELTA = 1e-5


def log_mass(noise: str, variance: float) -> np.ndarray:
    """Log probabilities of the noise on -K..K, to 40 standard deviations and more."""
    x = np.arange(int(40 * math.sqrt(variance)) + 60)
    if noise == "skellam":
        with np.errstate(divide="ignore"):
            half = np.log(special.ive(x, variance))
    else:
        half = -(x**2) / (2 * variance)
    both = np.concatenate([half[:0:-1], half])
    return both - special.logsumexp(both)


def renyi(noise: str, variance: float, shift: int, order: float) -> float:
    """Oracle: the exact divergence of one coordinate from its shifted self, summed term by term."""
    mass = log_mass(noise, variance)
    moved, still = mass[shift:], mass[:-shift]
    keep = np.isfinite(moved) & np.isfinite(still)
    terms = order * moved[keep] + (1 - order) * still[keep]
    assert max(terms[0], terms[-1]) < terms.max() - 20, "the sum is cut off too early"
    return float(special.logsumexp(terms)) / (order - 1)


def bounds(noise: str, variance: float, shift: int) -> dict[float, float]:
    made = (
        SkellamDpEvent(variance, shift, shift) if noise == "skellam" else DiscreteGaussianDpEvent(variance**0.5, shift)
    )
    return dict(zip(ORDERS.tolist(), made.renyi().tolist(), strict=True))


CASES = [(n, v, s) for n in ("skellam", "discrete") for v in (1.0, 10.0, 300.0) for s in (1, 2, 5)]


def holds(noise: str, variance: float, shift: int) -> None:
    stated = bounds(noise, variance, shift)
    for order in [o for o in stated if o in (1.1, 1.5, 2.0, 2.5, 3.0, 5.0, 9.0)]:
        exact = renyi(noise, variance, shift, order)
        assert exact <= stated[order] * (1 + 1e-9), f"order {order}"


@pytest.mark.parametrize(("noise", "variance", "shift"), CASES)
def test_the_bounds_hold_for_exact_divergences(noise: str, variance: float, shift: int) -> None:
    holds(noise, variance, shift)


@pytest.mark.parametrize("noise", ["skellam", "discrete"])
def test_the_bounds_are_close_for_large_noise(noise: str) -> None:
    stated = bounds(noise, 300.0, 5)
    assert stated[2.0] == pytest.approx(renyi(noise, 300.0, 5, 2.0), rel=0.02)


def test_a_variance_of_each_poisson_instead_of_both_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = SkellamDpEvent.renyi
    monkeypatch.setattr(SkellamDpEvent, "renyi", lambda e: honest(dataclasses.replace(e, variance=2 * e.variance)))
    with pytest.raises(AssertionError, match="order"):
        holds("skellam", 10.0, 2)


def test_half_the_sensitivity_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DiscreteGaussianDpEvent, "renyi", lambda e: ORDERS * e.l2_sensitivity**2 / (8 * e.sigma**2))
    with pytest.raises(AssertionError, match="order"):
        holds("discrete", 10.0, 2)


@pytest.mark.parametrize("shift", [1, 3])
def test_epsilon_is_above_the_exact_one_of_a_single_coordinate(shift: int) -> None:
    """Oracle: the hockey-stick divergence of the one-dimensional mechanism, summed term by term."""
    sigma = 4.0
    for noise, event in (
        ("discrete", DiscreteGaussianDpEvent(sigma, shift)),
        ("skellam", SkellamDpEvent(sigma**2, shift, shift)),
    ):
        mass = np.exp(log_mass(noise, sigma**2))
        value = epsilon(event, DELTA)
        delta = float(np.maximum(mass[shift:] - math.exp(value) * mass[:-shift], 0).sum())
        assert delta <= DELTA


@pytest.mark.parametrize("sigma", [1.0, 2.0, 10.0])
def test_it_costs_more_than_the_gaussian_of_the_same_scale_but_not_much(sigma: float) -> None:
    gaussian = epsilon(dp.GaussianDpEvent(sigma), DELTA)
    for event in (DiscreteGaussianDpEvent(64 * sigma, 64.0), SkellamDpEvent((1e4 * sigma) ** 2, 1e6, 1e4)):
        assert gaussian <= epsilon(event, DELTA) <= 1.15 * gaussian


def test_the_value_is_that_of_dp_accounting_s_zero_concentrated_event() -> None:
    accountant = dp.rdp.RdpAccountant()
    accountant.compose(dp.ZCDpEvent(0.5), 4)
    found = epsilon(dp.SelfComposedDpEvent(DiscreteGaussianDpEvent(3.0, 3.0), 4), DELTA)
    assert found == pytest.approx(accountant.get_epsilon(DELTA), rel=1e-2)


def test_releases_add_up_whatever_their_order_and_kind() -> None:
    once, other = DiscreteGaussianDpEvent(40.0, 10.0), SkellamDpEvent(1600.0, 100.0, 10.0)
    both = dp.ComposedDpEvent([once, other])
    assert epsilon(both, DELTA) == epsilon(dp.ComposedDpEvent([other, once]), DELTA)
    assert max(epsilon(once, DELTA), epsilon(other, DELTA)) < epsilon(both, DELTA)
    four = dp.SelfComposedDpEvent(DiscreteGaussianDpEvent(40.0, 10.0), 4)
    assert epsilon(four, DELTA) == pytest.approx(epsilon(DiscreteGaussianDpEvent(20.0, 10.0), DELTA), rel=1e-12)


def test_together_with_gaussians_the_bounds_add_at_half_of_delta() -> None:
    integer, step = DiscreteGaussianDpEvent(40.0, 10.0), dp.PoissonSampledDpEvent(0.1, dp.GaussianDpEvent(2.0))
    found = epsilon(dp.ComposedDpEvent([integer, step]), DELTA)
    assert found == pytest.approx(epsilon(integer, DELTA / 2) + epsilon(step, DELTA / 2), rel=1e-12)
    assert first_accountant(dp.ComposedDpEvent([integer, step])) == "PLD + RDP"
    unsampled = epsilon(dp.ComposedDpEvent([integer, dp.GaussianDpEvent(4.0)]), DELTA)
    assert (
        epsilon(dp.GaussianDpEvent(8**0.5), DELTA)
        <= unsampled
        <= epsilon(integer, DELTA / 2) + epsilon(dp.GaussianDpEvent(4.0), DELTA / 2)
    )


def test_integer_noise_can_be_calibrated() -> None:
    sigma = calibrate(lambda s: DiscreteGaussianDpEvent(64 * s, 64.0), epsilon=2.0, delta=DELTA)
    assert 1.996 <= epsilon(DiscreteGaussianDpEvent(64 * sigma, 64.0), DELTA) <= 2.0


def test_there_is_no_second_opinion_and_the_reason_is_said() -> None:
    event = DiscreteGaussianDpEvent(40.0, 10.0)
    opinion = second_opinion(event, DELTA)
    assert opinion.accountant == "none" and "integer noise" in opinion.reason
    assert first_accountant(event) == "RDP" and first_accountant(dp.GaussianDpEvent(1.0)) == "PLD"


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf, True, "1", 1e13])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_bad_numbers_are_refused(place: int, bad: float) -> None:
    numbers: list[float] = [10.0, 4.0, 2.0]
    numbers[place] = bad
    with pytest.raises(PrivacyConfigError):
        SkellamDpEvent(*numbers)
    if place < 2:
        with pytest.raises(PrivacyConfigError):
            DiscreteGaussianDpEvent(*numbers[:2])


def test_an_l1_bound_below_the_l2_bound_is_refused() -> None:
    with pytest.raises(PrivacyConfigError, match="L1"):
        SkellamDpEvent(10.0, 1.0, 2.0)


@pytest.mark.parametrize("event", [DiscreteGaussianDpEvent(4.0, 1.0), SkellamDpEvent(16.0, 1.0, 1.0)])
def test_no_amplification_is_claimed_under_sampling(event: dp.DpEvent) -> None:
    with pytest.raises(PrivacyConfigError, match="no accountant here"):
        epsilon(dp.PoissonSampledDpEvent(0.1, event), DELTA)
