"""Slow and obvious: what integer noise must look like."""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Callable
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
from scipy import stats

from common.privacy.rng import NoiseSource


class Scripted(NoiseSource):
    """A source whose first bytes are given."""

    __slots__ = ("left",)

    def _keystream(self, size: int) -> bytes:
        if len(self.left) < size:
            return super()._keystream(size)
        taken, self.left = self.left[:size], self.left[size:]
        return taken


def scripted(*parts: tuple[int, int]) -> Scripted:
    """A source that begins with these (value, bytes) in little-endian order and goes on at random."""
    source = Scripted(bytes(32), test_mode=True)
    source.left = b"".join(value.to_bytes(size, "little") for value, size in parts)
    return source


def gaussian_weight(x: int, sigma: Fraction) -> Decimal:
    exponent = -Fraction(x * x) / (2 * sigma**2)
    return (Decimal(exponent.numerator) / Decimal(exponent.denominator)).exp()


def skellam_weight(x: int, mu: Fraction) -> Decimal:
    """I_|x|(2 mu)."""
    return _bessel(mu)[abs(x)]


@functools.cache
def _bessel(mu: Fraction) -> list[Decimal]:
    """I_0(2 mu), I_1(2 mu), ...: the two last by their series, the others by I_(k-1) = I_(k+1) + k I_k / mu."""
    with localcontext() as context:
        context.prec = 100
        m, last = Decimal(mu.numerator) / Decimal(mu.denominator), 60 + math.ceil(25 * math.sqrt(2 * mu))
        found = [_bessel_series(last, m), _bessel_series(last - 1, m)]
        for k in range(last - 1, 0, -1):
            found.append(found[-2] + k * found[-1] / m)
        return found[::-1]


def _bessel_series(k: int, m: Decimal) -> Decimal:
    term = m**k / math.factorial(k)
    total, j = term, 0
    while term > total * Decimal(10) ** -98:
        j += 1
        term *= m * m / (j * (j + k))
        total += term
    return total


def cumulative(weight: Callable[[int], Decimal], peaks: dict[int, int], total: range) -> dict[int, Decimal]:
    """block -> weights of the blocks below and itself, over all. ``peaks``: block -> its peak, in rising order."""
    with localcontext() as context:
        context.prec = 100
        found, running = {}, Decimal(0)
        for block in total:
            running += weight(peaks[block])
            found[block] = running
        return {block: value / running for block, value in found.items()}


def gaussian_pmf(k: np.ndarray, sigma: float) -> np.ndarray:
    reach = np.arange(-math.ceil(40 * sigma), math.ceil(40 * sigma) + 1, dtype=np.float64)
    return np.exp(-(k.astype(np.float64) ** 2) / (2 * sigma**2)) / np.exp(-(reach**2) / (2 * sigma**2)).sum()


def skellam_pmf(k: np.ndarray, mu: float) -> np.ndarray:
    return stats.skellam.pmf(k, mu, mu)


def fits(sample: np.ndarray, pmf: Callable[[np.ndarray], np.ndarray], *, alarm: float = 1e-6) -> bool:
    """Chi-square with cells of at least ten expected draws, the outermost open to the outside."""
    reach = int(np.abs(sample).max()) + 1
    k = np.arange(-reach, reach + 1)
    expected = pmf(k) * len(sample)
    cell = np.minimum(np.cumsum(expected) // max(10.0, len(sample) / 100), 10**6).astype(int)
    _, cell = np.unique(cell, return_inverse=True)
    wanted = np.bincount(cell, weights=expected)
    seen = np.bincount(cell[sample + reach], minlength=len(wanted))
    if wanted[-1] < 5:
        wanted[-2], seen[-2] = wanted[-2:].sum(), seen[-2:].sum()
        wanted, seen = wanted[:-1], seen[:-1]
    if len(wanted) < 2:
        return False
    return bool(stats.chisquare(seen, wanted * seen.sum() / wanted.sum()).pvalue > alarm)


def cks_discrete_gaussian(sigma: Fraction, rng: random.Random) -> int:
    """Canonne, Kamath and Steinke 2020, algorithm 3, in rational arithmetic."""
    t = math.floor(sigma) + 1
    while True:
        y = _cks_discrete_laplace(t, rng)
        if _bernoulli_exp((abs(y) - sigma**2 / t) ** 2 / (2 * sigma**2), rng):
            return y


def _cks_discrete_laplace(t: int, rng: random.Random) -> int:
    """Algorithm 2 with s = 1."""
    while True:
        u = rng.randrange(t)
        if not _bernoulli_exp(Fraction(u, t), rng):
            continue
        v = 0
        while _bernoulli_exp(Fraction(1), rng):
            v += 1
        x = u + t * v
        negative = rng.randrange(2) == 1
        if not (negative and x == 0):
            return -x if negative else x


def _bernoulli_exp(gamma: Fraction, rng: random.Random) -> bool:
    """Algorithm 1: true with probability exp(-gamma)."""
    while gamma > 1:
        if not _bernoulli_exp(Fraction(1), rng):
            return False
        gamma -= 1
    k = 1
    while rng.randrange(gamma.denominator * k) < gamma.numerator:
        k += 1
    return k % 2 == 1


@functools.cache
def cks_sample(sigma: Fraction, n: int) -> tuple[int, ...]:
    rng = random.Random(5)
    return tuple(cks_discrete_gaussian(sigma, rng) for _ in range(n))
