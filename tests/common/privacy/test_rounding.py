"""Conditional stochastic rounding: the bound always holds, the mean is kept, and the formula of the bound is right."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from common.privacy import rounding
from common.privacy.grid import rounded_squared_norm
from common.privacy.rng import NoiseSource
from common.privacy.rounding import Part, rounded

EXTREMES = st.sampled_from([math.nan, math.inf, -math.inf, 3.4e38, -1e300, 5e-324, 1e-45, -0.0, 0.5, -0.5, 1e9])


def source(seed: int = 0) -> NoiseSource:
    return NoiseSource.seeded_for_tests(seed)


def one(values: list[float] | np.ndarray, most: int, *, scale: float = 1.0, seed: int = 0) -> np.ndarray:
    part = Part(np.zeros(1, np.int64), np.array([values], dtype=np.float64))
    return rounded([part], 1, scale=scale, most_squared_norm=most, source=source(seed))[0][0]


@settings(max_examples=50, deadline=None)
@given(values=st.lists(st.floats(-100, 100) | EXTREMES, min_size=1, max_size=20), most=st.integers(1, 10_000))
def test_the_bound_holds_for_anything(values: list[float], most: int) -> None:
    found = one(values, most)
    assert sum(int(v) ** 2 for v in found) <= most
    if not all(map(math.isfinite, values)):
        assert not found.any()


@settings(max_examples=50, deadline=None)
@given(values=st.lists(st.floats(-100, 100), min_size=1, max_size=20), seed=st.integers(0, 99))
def test_within_the_formula_s_bound_every_number_moves_by_less_than_a_step(values: list[float], seed: int) -> None:
    norm = math.sqrt(sum(v * v for v in values))
    most = rounded_squared_norm(norm * (1 + 1e-12) + 1e-9, len(values))
    found = one(values, most, seed=seed)
    for integer, value in zip(found, values, strict=True):
        assert abs(Fraction(int(integer)) - Fraction(value)) < 1


def test_rounding_keeps_the_mean_where_the_bound_is_wide() -> None:
    part = Part(np.repeat(np.arange(4000), 1), np.tile([0.25, -0.7, 3.0, 1e-3], (4000, 1)))
    found = rounded([part], 4000, scale=1.0, most_squared_norm=100, source=source())[0]
    for column, mean in zip(found.T, (0.25, -0.7, 3.0, 1e-3), strict=True):
        up = int(np.count_nonzero(column == math.floor(mean) + 1))
        assert set(np.unique(column)) <= {math.floor(mean), math.floor(mean) + 1}
        assert stats.binomtest(up, 4000, mean - math.floor(mean)).pvalue > 1e-6


def test_a_tight_bound_is_met_by_drawing_again() -> None:
    """Four numbers of 1/2: the sum of squares is Binomial(4, 1/2), conditioned on being at most 1."""
    part = Part(np.arange(3000), np.full((3000, 4), 0.5))
    found = rounded([part], 3000, scale=1.0, most_squared_norm=1, source=source())[0]
    ones = found.sum(axis=1)
    assert set(np.unique(ones)) == {0, 1}
    assert stats.binomtest(int((ones == 1).sum()), 3000, 4 / 5).pvalue > 1e-6


def test_what_never_fits_is_rounded_towards_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    assert one([1.75, -1.75], 2).tolist() == [1, -1]  # up is never within the bound
    assert one([1.0, 1.0], 1).tolist() == [0, 0]  # nor is any integer near it
    monkeypatch.setattr(rounding, "MOST_TRIES", 0)
    assert one([0.99, -2.99], 10_000).tolist() == [0, -2]


def test_vectors_of_several_parts_share_one_bound() -> None:
    parts = [Part(np.array([0, 0, 1]), np.full((3, 2), 0.5)), Part(np.array([0, 1]), np.full((2, 3), 0.5))]
    for seed in range(20):
        found = rounded(parts, 2, scale=1.0, most_squared_norm=2, source=source(seed))
        squares = [
            np.sum(found[0][:2] ** 2) + np.sum(found[1][:1] ** 2),
            np.sum(found[0][2:] ** 2) + np.sum(found[1][1:] ** 2),
        ]
        assert max(squares) <= 2


def test_vectors_are_rounded_apart_from_one_another() -> None:
    """A vector that is not finite, or drawn again, changes nothing about its neighbours' bound or zeros."""
    values = np.array([[0.5, 0.5], [math.nan, 1.0], [0.0, 0.0], [7.0, -3.0]])
    found = rounded([Part(np.arange(4), values)], 4, scale=2.0, most_squared_norm=300, source=source())[0]
    assert found.tolist() == [[1, 1], [0, 0], [0, 0], [14, -6]]


def test_long_vectors_are_rounded_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounding, "_CHUNK", 8)
    values = np.random.default_rng(0).normal(size=(31, 3)) * 5
    found = rounded([Part(np.zeros(31, np.int64), values)], 1, scale=1.0, most_squared_norm=10**6, source=source())[0]
    assert np.all(np.abs(found - values) < 1) and not np.array_equal(found, np.floor(values))


@pytest.mark.parametrize(("length", "norm"), [(1, 1.0), (16, 3.0), (400, 2.0), (400, 100.0)])
def test_a_rounding_is_kept_with_the_stated_probability(length: int, norm: float) -> None:
    """Kairouz et al. 2021, proposition 22: with beta = exp(-1/2) at least 1 - beta = 0.39 of the draws are within."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=length)
    x *= norm / np.linalg.norm(x)
    low = np.floor(x)
    draws = low + (rng.random((4000, length)) < x - low)
    kept = float(np.mean(np.sum(draws**2, axis=1) <= rounded_squared_norm(norm, length)))
    assert kept > 1 - math.exp(-0.5) - 0.03


def test_the_bound_is_the_published_formula() -> None:
    for norm, d in ((10.0, 4), (10.0, 10_000), (1000.0, 100)):
        root = math.sqrt(d)
        second = norm**2 + d / 4 + math.sqrt(2 * math.log(1 / math.exp(-0.5))) * (norm + root / 2)
        assert rounded_squared_norm(norm, d) == math.floor(min((norm + root) ** 2, second))


def test_norms_are_exact_beyond_53_bits() -> None:
    big = float(2**29)
    assert one([big, 1.0], 2**58).tolist() == [0, 0]  # 2^58 + 1 is more than 2^58, though not in float64
    assert one([big, 1.0], 2**58 + 1).tolist() == [2**29, 1]
