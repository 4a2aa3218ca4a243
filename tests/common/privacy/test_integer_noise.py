"""Exact integer noise: declared parameters accepted, wrong ones and wrong samplers caught, bad arguments refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from common.errors import PrivacyConfigError
from common.privacy._block_sampler import BlockSampler
from common.privacy._integer_laws import Boundaries
from common.privacy.integer_noise import discrete_gaussian, skellam
from common.privacy.rng import NoiseSource

from ._integer_oracles import (
    cks_sample,
    fits,
    gaussian_pmf,
    scripted,
    skellam_pmf,
)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 4.0, 127.0, 300.0, 5000.25])
def test_the_declared_sigma_is_accepted_and_wrong_ones_are_not(sigma: float) -> None:
    sample = discrete_gaussian(NoiseSource.seeded_for_tests(3), 100_000, sigma=sigma)
    assert fits(sample, lambda k: gaussian_pmf(k, sigma))
    assert not fits(sample, lambda k: gaussian_pmf(k, sigma * 2 / 3))
    assert not fits(sample, lambda k: gaussian_pmf(k, sigma * 3 / 2))


@pytest.mark.parametrize("mu", [0.01, 0.7, 10.0, 3000.0, 9000.0, 1e6])
def test_the_declared_mu_is_accepted_and_wrong_ones_are_not(mu: float) -> None:
    sample = skellam(NoiseSource.seeded_for_tests(4), 100_000, mu=mu)
    assert fits(sample, lambda k: skellam_pmf(k, mu))
    assert not fits(sample, lambda k: skellam_pmf(k, mu * 2 / 3))
    assert not fits(sample, lambda k: skellam_pmf(k, mu * 3 / 2))


@pytest.mark.parametrize(
    ("draw", "stddev"),
    [
        (lambda s, n: discrete_gaussian(s, n, sigma=2.0**40 * 1.37), 2.0**40 * 1.37),
        (lambda s, n: skellam(s, n, mu=1e8), math.sqrt(2e8)),
    ],
)
def test_wide_noise_is_normal_in_the_large_and_even_in_the_small(draw, stddev: float) -> None:  # type: ignore[no-untyped-def]
    sample = draw(NoiseSource.seeded_for_tests(6), 150_000)
    for part in np.split(sample, [65_536, 131_072]):
        assert stats.kstest(part / stddev, "norm").pvalue > 1e-6
    for modulus in (2, 3, 64, 101):
        assert stats.chisquare(np.bincount(sample % modulus)).pvalue > 1e-6
    assert stats.chisquare(np.bincount(np.abs(sample) // max(1, int(stddev) >> 10) % 16)).pvalue > 1e-6


def has_the_variance(sample: np.ndarray, variance: float) -> bool:
    return abs(float(np.mean(sample.astype(np.float64) ** 2)) / variance - 1) < 6 * math.sqrt(2 / sample.size)


@pytest.mark.parametrize("sigma", [130.0, 255.9, 1e6, 2.0**41 - 1])
def test_the_variance_of_wide_noise_shows_no_trace_of_the_blocks(sigma: float) -> None:
    """Taking every place of a block would widen the noise by half a per cent and more."""
    sample = discrete_gaussian(NoiseSource.seeded_for_tests(7), 4_000_000, sigma=sigma)
    assert has_the_variance(sample, sigma**2) and not has_the_variance(sample, sigma**2 / 1.006)


@pytest.mark.parametrize("mu", [8192.0, 32_000.0, 1e6])
def test_the_variance_of_wide_skellam_noise_shows_no_trace_of_the_blocks(mu: float) -> None:
    sample = skellam(NoiseSource.seeded_for_tests(7), 4_000_000, mu=mu)
    assert has_the_variance(sample, 2 * mu) and not has_the_variance(sample, 2 * mu / 1.006)


class Halving:
    """Two blocks of eight, each place half as likely as the one nearer to 0: three of four proposals are rejected."""

    block_bits = 3

    def boundaries(self, bits: int) -> Boundaries:
        return Boundaries(-1, [0, 2 ** (bits - 1), 2**bits], [0, 2 ** (bits - 1), 2**bits])

    def ratio(self, block: int, place: int, bits: int) -> tuple[int, int]:
        exact = 2**bits >> (place if block >= 0 else 7 - place)
        return exact, exact

    def ratio_estimates(self, blocks: np.ndarray, places: np.ndarray) -> np.ndarray:
        return 2.0 ** -np.where(blocks < 0, 7 - places, places).astype(np.float64)


def test_what_is_rejected_is_drawn_again_until_it_is_accepted() -> None:
    sample = BlockSampler(Halving()).draw(NoiseSource.seeded_for_tests(0), 100_000)
    weights = 2.0 ** -np.concatenate([np.arange(8)[::-1], np.arange(8)])
    assert stats.chisquare(np.bincount(sample + 8), 100_000 * weights / weights.sum()).pvalue > 1e-6


def test_the_sampler_agrees_with_algorithms_1_to_3_in_rational_arithmetic() -> None:
    sigma, n = Fraction(5, 2), 4000
    slow = np.array(cks_sample(sigma, n))
    fast = discrete_gaussian(NoiseSource.seeded_for_tests(1), 10 * n, sigma=sigma)
    assert fits(slow, lambda k: gaussian_pmf(k, 2.5))
    edges = np.arange(-5, 6)
    counts = [np.bincount(np.searchsorted(edges, x), minlength=12) for x in (slow, fast)]
    assert stats.chi2_contingency(np.array(counts)).pvalue > 1e-6


def test_sums_of_skellam_are_skellam() -> None:
    source = NoiseSource.seeded_for_tests(2)
    total = sum(skellam(source, 50_000, mu=mu) for mu in (0.5, 1.25, 3.0))
    assert fits(total, lambda k: skellam_pmf(k, 4.75))
    assert not fits(total, lambda k: skellam_pmf(k, 4.75 * 2 / 3))


def tail_of(draw: Callable[[NoiseSource], float]) -> float:
    """What comes when the first 128 random bits are zero."""
    return abs(draw(scripted((0, 2), (0, 8), (2**16 - 1, 8))))


def test_the_tail_is_not_cut() -> None:
    assert tail_of(lambda s: discrete_gaussian(s, 1, sigma=4.0)[0] / 4) > 11
    assert tail_of(lambda s: skellam(s, 1, mu=8.0)[0] / 4) > 11
    short_uniform = (NoiseSource.seeded_for_tests(0).words(1)[0] >> 40) * 0.0 + 2.0**-24  # the least of 24 bits
    assert tail_of(lambda s: float(stats.norm.ppf(short_uniform))) < 6


def rounded_gaussian(source: NoiseSource, n: int, sigma: float) -> np.ndarray:
    return np.rint(source.normal(n, sigma)).astype(np.int64)


def folded(source: NoiseSource, n: int, sigma: float) -> np.ndarray:
    """Two blocks share the place 0: zero comes twice as often."""
    sample = discrete_gaussian(source, n, sigma=sigma)
    return np.where(sample < 0, sample + 1, sample)


def without_rejection(source: NoiseSource, n: int, sigma: float) -> np.ndarray:
    """Even within a block of a quarter of sigma."""
    width = int(sigma) // 4
    return discrete_gaussian(source, n, sigma=sigma / width) * width + source.integers(n, width)


@pytest.mark.parametrize(
    ("broken", "sigma"), [(rounded_gaussian, 0.5), (folded, 4.0), (without_rejection, 320.0)], ids=lambda x: str(x)[:20]
)
def test_samplers_that_are_not_discrete_gaussians_are_caught(broken, sigma: float) -> None:  # type: ignore[no-untyped-def]
    assert not fits(broken(NoiseSource.seeded_for_tests(9), 100_000, sigma), lambda k: gaussian_pmf(k, sigma))


def test_a_poisson_pair_of_floats_with_a_shared_part_is_caught() -> None:
    rng = np.random.default_rng(0)
    shared = rng.poisson(1.0, 50_000)
    broken = rng.poisson(4.0, 50_000) + shared - rng.poisson(4.0, 50_000) - shared
    assert not fits(broken, lambda k: skellam_pmf(k, 5.0))


def test_seeds_reproduce_and_differ() -> None:
    for draw in (lambda s: discrete_gaussian(s, 300, sigma=1e6), lambda s: skellam(s, 300, mu=1e5)):
        first, again, other = (draw(NoiseSource.seeded_for_tests(seed)) for seed in (1, 1, 2))
        assert np.array_equal(first, again) and not np.array_equal(first, other)
    source = NoiseSource.seeded_for_tests(1)
    assert not np.array_equal(skellam(source, 300, mu=50), skellam(source, 300, mu=50))


@pytest.mark.parametrize("shape", [(), 0, 5, (3, 4), (0, 4)])
def test_shapes(shape: int | tuple[int, ...]) -> None:
    for sample in (
        discrete_gaussian(NoiseSource.seeded_for_tests(0), shape, sigma=300),
        skellam(NoiseSource.seeded_for_tests(0), shape, mu=3),
    ):
        assert sample.dtype == np.int64 and sample.shape == ((shape,) if isinstance(shape, int) else shape)


@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf, -math.inf, 1e300, 1e-300, True, Fraction(-1, 3)])
def test_scales_out_of_range_are_refused(value: float) -> None:
    source = NoiseSource.seeded_for_tests(0)
    with pytest.raises(PrivacyConfigError, match="sigma"):
        discrete_gaussian(source, 3, sigma=value)
    with pytest.raises(PrivacyConfigError, match="mu"):
        skellam(source, 3, mu=value)


@pytest.mark.parametrize("shape", [-1, (3, -1), 2**40, (2**20, 2**20)])
def test_absurd_shapes_are_refused(shape: int | tuple[int, ...]) -> None:
    for draw in (lambda s: discrete_gaussian(s, shape, sigma=2), lambda s: skellam(s, shape, mu=2)):
        with pytest.raises(PrivacyConfigError, match="shape"):
            draw(NoiseSource.seeded_for_tests(0))


def test_a_float_scale_is_taken_as_the_fraction_that_it_is() -> None:
    short = np.float32(2.1)
    one, two = (
        discrete_gaussian(NoiseSource.seeded_for_tests(0), 99, sigma=s) for s in (short, Fraction(float(short)))
    )
    assert np.array_equal(one, two)
    one, two = (discrete_gaussian(NoiseSource.seeded_for_tests(0), 99, sigma=s) for s in (0.1 + 2, Fraction(0.1 + 2)))
    assert np.array_equal(one, two)
