"""What every noise mechanism must do; found by discovery. Broken ones must fail the same contract."""

from __future__ import annotations

import math
from collections.abc import Callable

import dp_accounting
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from common.errors import ConfigError, PrivacyConfigError
from common.privacy import accounting, mechanisms
from common.privacy.mechanisms.gaussian import Gaussian
from common.privacy.rng import NoiseSource

from .conftest import Conforms, mechanism_bench

SHAPES = {"centre": (50, 40), "context": (50, 40), "bias": (2000,), "scale": (1,)}
ALARM = 1e-9


def parameters() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


def residuals(mechanism: mechanisms.Mechanism, stddev: float, seed: int = 0) -> dict[str, np.ndarray]:
    given_ = parameters()
    noised = mechanism.add_noise(given_, stddev, NoiseSource.seeded_for_tests(seed))
    return {name: (noised[name].astype(np.float64) - given_[name]) / stddev for name in given_}


def keeps_names_shapes_and_types(mechanism: mechanisms.Mechanism) -> None:
    noised = mechanism.add_noise(parameters(), 1.0, NoiseSource.seeded_for_tests(0))
    assert {n: a.shape for n, a in noised.items()} == SHAPES
    assert all(a.dtype == np.float32 and np.isfinite(a).all() for a in noised.values())


def leaves_its_input_alone(mechanism: mechanisms.Mechanism) -> None:
    given_ = parameters()
    mechanism.add_noise(given_, 1.0, NoiseSource.seeded_for_tests(0))
    for name, array in parameters().items():
        np.testing.assert_array_equal(given_[name], array)


def has_the_declared_scale(mechanism: mechanisms.Mechanism) -> None:
    for stddev in (0.01, 1.0, 30.0):
        for name, residual in residuals(mechanism, stddev).items():
            total, n = float(np.sum(residual**2)), residual.size
            p = 2 * min(stats.chi2.sf(total, n), stats.chi2.cdf(total, n))
            assert p > ALARM, f"{name} at stddev {stddev}: ratio {math.sqrt(total / n):.3f}"


def noises_every_coordinate_independently(mechanism: mechanisms.Mechanism) -> None:
    found = residuals(mechanism, 1.0)
    assert all(np.count_nonzero(r) >= 0.99 * r.size for r in found.values())
    centre, context = found["centre"], found["context"]
    for a, b in ((centre[:, 1:], centre[:, :-1]), (centre[1:], centre[:-1]), (centre, context)):
        assert abs(float(np.sum(a * b))) / math.sqrt(a.size) < 6.5


def draws_from_the_given_source_alone(mechanism: mechanisms.Mechanism) -> None:
    first, again, other = (residuals(mechanism, 1.0, seed)["centre"] for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert abs(float(np.sum(first * other))) / math.sqrt(first.size) < 6.5


def refuses_bad_scales(mechanism: mechanisms.Mechanism) -> None:
    for stddev in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(PrivacyConfigError):
            mechanism.add_noise(parameters(), stddev, NoiseSource.seeded_for_tests(0))


def accounts_for_no_less_than_an_attack_gains(mechanism: mechanisms.Mechanism) -> None:
    """The distinguishing advantage at the best threshold, seen in samples, stays below what the event allows.

    No mechanism promises more than a Gaussian of the same scale, and one that is a Gaussian does not promise less.
    """
    sigma, n = 1.5, 40_000
    zeros = {"x": np.zeros(n, dtype=np.float32)}
    sample = mechanism.add_noise(zeros, sigma, NoiseSource.seeded_for_tests(3))["x"]
    epsilon = accounting.epsilon(mechanism.event(sigma), 1e-6)
    for threshold in np.linspace(-2, 4, 13):
        fpr, tpr = float(np.mean(sample > threshold)), float(np.mean(sample + 1.0 > threshold))
        assert tpr <= math.exp(epsilon) * fpr + 1e-6 + 5 / math.sqrt(n)
    assert epsilon >= accounting.epsilon(dp_accounting.GaussianDpEvent(sigma), 1e-6) * (1 - 1e-9)
    pooled = accounting.grouped(mechanism.event(sigma))
    assert pooled is not None
    if isinstance(mechanism.event(sigma), dp_accounting.GaussianDpEvent):
        assert pooled[0][0][1] == pytest.approx(sigma)


CONTRACT: tuple[Callable[[mechanisms.Mechanism], None], ...] = (
    keeps_names_shapes_and_types,
    leaves_its_input_alone,
    has_the_declared_scale,
    noises_every_coordinate_independently,
    draws_from_the_given_source_alone,
    refuses_bad_scales,
    accounts_for_no_less_than_an_attack_gains,
)


@pytest.mark.parametrize("name", mechanisms.names())
def test_the_name_is_that_of_the_module(name: str) -> None:
    assert mechanisms.load(name).name == name


@pytest.mark.parametrize("rule", CONTRACT, ids=lambda r: r.__name__)
@pytest.mark.parametrize("name", mechanisms.names())
def test_every_mechanism_keeps_the_contract(name: str, rule: Callable[[mechanisms.Mechanism], None]) -> None:
    rule(mechanisms.load(name))


@pytest.mark.parametrize("name", mechanisms.names())
def test_every_mechanism_conforms(name: str, conforms: Conforms) -> None:
    """Behind the coordinator's own clip, sum and release: T1 to T3 (``common.evaluation.conformance``)."""
    conforms(mechanism_bench(name), "T1", "T2", "T3")


@pytest.mark.parametrize("name", mechanisms.names())
@settings(max_examples=30, deadline=None)
@given(st.floats(1e-9, 1e9), st.integers(0, 40), st.floats(-1e6, 1e6, width=32))
def test_any_scale_and_size_gives_finite_noise(name: str, stddev: float, n: int, value: float) -> None:
    given_ = {"x": np.full((n, 2), value, dtype=np.float32)}
    noised = mechanisms.load(name).add_noise(given_, stddev, NoiseSource.seeded_for_tests(0))["x"]
    assert noised.shape == (n, 2) and np.isfinite(noised).all()
    assert np.all(np.abs(noised - np.float64(np.float32(value))) <= 8.6 * stddev + abs(value) * 2.0**-20 + stddev)


def test_gaussian_values_lie_on_a_public_grid() -> None:
    """Rows of noise alone and rows that hold a value too end as multiples of the same number."""
    given_ = {"x": np.concatenate([np.zeros(5000), np.full(5000, 0.1234567)]).astype(np.float32)}
    noised = Gaussian().add_noise(given_, 0.75, NoiseSource.seeded_for_tests(0))["x"].astype(np.float64)
    steps = noised / 2.0**-13  # floor(log2(0.75)) = -1, less 12 bits
    assert np.array_equal(steps, np.rint(steps))
    for half in (steps[:5000], steps[5000:]):
        assert np.mean(half % 2 == 0) == pytest.approx(0.5, abs=0.04)


def test_an_unknown_mechanism_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="did you mean 'gaussian'"):
        mechanisms.load("gausian")


class _Scaled(Gaussian):
    factor = 1.0

    def add_noise(self, parameters, stddev, source):  # type: ignore[no-untyped-def]
        return super().add_noise(parameters, stddev * self.factor, source)


class TwoThirds(_Scaled):
    factor = 2 / 3


class ThreeHalves(_Scaled):
    factor = 3 / 2


class OneTableBare(Gaussian):
    def add_noise(self, parameters, stddev, source):  # type: ignore[no-untyped-def]
        return {**super().add_noise(parameters, stddev, source), "context": parameters["context"].copy()}


class TiedTables(Gaussian):
    def add_noise(self, parameters, stddev, source):  # type: ignore[no-untyped-def]
        shared = source.normal((2000,), stddev)
        return {n: a + shared[: a.size].reshape(a.shape) for n, a in parameters.items()}


class InPlace(Gaussian):
    def add_noise(self, parameters, stddev, source):  # type: ignore[no-untyped-def]
        for array in parameters.values():
            array += source.normal(array.shape, stddev)
        return dict(parameters)


class GlobalGenerator(Gaussian):
    def add_noise(self, parameters, stddev, source):  # type: ignore[no-untyped-def]
        rng = np.random.default_rng()
        return {n: (a + rng.normal(0, stddev, a.shape)).astype(np.float32) for n, a in parameters.items()}


class FloatSixtyFour(Gaussian):
    def add_noise(self, parameters, stddev, source):  # type: ignore[no-untyped-def]
        return {n: a.astype(np.float64) for n, a in super().add_noise(parameters, stddev, source).items()}


class SilentWithoutNoise(Gaussian):
    def add_noise(self, parameters, stddev, source):  # type: ignore[no-untyped-def]
        return super().add_noise(parameters, stddev, source) if stddev > 0 else dict(parameters)


class ClaimsMore(Gaussian):
    def event(self, noise_multiplier: float):  # type: ignore[no-untyped-def]
        return super().event(2 * noise_multiplier)


@pytest.mark.parametrize(
    ("broken", "rule"),
    [
        (TwoThirds(), has_the_declared_scale),
        (ThreeHalves(), has_the_declared_scale),
        (OneTableBare(), has_the_declared_scale),
        (TiedTables(), noises_every_coordinate_independently),
        (InPlace(), leaves_its_input_alone),
        (GlobalGenerator(), draws_from_the_given_source_alone),
        (FloatSixtyFour(), keeps_names_shapes_and_types),
        (SilentWithoutNoise(), refuses_bad_scales),
        (ClaimsMore(), accounts_for_no_less_than_an_attack_gains),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, Gaussian) else x.__name__,
)
def test_broken_mechanisms_break_the_contract(broken: Gaussian, rule: Callable[[mechanisms.Mechanism], None]) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        rule(broken)
