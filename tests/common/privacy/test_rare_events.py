"""Truncated Poisson samples and mixtures of Gaussians: beside integrals, and what is refused."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import dp_accounting as dp
import numpy as np
import pytest
from dp_accounting.dp_event import MixtureOfGaussiansDpEvent
from scipy import stats

from common.errors import PrivacyConfigError
from common.privacy.accounting import (
    epsilon,
    event_from_json,
    event_to_json,
    examples_event,
    first_accountant,
    grouped,
    second_opinion,
    truncated_poisson_event,
)

DELTA = 1e-5
X = np.linspace(-60, 60, 6001)


def divergence(upper: np.ndarray, lower: np.ndarray, eps: float) -> float:
    """Oracle: the hockey-stick divergence of two densities on the line, by the trapezoidal rule."""
    return float(np.trapezoid(np.maximum(upper - math.exp(eps) * lower, 0), X))


def truncated_density(values: list[float], rate: float, most: int, sigma: float) -> np.ndarray:
    """Oracle: the density of the noised sum of a truncated sample, over all samples and all kept subsets."""
    total = np.zeros_like(X)
    for drawn in itertools.product([False, True], repeat=len(values)):
        chance = math.prod(rate if d else 1 - rate for d in drawn)
        sample = [v for v, d in zip(values, drawn, strict=True) if d]
        kept = list(itertools.combinations(sample, min(most, len(sample))))
        for subset in kept:
            total += chance / len(kept) * stats.norm.pdf(X, sum(subset), sigma)
    return total


def dominates(event: dp.DpEvent, first: np.ndarray, second: np.ndarray) -> None:
    value = epsilon(event, DELTA)
    assert divergence(first, second, value) <= DELTA * (1 + 1e-6)
    assert divergence(second, first, value) <= DELTA * (1 + 1e-6)


@pytest.mark.parametrize(("rate", "most"), [(0.5, 1), (0.5, 2), (0.2, 1)])
@pytest.mark.parametrize("others", [(-1.0, -1.0, -1.0), (-1.0, 1.0, 0.5)])
def test_a_truncated_sample_costs_no_less_than_its_densities_show(
    rate: float, most: int, others: tuple[float, ...]
) -> None:
    """With and without the unit that contributes +1; a unit that is zeroed may still take a place in the sample."""
    event = truncated_poisson_event(4.0, rate=rate, units=4, most_units=most)
    with_unit = truncated_density([1.0, *others], rate, most, 4.0)
    dominates(event, with_unit, truncated_density(list(others), rate, most, 4.0))
    dominates(event, with_unit, truncated_density([0.0, *others], rate, most, 4.0))


def test_truncation_accounted_as_plain_poisson_would_be_noticed() -> None:
    """A unit that pushes another out of the sample changes the sum by 2."""
    with_unit = truncated_density([1.0, -1.0, -1.0, -1.0], 0.5, 1, 4.0)
    without = truncated_density([-1.0, -1.0, -1.0], 0.5, 1, 4.0)
    with pytest.raises(AssertionError):
        dominates(dp.PoissonSampledDpEvent(0.5, dp.GaussianDpEvent(4.0)), with_unit, without)


def test_a_limit_that_never_binds_is_plain_poisson() -> None:
    plain = dp.PoissonSampledDpEvent(0.1, dp.GaussianDpEvent(8.0))
    assert grouped(truncated_poisson_event(8.0, rate=0.1, units=5, most_units=5)) == grouped(plain)
    bound = truncated_poisson_event(8.0, rate=0.1, units=5, most_units=4)
    assert epsilon(bound, DELTA) > epsilon(plain, DELTA)


@pytest.mark.parametrize("most_examples", [2, 4])
def test_a_unit_of_several_examples_costs_what_its_densities_show(most_examples: int) -> None:
    rate, sigma = 0.5, 6.0
    event = examples_event(sigma, rate=rate, most_examples=most_examples)
    drawn = stats.binom.pmf(range(most_examples + 1), most_examples, rate)
    with_unit = sum(p * stats.norm.pdf(X, j, sigma) for j, p in enumerate(drawn))
    without = stats.norm.pdf(X, 0, sigma)
    dominates(event, with_unit, without)
    value = epsilon(event, DELTA) - 0.01
    assert max(divergence(with_unit, without, value), divergence(without, with_unit, value)) > DELTA, "it is close"
    with pytest.raises(AssertionError):  # as if the examples were one unit, clipped jointly
        dominates(dp.PoissonSampledDpEvent(rate, dp.GaussianDpEvent(sigma)), with_unit, without)


def test_one_example_is_the_plain_sampled_gaussian_and_more_cost_more() -> None:
    plain = dp.PoissonSampledDpEvent(0.2, dp.GaussianDpEvent(9.0))
    costs = [epsilon(examples_event(9.0, rate=0.2, most_examples=k), DELTA) for k in (1, 2, 3)]
    assert costs[0] == pytest.approx(epsilon(plain, DELTA), rel=1e-9)
    assert costs[0] < costs[1] < costs[2] <= epsilon(dp.GaussianDpEvent(3.0), DELTA)
    every = examples_event(9.0, rate=1.0, most_examples=3)
    assert epsilon(every, DELTA) == pytest.approx(epsilon(dp.GaussianDpEvent(3.0), DELTA), rel=1e-2)


def test_different_kinds_compose() -> None:
    mixed, plain = examples_event(8.0, rate=0.1, most_examples=2), dp.GaussianDpEvent(8.0)
    together = epsilon(dp.ComposedDpEvent([mixed, plain]), DELTA)
    assert max(epsilon(mixed, DELTA), epsilon(plain, DELTA)) < together
    assert together < epsilon(mixed, DELTA / 2) + epsilon(plain, DELTA / 2)
    assert grouped(dp.SelfComposedDpEvent(mixed, 3)) == grouped(dp.ComposedDpEvent([mixed] * 3))


RARE = [examples_event(2.0, rate=0.1, most_examples=3), truncated_poisson_event(1.0, rate=0.1, units=9, most_units=2)]


@pytest.mark.parametrize("event", RARE)
def test_the_lack_of_a_second_opinion_is_explained(event: dp.DpEvent) -> None:
    opinion = second_opinion(event, DELTA)
    assert opinion.accountant == "none" and math.isinf(opinion.upper) and "covers" in opinion.reason
    assert first_accountant(event) == "PLD"


@pytest.mark.parametrize("event", RARE)
def test_no_further_sampling_is_accounted(event: dp.DpEvent) -> None:
    with pytest.raises(PrivacyConfigError):
        epsilon(dp.PoissonSampledDpEvent(0.5, event), DELTA)
    with pytest.raises(PrivacyConfigError):
        event_to_json(dp.PoissonSampledDpEvent(0.5, event))


@pytest.mark.parametrize(
    "changed",
    [
        {"noise_multiplier": -1.0},
        {"noise_multiplier": math.nan},
        {"rate": 0.0},
        {"rate": 1.0},
        {"rate": 1.5},
        {"rate": math.nan},
        {"units": 0},
        {"units": 9.5},
        {"units": True},
        {"most_units": 0},
        {"most_units": 2.0},
    ],
)
def test_meaningless_truncated_samples_are_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(PrivacyConfigError):
        truncated_poisson_event(**{"noise_multiplier": 1.0, "rate": 0.1, "units": 9, "most_units": 2, **changed})


@pytest.mark.parametrize(
    "changed",
    [
        {"noise_multiplier": 0.0},
        {"noise_multiplier": math.inf},
        {"rate": 0.0},
        {"rate": 1.1},
        {"most_examples": 0},
        {"most_examples": 1001},
    ],
)
def test_meaningless_units_are_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(PrivacyConfigError):
        examples_event(**{"noise_multiplier": 1.0, "rate": 0.1, "most_examples": 2, **changed})


@pytest.mark.parametrize(
    ("shifts", "chances"),
    [
        ([], []),
        ([0.0, 1.0], [1.0]),
        ([0.0], [1.0]),
        ([1.0, 0.0], [0.5, 0.5]),
        ([1.0, 1.0], [0.5, 0.5]),
        ([-1.0, 1.0], [0.5, 0.5]),
        ([0.0, math.nan], [0.5, 0.5]),
        ([0.0, math.inf], [0.5, 0.5]),
        ([0.0, 1.0], [0.5, 0.4]),
        ([0.0, 1.0], [0.5, 0.500001]),
        ([0.0, 1.0], [1.0, 0.0]),
        ([0.0, 1.0], [1.5, -0.5]),
        ([0.0, 1.0], [math.nan, 0.5]),
    ],
)
def test_meaningless_mixtures_are_refused(shifts: list[float], chances: list[float]) -> None:
    with pytest.raises(PrivacyConfigError):
        epsilon(MixtureOfGaussiansDpEvent(1.0, shifts, chances), DELTA)
    with pytest.raises(PrivacyConfigError):
        event_from_json(
            {
                "event": "mixture_of_gaussians",
                "noise_multiplier": 1.0,
                "sensitivities": shifts,
                "probabilities": chances,
            }
        )


def test_noiseless_and_infinitely_noisy_ones() -> None:
    chances = ((0.0, 2.0), (0.5, 0.5))
    assert math.isinf(epsilon(MixtureOfGaussiansDpEvent(0.0, *chances), DELTA))
    assert epsilon(MixtureOfGaussiansDpEvent(math.inf, *chances), DELTA) == 0
    assert math.isinf(epsilon(dp.TruncatedSubsampledGaussianDpEvent(9, 0.1, 2, 0.0), DELTA))
    with pytest.raises(PrivacyConfigError):
        epsilon(MixtureOfGaussiansDpEvent(math.nan, *chances), DELTA)


def test_a_claim_s_json_holds_lists_and_numbers_alone() -> None:
    for event in RARE:
        data = json.loads(json.dumps(event_to_json(event), allow_nan=False))
        assert event_from_json(data) == event
