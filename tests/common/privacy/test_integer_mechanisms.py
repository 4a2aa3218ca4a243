"""The mechanisms on a grid of integers: what leaves, what rounding costs, and that the events bound the truth."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from dp_accounting import GaussianDpEvent
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from common.errors import PrivacyConfigError
from common.privacy import accounting
from common.privacy.mechanisms import _grid, discrete_gaussian, skellam
from common.privacy.mechanisms._grid import add_on_grid, grid_exponent
from common.privacy.rng import NoiseSource

MODULES = [discrete_gaussian, skellam]
IDS = ["discrete_gaussian", "skellam"]
EPSILONS = np.linspace(0, 6, 61)


def hockey_stick(p: np.ndarray, q: np.ndarray, epsilon: float) -> float:
    return float(np.maximum(p - math.exp(epsilon) * q, 0).sum())


def gaussian_delta(a: float, epsilon: float) -> float:
    """Balle and Wang 2018, theorem 8, with a = sensitivity / stddev."""
    return float(stats.norm.cdf(a / 2 - epsilon / a) - math.exp(epsilon) * stats.norm.cdf(-a / 2 - epsilon / a))


def discrete_pmf(sigma: float, shift: int, reach: int) -> np.ndarray:
    x = np.arange(-reach, reach + 1, dtype=np.float64)
    weights = np.exp(-((x - shift) ** 2) / (2 * sigma**2))
    return weights / weights.sum()


@pytest.mark.parametrize(("sigma", "s2"), [(1.0, 0.6), (3.0, 0.5), (3.0, 1.2), (10.0, 1.5)])
@pytest.mark.parametrize("shift", [(1,), (3,), (1, -2), (5, 1)])
def test_the_argument_of_the_event_holds_where_it_can_be_computed(
    sigma: float, s2: float, shift: tuple[int, ...]
) -> None:
    """Step 2 of the module's argument, at scales at which a hair is wide enough to be seen."""
    reach = math.ceil(9 * sigma) + 6
    p, q = np.ones(1), np.ones(1)
    for one in shift:
        p = np.outer(p, discrete_pmf(sigma, one, reach)).reshape(-1)
        q = np.outer(q, discrete_pmf(sigma, 0, reach)).reshape(-1)
    h = 4 * len(shift) * 2.01 * math.exp(-2 * math.pi**2 * s2)
    a = math.hypot(*shift) / math.sqrt(sigma**2 - s2)
    for epsilon in EPSILONS:
        bound = math.exp(h) * gaussian_delta(a, epsilon - 2 * h) + 1e-13
        assert hockey_stick(p, q, epsilon) <= bound
        assert hockey_stick(q, p, epsilon) <= bound


def test_a_bound_of_half_the_sensitivity_would_be_caught_there() -> None:
    p, q = discrete_pmf(3.0, 3, 40), discrete_pmf(3.0, 0, 40)
    assert any(hockey_stick(p, q, e) > gaussian_delta(0.5, e) + 1e-9 for e in EPSILONS)


@pytest.mark.parametrize(("variance", "shift"), [(8.0, 1), (50.0, 3), (400.0, 10)])
def test_the_skellam_bound_holds_where_it_can_be_computed(variance: float, shift: int) -> None:
    from common.privacy.integer_events import ORDERS, SkellamDpEvent

    bound = SkellamDpEvent(variance=variance, l1_sensitivity=shift, l2_sensitivity=shift).renyi()
    x = np.arange(-int(14 * math.sqrt(variance)), int(14 * math.sqrt(variance)) + 1)
    p, q = (np.log(special.ive(np.abs(x - m), variance)) for m in (shift, 0))
    for order, most in zip(ORDERS, bound, strict=True):
        if 1.1 < order <= 12:
            for a, b in ((p, q), (q, p)):
                assert special.logsumexp(order * a + (1 - order) * b) / (order - 1) <= most + 1e-9


def test_the_discrete_gaussian_costs_what_a_gaussian_costs_and_a_hair_more() -> None:
    for multiplier in (0.3, 1.0, 7.0, 100.0):
        event = discrete_gaussian.MECHANISM.event(multiplier)
        assert isinstance(event, GaussianDpEvent)
        assert multiplier * (1 - multiplier * 2.0**-23 - 1e-14) < event.noise_multiplier < multiplier
    assert discrete_gaussian.MECHANISM.event(1e12).noise_multiplier <= 2.0**24


def test_skellam_costs_at_least_what_a_gaussian_of_its_scale_and_rounded_sensitivity_costs() -> None:
    for multiplier in (0.5, 1.0, 5.0):
        worse = 1 / (1 / multiplier + 2.0**10 / 2.0**13)
        cost = accounting.epsilon(skellam.MECHANISM.event(multiplier), 1e-6)
        assert cost >= accounting.epsilon(GaussianDpEvent(worse), 1e-6)


def test_no_grid_is_coarser_than_the_events_assume() -> None:
    for module in MODULES:
        for stddev in (1.0, 1.999, 2.0, 0.3, 7e-9, 1e9, 2.0**-80):
            exponent = grid_exponent(stddev, module.GRID_BITS)
            assert 2.0**module.GRID_BITS <= stddev / 2.0**exponent < 2.0 ** (module.GRID_BITS + 1)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.floats(-1e3, 1e3, width=32), st.floats(-4, 4, width=32)), min_size=1, max_size=30))
def test_rounding_adds_no_more_than_the_root_of_the_coordinates(pairs: list[tuple[float, float]]) -> None:
    values, moved = (np.array(column, dtype=np.float32) for column in zip(*pairs, strict=True))
    moved = values + moved
    steps = [add_on_grid(v, -3, lambda n: np.zeros(n, dtype=np.int64)).astype(np.float64) * 8 for v in (values, moved)]
    distance = float(np.linalg.norm(values.astype(np.float64) - moved)) * 8
    assert float(np.linalg.norm(steps[0] - steps[1])) <= distance + math.sqrt(len(values))


def test_what_leaves_depends_on_the_rounded_value_alone() -> None:
    one, other = (np.full(4, v, dtype=np.float32) for v in (0.1262, 0.1238))
    noise = np.array([0, 3, -1, 2**40], dtype=np.int64)
    found = [add_on_grid(v, -3, lambda n: noise[:n]) for v in (one, other)]
    assert np.array_equal(found[0], found[1])
    assert found[0][:3].tolist() == [0.125, 0.5, 0.0]


def test_draws_are_told_their_scale_in_steps_and_come_in_the_order_of_names() -> None:
    drawn: list[tuple[int, float]] = []

    def draw(count: int, sigma: Fraction) -> np.ndarray:
        drawn.append((count, float(sigma)))
        return np.full(count, 2**8, dtype=np.int64)

    noised = _grid.noised_on_grid({"b": np.ones((2, 3)), "a": np.zeros(4)}, 0.75, 8, draw)
    assert drawn == [(4, 384.0), (6, 384.0)]  # 0.75 = 384 / 512, and 2^8 <= 384 < 2^9
    assert list(noised) == ["a", "b"] and set(noised["a"]) == {0.5} and noised["b"].tolist() == [[1.5] * 3] * 2


def test_large_values_and_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_grid, "_CHUNK", 3)
    values = np.array([[1e30, -1e30, 0.0, 1.0, 2.0]], dtype=np.float32)[:, ::-1]
    found = add_on_grid(values, -20, lambda n: np.full(n, 2**20, dtype=np.int64))
    assert found.tolist() == [[3.0, 2.0, 1.0, float(np.float32(-1e30)), float(np.float32(1e30))]]


@pytest.mark.parametrize("module", MODULES, ids=IDS)
def test_noise_alone_lies_on_the_public_grid(module) -> None:  # type: ignore[no-untyped-def]
    noised = module.MECHANISM.add_noise({"x": np.zeros(5000, np.float32)}, 0.75, NoiseSource.seeded_for_tests(0))["x"]
    steps = noised.astype(np.float64) / 2.0 ** grid_exponent(0.75, module.GRID_BITS)
    assert np.array_equal(steps, np.rint(steps)) and len(np.unique(steps)) > 4000


@pytest.mark.parametrize("module", MODULES, ids=IDS)
def test_scales_that_float32_cannot_hold_are_refused(module) -> None:  # type: ignore[no-untyped-def]
    for stddev in (2.0**-81, 2.0**81, -math.inf, 1e-300):
        with pytest.raises(PrivacyConfigError, match="standard deviation"):
            module.MECHANISM.add_noise({"x": np.zeros(1, np.float32)}, stddev, NoiseSource.seeded_for_tests(0))


@pytest.mark.parametrize("module", MODULES, ids=IDS)
def test_more_coordinates_than_the_event_covers_are_refused(module) -> None:  # type: ignore[no-untyped-def]
    half = np.broadcast_to(np.float32(0), (module.MOST_COORDINATES // 2 + 1,))
    with pytest.raises(PrivacyConfigError, match="coordinates"):
        module.MECHANISM.add_noise({"a": half, "b": half}, 1.0, NoiseSource.seeded_for_tests(0))


@pytest.mark.parametrize("module", MODULES, ids=IDS)
@pytest.mark.parametrize("multiplier", [0.0, -1.0, math.nan, -math.inf])
def test_multipliers_without_a_bound_are_refused(module, multiplier: float) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(PrivacyConfigError, match="multiplier"):
        module.MECHANISM.event(multiplier)


def test_a_multiplier_too_small_for_the_argument_is_refused() -> None:
    with pytest.raises(PrivacyConfigError, match="or more"):
        discrete_gaussian.MECHANISM.event(0.9e-4)
