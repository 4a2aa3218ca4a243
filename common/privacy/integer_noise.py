"""Exact integer noise from a cryptographic stream: discrete Gaussian and Skellam."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from common.errors import PrivacyConfigError
from common.privacy._block_sampler import BlockSampler
from common.privacy._integer_laws import DiscreteGaussianLaw, SkellamLaw
from common.privacy.rng import NoiseSource

SIGMA_RANGE = (2.0**-6, 2.0**44)  # above, a result could leave 53 bits; below, it is 0 for all practical purposes
MU_RANGE = (1e-3, 2.0**28)  # the tables of a Skellam law grow as the root of mu: 2^28 takes about a second to prepare
MOST_DRAWS = 2**34


def discrete_gaussian(source: NoiseSource, shape: int | Sequence[int], *, sigma: float | Fraction) -> NDArray[np.int64]:
    """Independent integers, x with probability proportional to exp(-x^2 / (2 sigma^2)), exactly.

    A float ``sigma`` is taken as the fraction that it is. ``sigma`` squared is the variance but for a factor that
    differs from 1 by less than 1e-5 from sigma 0.9 on; below, the variance is smaller than sigma squared.

    Raises:
        PrivacyConfigError: ``sigma`` is not in [2^-6, 2^44], or the shape is negative or too large.

    Source: Canonne, Kamath and Steinke 2020, definition 1; see ``_block_sampler`` for the method.
    """
    scale = _checked(sigma, SIGMA_RANGE, "the parameter sigma of discrete Gaussian noise")
    return _discrete_gaussian(scale).draw(source, _count(shape)).reshape(shape)


def skellam(source: NoiseSource, shape: int | Sequence[int], *, mu: float | Fraction) -> NDArray[np.int64]:
    """Independent differences of two Poisson variables of mean ``mu`` each, exactly: variance 2 mu.

    The sum of independent draws with mu_1, mu_2, ... has exactly the law with the sum of these. A float ``mu`` is taken
    as the fraction that it is.

    Raises:
        PrivacyConfigError: ``mu`` is not in [1e-3, 2^28], or the shape is negative or too large.

    Source: Skellam 1946; Agarwal, Kairouz and Liu 2021, definition 2.1; see ``_block_sampler`` for the method.
    """
    mean = _checked(mu, MU_RANGE, "the parameter mu of Skellam noise")
    return _skellam(mean).draw(source, _count(shape)).reshape(shape)


@functools.lru_cache(maxsize=8)
def _discrete_gaussian(sigma: Fraction) -> BlockSampler:
    return BlockSampler(DiscreteGaussianLaw(sigma))


@functools.lru_cache(maxsize=8)
def _skellam(mu: Fraction) -> BlockSampler:
    return BlockSampler(SkellamLaw(mu))


def _checked(value: float | Fraction, limits: tuple[float, float], what: str) -> Fraction:
    if isinstance(value, bool) or not limits[0] <= value <= limits[1]:
        raise PrivacyConfigError(f"{what} must lie in [{limits[0]:g}, {limits[1]:g}], not {value}")
    return value if isinstance(value, Fraction) else Fraction(float(value))


def _count(shape: int | Sequence[int]) -> int:
    sizes = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
    if any(size < 0 for size in sizes) or math.prod(sizes) > MOST_DRAWS:
        raise PrivacyConfigError(f"a shape must not be negative and hold at most 2^34 draws, not {sizes}")
    return math.prod(int(size) for size in sizes)
