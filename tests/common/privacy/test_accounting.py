from __future__ import annotations

import math

import dp_accounting as dp
import pytest

from common.errors import PrivacyConfigError
from common.evaluation.conformance.claims import gaussian_epsilon
from common.privacy import accounting
from common.privacy.accounting import calibrate, check_delta, epsilon, grouped, second_opinion, tpr_bound


def sampled(rate: float, sigma: float, steps: int) -> dp.DpEvent:
    return dp.SelfComposedDpEvent(dp.PoissonSampledDpEvent(rate, dp.GaussianDpEvent(sigma)), steps)


REFERENCE = sampled(0.01, 1.0, 1000)


# Independent published and measured values; delta = 1e-5.
@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (REFERENCE, 1.8282),
        (sampled(0.001, 0.6, 10_000), 2.4562),
        (dp.SelfComposedDpEvent(dp.GaussianDpEvent(10.0), 100), 4.3772),
        (dp.GaussianDpEvent(1.0), 4.3772),
        (dp.NoOpDpEvent(), 0.0),
    ],
)
def test_golden_values(event: dp.DpEvent, expected: float) -> None:
    assert epsilon(event, 1e-5) == pytest.approx(expected, abs=6e-5)


def test_the_second_opinion_has_the_bounds_that_opacus_states() -> None:
    opinion = second_opinion(REFERENCE, 1e-5)
    assert (opinion.lower, opinion.estimate, opinion.upper) == pytest.approx((1.81811, 1.82824, 1.83837), abs=2e-5)


@pytest.mark.parametrize(
    ("event", "delta"),
    [
        (REFERENCE, 1e-5),
        (dp.SelfComposedDpEvent(dp.GaussianDpEvent(2.2), 2), 1e-6),
        (dp.GaussianDpEvent(0.4), 1e-8),
        (sampled(0.1, 3.0, 20), 1e-6),
        (sampled(0.01, 20.0, 50), 1e-6),
        (dp.ComposedDpEvent([sampled(0.1, 2.0, 10), dp.GaussianDpEvent(4.0), dp.NoOpDpEvent()]), 1e-6),
    ],
)
def test_the_two_accountants_agree_within_the_stated_error(event: dp.DpEvent, delta: float) -> None:
    opinion = second_opinion(event, delta)
    assert opinion.lower - 1e-3 <= epsilon(event, delta) <= opinion.upper + 1e-3


@pytest.mark.parametrize(("sigma", "delta"), [(0.4, 1e-5), (1.0, 1e-6), (4.0, 1e-6), (40.0, 1e-8), (0.02, 1e-6)])
def test_a_single_gaussian_matches_the_exact_formula_from_above(sigma: float, delta: float) -> None:
    exact = gaussian_epsilon(sigma, delta)
    assert exact * (1 - 1e-9) <= epsilon(dp.GaussianDpEvent(sigma), delta) <= exact * 1.001 + 1e-4


def test_unsampled_gaussians_pool_into_one() -> None:
    parts = [dp.GaussianDpEvent(3.0), dp.SelfComposedDpEvent(dp.GaussianDpEvent(4.0), 2)]
    pooled = grouped(dp.ComposedDpEvent(parts))
    assert pooled is not None and len(pooled) == 1
    assert pooled[0][0][1] == pytest.approx((1 / 9 + 2 / 16) ** -0.5)


def test_a_ledger_of_many_equal_events_costs_no_more_than_one_group() -> None:
    event = dp.ComposedDpEvent([sampled(0.01, 1.0, 10)] * 100)
    assert grouped(event) == grouped(REFERENCE)


def test_rate_one_is_no_sampling() -> None:
    assert epsilon(sampled(1.0, 2.0, 4), 1e-6) == epsilon(dp.GaussianDpEvent(1.0), 1e-6)


@pytest.mark.parametrize(
    "event",
    [
        dp.NonPrivateDpEvent(),
        dp.GaussianDpEvent(0.0),
        dp.ComposedDpEvent([dp.GaussianDpEvent(9.0), dp.NonPrivateDpEvent()]),
        dp.ComposedDpEvent([dp.NonPrivateDpEvent(), dp.GaussianDpEvent(9.0)]),
    ],
)
def test_what_is_not_private_costs_infinity(event: dp.DpEvent) -> None:
    assert math.isinf(epsilon(event, 1e-6)) and math.isinf(second_opinion(event, 1e-6).upper)


@pytest.mark.parametrize(
    "event",
    [
        dp.PoissonSampledDpEvent(0.1, dp.ComposedDpEvent([dp.GaussianDpEvent(1.0)] * 2)),
        dp.PoissonSampledDpEvent(0.1, dp.SelfComposedDpEvent(dp.GaussianDpEvent(1.0), 2)),
        dp.LaplaceDpEvent(1.0),
        dp.SampledWithoutReplacementDpEvent(100, 10, dp.GaussianDpEvent(1.0)),
        dp.ComposedDpEvent([dp.NonPrivateDpEvent(), dp.UnsupportedDpEvent()]),
    ],
)
def test_events_outside_the_closed_set_are_refused(event: dp.DpEvent) -> None:
    with pytest.raises(PrivacyConfigError, match="no accountant here"):
        epsilon(event, 1e-6)


def test_two_gaussians_on_one_sample_are_one_event() -> None:
    """Accounting them as two sampled events, the known trap, reports too little."""
    joint = (1 / 2.0**2 + 1 / 4.0**2) ** -0.5
    apart = dp.ComposedDpEvent([sampled(0.05, 2.0, 10), sampled(0.05, 4.0, 10)])
    assert epsilon(apart, 1e-5) < 0.99 * epsilon(sampled(0.05, joint, 10), 1e-5)


def test_the_central_limit_accountant_is_not_offered() -> None:
    assert not any("gdp" in name.lower() or "clt" in name.lower() for name in dir(accounting))


def test_epsilon_grows_with_rounds_and_falls_with_noise_and_delta() -> None:
    for low, high in (
        (epsilon(sampled(0.1, 4.0, 2), 1e-6), epsilon(sampled(0.1, 4.0, 8), 1e-6)),
        (epsilon(sampled(0.1, 6.0, 8), 1e-6), epsilon(sampled(0.1, 4.0, 8), 1e-6)),
        (epsilon(sampled(0.1, 4.0, 8), 1e-4), epsilon(sampled(0.1, 4.0, 8), 1e-6)),
    ):
        assert 0 < low < 0.9 * high


@pytest.mark.parametrize(
    ("target", "rate", "steps"), [(0.05, 1.0, 2), (3.0, 1.0, 2), (8.0, 1.0, 2), (0.05, 0.1, 20), (1.0, 0.1, 20)]
)
def test_calibration_is_never_above_the_target_and_close_below(target: float, rate: float, steps: int) -> None:
    sigma = calibrate(lambda s: sampled(rate, s, steps), epsilon=target, delta=1e-6)
    assert 0.997 * target <= epsilon(sampled(rate, sigma, steps), 1e-6) <= target


def test_calibration_golden_value() -> None:
    sigma = calibrate(lambda s: sampled(0.01, s, 1000), epsilon=2.0, delta=1e-5)
    assert sigma == pytest.approx(0.9591, rel=2e-3)


@pytest.mark.parametrize("target", [0.0, -1.0, math.nan, math.inf])
def test_bad_targets_are_refused(target: float) -> None:
    with pytest.raises(PrivacyConfigError, match="epsilon"):
        calibrate(dp.GaussianDpEvent, epsilon=target, delta=1e-6)


def test_unreachable_targets_are_refused() -> None:
    with pytest.raises(PrivacyConfigError, match="no noise multiplier"):
        calibrate(lambda s: dp.NonPrivateDpEvent(), epsilon=1.0, delta=1e-6)


@pytest.mark.parametrize("delta", [0.0, 1e-13, 1.0, -1e-6, math.nan])
def test_bad_deltas_are_refused(delta: float) -> None:
    for function in (epsilon, second_opinion):
        with pytest.raises(PrivacyConfigError, match="delta"):
            function(dp.GaussianDpEvent(1.0), delta)


@pytest.mark.parametrize(("delta", "units"), [(1e-3, 1000), (0.5, 2), (1e-4, 20_000), (0.999, 1_000_000)])
def test_delta_at_or_above_one_over_n_is_refused_with_a_remedy(delta: float, units: int) -> None:
    with pytest.raises(PrivacyConfigError, match="publishing one unit") as caught:
        check_delta(delta, units)
    assert "privacy.delta" in caught.value.hint


@pytest.mark.parametrize(("delta", "units"), [(1e-6, 40_000), (1e-6, 0), (0.5, 1)])
def test_smaller_deltas_pass(delta: float, units: int) -> None:
    check_delta(delta, units)


def test_true_positive_rate_bound() -> None:
    assert tpr_bound(0.0, 0.0, 0.01) == pytest.approx(0.01)
    assert tpr_bound(1.0, 0.0, 0.01) == pytest.approx(math.e * 0.01)
    assert tpr_bound(1.0, 0.0, 0.9) == pytest.approx(1 - 0.1 / math.e)
    assert tpr_bound(1e6, 1e-6, 0.1) == 1.0


def test_beyond_the_second_accountants_arithmetic_another_one_answers_and_says_so() -> None:
    event = dp.GaussianDpEvent(0.02)
    opinion = second_opinion(event, 1e-6)
    assert opinion.accountant == "RDP" and "overflows" in opinion.reason and opinion.lower == 0.0
    assert epsilon(event, 1e-6) <= opinion.upper == opinion.estimate <= 1.1 * epsilon(event, 1e-6)
