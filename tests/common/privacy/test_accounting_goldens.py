"""The values of the research notes, and the fast distribution beside dp_accounting's own."""

from __future__ import annotations

import itertools
import math

import dp_accounting as dp
import numpy as np
import pytest
from dp_accounting.pld import PLDAccountant, privacy_loss_distribution
from scipy import integrate, stats

from common.errors import PrivacyConfigError
from common.privacy import pld
from common.privacy.accounting import (
    calibrate,
    combined_noise_multiplier,
    epsilon,
    examples_event,
    second_opinion,
    truncated_poisson_event,
)

DELTA = 1e-5


def run(event: dp.DpEvent, steps: int = 1000) -> dp.DpEvent:
    return dp.SelfComposedDpEvent(event, steps)


def sampled(sigma: float, rate: float = 0.01) -> dp.DpEvent:
    return dp.PoissonSampledDpEvent(rate, dp.GaussianDpEvent(sigma))


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (run(sampled(1.0)), 1.8282),
        pytest.param(
            run(truncated_poisson_event(1.0, rate=0.01, units=10_000, most_units=150)),
            1.8305,
            marks=pytest.mark.slow,
        ),
        (run(examples_event(1.0, rate=0.01, most_examples=1)), 1.8282),
        (run(sampled(combined_noise_multiplier(2.0, 1.1547005))), 1.8282),
        (run(sampled(combined_noise_multiplier(5.0, 1.0206207))), 1.8282),
    ],
    ids=["poisson", "truncated", "one example", "two noises", "two other noises"],
)
def test_values_of_the_notes(event: dp.DpEvent, expected: float) -> None:
    assert epsilon(event, DELTA) == pytest.approx(expected, abs=5.1e-5)


@pytest.mark.slow
def test_four_examples_of_a_unit_cost_what_the_notes_say() -> None:
    assert epsilon(run(examples_event(1.0, rate=0.01, most_examples=4)), DELTA) == pytest.approx(8.90, abs=5e-3)


def test_the_second_accountant_to_four_decimals() -> None:
    opinion = second_opinion(run(sampled(1.0)), DELTA)
    assert (opinion.lower, opinion.estimate, opinion.upper) == pytest.approx((1.8181, 1.8282, 1.8384), abs=5.1e-5)
    assert opinion.accountant == "PRV" and opinion.reason == ""


def test_calibration_costs_almost_the_target_and_never_more() -> None:
    sigma = calibrate(lambda s: run(sampled(s)), epsilon=2.0, delta=DELTA)
    assert sigma == pytest.approx(0.9591, abs=1e-3)
    assert 0.998 * 2 <= epsilon(run(sampled(sigma)), DELTA) <= 2
    exact = calibrate(lambda s: run(sampled(s)), epsilon=epsilon(run(sampled(0.9591)), DELTA), delta=DELTA)
    assert 0.9591 <= exact <= 0.9591 * 1.002


def test_zero_out_costs_what_add_or_remove_does_and_replacement_is_not_offered() -> None:
    """The claim's zero-out adjacency rests on the first; the second value shows how much replacement would cost."""
    values = {}
    for relation in dp.NeighboringRelation:
        accountant = PLDAccountant(relation)
        accountant.compose(sampled(1.0), 1000)
        values[relation.name] = accountant.get_epsilon(DELTA)
    assert values["REPLACE_SPECIAL"] == values["ADD_OR_REMOVE_ONE"] == pytest.approx(1.8282, abs=5.1e-5)
    assert values["REPLACE_ONE"] == pytest.approx(2.8434, abs=5.1e-5)


def test_the_trap_of_two_noises_on_one_sample() -> None:
    """Accounted apart they seem to cost 1.541; on one sample no such event exists, and each is refused."""
    apart = run(dp.ComposedDpEvent([sampled(2.0), sampled(1.1547005)]))
    assert epsilon(apart, DELTA) == pytest.approx(1.541, abs=5e-4)  # true of two samples, and of nothing else
    both = dp.ComposedDpEvent([dp.GaussianDpEvent(2.0), dp.GaussianDpEvent(1.1547005)])
    for event in (
        dp.PoissonSampledDpEvent(0.01, both),
        dp.PoissonSampledDpEvent(0.01, run(dp.GaussianDpEvent(1.0), 2)),
    ):
        with pytest.raises(PrivacyConfigError) as caught:
            epsilon(event, DELTA)
        assert "combined_noise_multiplier" in caught.value.hint


@pytest.mark.parametrize("sigmas", [(), (0.0,), (1.0, -1.0), (1.0, math.nan), (1.0, math.inf)])
def test_noises_that_cannot_be_combined_are_refused(sigmas: tuple[float, ...]) -> None:
    with pytest.raises(PrivacyConfigError, match="positive and finite"):
        combined_noise_multiplier(*sigmas)


def test_combined_noise_is_less_than_each_and_that_of_pooled_releases() -> None:
    assert combined_noise_multiplier(3.0) == 3.0
    assert combined_noise_multiplier(3.0, 4.0) == pytest.approx(2.4)
    pooled = dp.ComposedDpEvent([dp.GaussianDpEvent(3.0), dp.GaussianDpEvent(4.0)])
    assert epsilon(pooled, DELTA) == pytest.approx(epsilon(dp.GaussianDpEvent(2.4), DELTA), rel=1e-9)


@pytest.mark.parametrize("sigma", [0.3, 1.0, 30.0])
@pytest.mark.parametrize("rate", [1.0, 0.999, 0.5, 0.01, 1e-6])
def test_distributions_are_those_of_dp_accounting(rate: float, sigma: float) -> None:
    ours = pld.gaussian_distribution(rate, sigma, 1e-3)
    theirs = privacy_loss_distribution.from_gaussian_mechanism(
        sigma, sampling_prob=rate, value_discretization_interval=1e-3
    )
    for a, b in ((ours._pmf_remove, theirs._pmf_remove), (ours._pmf_add, theirs._pmf_add)):
        a, b = a.to_dense_pmf(), b.to_dense_pmf()
        assert a._lower_loss == b._lower_loss and a._infinity_mass == pytest.approx(b._infinity_mass, abs=1e-14)
        np.testing.assert_allclose(a._probs, b._probs, rtol=0, atol=1e-11)  # rounding errors of either
    for count in (1, 30):
        mine, other = (d.self_compose(count).get_epsilon_for_delta(1e-6) for d in (ours, theirs))
        assert mine == pytest.approx(other, rel=1e-6, abs=1e-9)


def hockey_stick(rate: float, sigma: float, eps: float, *, remove: bool) -> float:
    """Oracle: the divergence by integrating the positive part of the difference of two densities."""

    def excess(x: float) -> float:
        zero = stats.norm.pdf(x, 0, sigma)
        mixed = (1 - rate) * zero + rate * stats.norm.pdf(x, 1, sigma)
        upper, lower = (mixed, zero) if remove else (zero, mixed)
        return max(0.0, upper - math.exp(eps) * lower)

    grid = np.linspace(-10 * sigma, 1 + 10 * sigma, 150)
    parts = itertools.pairwise(grid)
    return math.fsum(integrate.quad(excess, a, b, epsabs=1e-14, epsrel=1e-9)[0] for a, b in parts)


@pytest.mark.parametrize("remove", [True, False])
@pytest.mark.parametrize(("rate", "sigma", "eps"), [(0.1, 0.7, 0.5), (0.01, 1.0, -0.005), (1.0, 2.0, 1.0)])
def test_a_single_distribution_dominates_and_is_close(rate: float, sigma: float, eps: float, remove: bool) -> None:
    made = pld.gaussian_distribution(rate, sigma, 1e-3)
    mass = made._pmf_remove if remove else made._pmf_add
    exact = hockey_stick(rate, sigma, eps, remove=remove)
    assert exact - 1e-12 <= mass.get_delta_for_epsilon(eps) <= exact + 1e-5


def test_a_halved_divergence_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = pld._divergences
    monkeypatch.setattr(pld, "_divergences", lambda *a, **k: honest(*a, **k) / 2)
    with pytest.raises(AssertionError):
        test_distributions_are_those_of_dp_accounting(0.5, 1.0)
    with pytest.raises(AssertionError):
        test_a_single_distribution_dominates_and_is_close(0.1, 0.7, 0.5, True)


@pytest.mark.parametrize(
    ("rate", "steps", "target"),
    [(1.0, 1000, 8.0), (0.1, 1, 0.5), (0.1, 10_000, 2.0), (0.01, 100, 2.0), (0.001, 100, 8.0), (0.001, 10_000, 0.5)],
)
def test_calibration_holds_on_the_finest_grid(rate: float, steps: int, target: float) -> None:
    """The search stays on coarser grids; dp_accounting's own distributions on the finest must not cost more."""
    sigma = calibrate(lambda s: run(sampled(s, rate), steps), epsilon=target, delta=DELTA)
    accountant = PLDAccountant(value_discretization_interval=1e-4)
    accountant.compose(sampled(sigma, rate) if rate < 1 else dp.GaussianDpEvent(sigma), steps)
    assert 0.998 * target * (1 - 1e-6) <= accountant.get_epsilon(DELTA) <= target
