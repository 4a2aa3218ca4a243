"""Laws of integer noise, enclosed to any number of bits in integer arithmetic.

A law is symmetric about 0 and falls on both sides of it. The integers are cut into blocks of ``2^block_bits``: block h
holds ``h 2^block_bits + t`` for 0 <= t < 2^block_bits, and its peak is its integer nearest to 0. A block weighs what
the law gives its peak; ``_block_sampler`` draws a block by weight, a place in it evenly, and rejects.

A number is given as two integers that hold it between them, so whoever compares with it knows whether the comparison is
decided. Floats choose the sizes of tables alone: a bad choice would make an enclosure wide, never wrong.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, localcontext
from fractions import Fraction
from itertools import accumulate
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Enclosed = tuple[int, int]

RATIO_ERROR = 2.0**-45  # of ``Law.ratio_estimates``
_COARSE_BITS = 6  # a block is between 1/128 and 1/64 of a standard deviation wide, or one integer
_EXPONENT_LIMIT = 10**6
_TAYLOR_LIMIT, _TAYLOR_TERMS = 0.5, 15


@dataclass(frozen=True)
class Boundaries:
    """Where a uniform number falls into the next block.

    Attributes:
        first: number of the block between the first and the second boundary.
        lows, highs: boundary k lies in [lows[k], highs[k] + 1) / 2^bits; what is below the first and above the last
            belongs to blocks that are not listed.
    """

    first: int
    lows: list[int]
    highs: list[int]


class Law(Protocol):
    """What the sampler needs to know."""

    block_bits: int

    def boundaries(self, bits: int) -> Boundaries:
        """Cumulative weights of the blocks, over the weight of all, in units of 2^-bits; the far tails are left out."""

    def ratio(self, block: int, place: int, bits: int) -> Enclosed:
        """The law at a place of a block over the law at its peak, in units of 2^-bits."""

    def ratio_estimates(self, blocks: NDArray[np.int64], places: NDArray[np.int64]) -> NDArray[np.float64]:
        """The same, wrong by less than ``RATIO_ERROR``; NaN where that is not sure."""


class DiscreteGaussianLaw:
    """Proportional to exp(-x^2 / (2 sigma^2)) (Canonne, Kamath and Steinke 2020, definition 1)."""

    def __init__(self, sigma: Fraction) -> None:
        self._doubled_variance = 2 * sigma**2
        self._sigma = float(sigma)
        self.block_bits = _block_bits(self._sigma)

    def boundaries(self, bits: int) -> Boundaries:
        """See ``Law``. The weights left out fall faster than a geometric series, which bounds their sum."""
        width, scale = 1 << self.block_bits, _working_bits(bits)
        count = math.ceil(math.sqrt(2 * math.log(2) * (bits + 16)) * self._sigma / width) + 1
        right, left = self._weights(0, width, count, scale), self._weights(1, width, count, scale)
        # From block `count` on, a block weighs exp(-a) or less times the one before: 1 / (1 - exp(-a)) <= 1 + 1 / a.
        spread = 2 + math.ceil(self._doubled_variance / (2 * (count - 1) * width**2))
        return _boundaries(left[::-1] + right, -count, left[-1][1] * spread, bits)

    def _weights(self, start: int, width: int, count: int, bits: int) -> list[Enclosed]:
        """exp(-x^2 / (2 sigma^2)) for x = start, start + width, ...: each from the one before, rounded outwards.

        The quotient of two neighbours is multiplied by exp(-width^2 / sigma^2) in every step.
        """
        unit = 1 / self._doubled_variance
        low, high = _exp_minus(start * start * unit, bits)
        fall_low, fall_high = _exp_minus((2 * start * width + width * width) * unit, bits)
        twice_low, twice_high = _exp_minus(2 * width * width * unit, bits)
        weights = []
        for _ in range(count):
            weights.append((low, high))
            low, high = low * fall_low >> bits, (high * fall_high >> bits) + 1
            fall_low, fall_high = fall_low * twice_low >> bits, (fall_high * twice_high >> bits) + 1
        return weights

    def ratio(self, block: int, place: int, bits: int) -> Enclosed:
        """See ``Law``."""
        x, peak = _point(block, place, self.block_bits), _peak(block, self.block_bits)
        return _exp_minus((x * x - peak * peak) / self._doubled_variance, bits)

    def ratio_estimates(self, blocks: NDArray[np.int64], places: NDArray[np.int64]) -> NDArray[np.float64]:
        """See ``Law``. A Taylor polynomial: sums and products, whose rounding IEEE 754 fixes, and a known remainder.

        With exponents up to 1/2 the remainder is below 2^-55, the rounding of Horner's scheme below 2^-47.
        """
        width = 1 << self.block_bits
        negative = blocks < 0
        distance = np.where(negative, width - 1 - places, places).astype(np.float64)
        peak = np.where(negative, -(blocks + 1) * width + 1, blocks * width).astype(np.float64)
        exponent = distance * (2.0 * peak + distance) * float(1 / self._doubled_variance)
        total = np.ones_like(exponent)
        for k in range(_TAYLOR_TERMS, 0, -1):
            total = 1.0 - total * exponent * (1.0 / k)
        total[exponent > _TAYLOR_LIMIT] = np.nan
        return total


class SkellamLaw:
    """Difference of two Poisson variables of mean mu: proportional to I_|x|(2 mu), I the modified Bessel function.

    Skellam 1946, equation 4.
    """

    def __init__(self, mu: Fraction) -> None:
        self._mu = mu
        self.block_bits = _block_bits(math.sqrt(2 * mu))
        bits = _working_bits(64)
        lows, highs = self._chain(self._count(64) << self.block_bits, bits)
        self._table = self._cumulate(lows, highs, 64)
        sure = (
            low / (1 << bits) if high - low <= low >> 50 else math.nan for low, high in zip(lows, highs, strict=True)
        )
        self._relative = np.fromiter(sure, np.float64) if self.block_bits else np.zeros(0)

    def boundaries(self, bits: int) -> Boundaries:
        """See ``Law``."""
        if bits == 64:
            return self._table
        return self._cumulate(*self._chain(self._count(bits) << self.block_bits, _working_bits(bits)), bits)

    def _count(self, bits: int) -> int:
        return (self._reach(bits) >> self.block_bits) + 2

    def _cumulate(self, lows: list[int], highs: list[int], bits: int) -> Boundaries:
        """The blocks left out weigh no more than all that the law has beyond them: a geometric series at most."""
        peaks = [abs(_peak(h, self.block_bits)) for h in range(-self._count(bits), self._count(bits))]
        left_out = math.ceil(highs[-1] / (1 - self._fall(len(highs))))
        return _boundaries([(lows[p], highs[p]) for p in peaks], -self._count(bits), left_out, bits)

    def _fall(self, k: int) -> Fraction:
        """A bound below 1 on I_j / I_(j-1) for all j >= k: the recurrence of ``_chain`` twice, begun with 1."""
        a, b = k / self._mu, (k + 1) / self._mu
        return (b + 1) / (a * (b + 1) + 1)

    def ratio(self, block: int, place: int, bits: int) -> Enclosed:
        """See ``Law``."""
        x, peak = abs(_point(block, place, self.block_bits)), abs(_peak(block, self.block_bits))
        lows, highs = self._chain(x, 2 * _working_bits(bits))
        if not lows[peak]:
            return 0, 1 << bits
        return (lows[x] << bits) // highs[peak], (highs[x] << bits) // lows[peak] + 1

    def ratio_estimates(self, blocks: NDArray[np.int64], places: NDArray[np.int64]) -> NDArray[np.float64]:
        """See ``Law``. Quotients of two table entries, each within 2^-49 of its value."""
        width = 1 << self.block_bits
        x = np.abs(blocks * width + places)
        peak = np.where(blocks < 0, -(blocks + 1) * width + 1, blocks * width)
        known = x < len(self._relative)
        estimates = np.full(len(blocks), np.nan)
        estimates[known] = self._relative[x[known]] / self._relative[peak[known]]
        return estimates

    def _reach(self, bits: int) -> int:
        """About the x beyond which less than 2^-(bits + 16) lies: Chernoff's bound."""
        mean = 2 * float(self._mu)

        def exponent(x: float) -> float:
            return x * math.asinh(x / mean) - x * x / (math.hypot(x, mean) + mean)

        low, high = 0, 1
        while exponent(high) < (bits + 16) * math.log(2):
            low, high = high, 2 * high
        while high - low > 1 + low // 64:
            middle = (low + high) // 2
            low, high = (low, middle) if exponent(middle) >= (bits + 16) * math.log(2) else (middle, high)
        return high

    def _chain(self, last: int, bits: int) -> tuple[list[int], list[int]]:
        """Enclosures of I_k(2 mu) / I_0(2 mu), k from 0 to ``last``, in units of 2^-bits.

        The quotients r_k = I_k / I_(k-1) obey r_k = 1 / (k / mu + r_(k+1)) and lie between 0 and 1 (Amos 1974): begun
        far out with [0, 1] and followed back, an enclosure shrinks in every step: to exp(-(n^2 - k^2) / 2 mu) and less
        from n to k. Each step rounds outwards.
        """
        one, square = 1 << bits, 1 << (2 * bits)
        top, bottom = one * self._mu.denominator, self._mu.numerator
        low, high = 0, one
        quotients = []
        for k in range(math.isqrt(last**2 + self._reach(bits) ** 2) + 64, 0, -1):
            step = k * top // bottom
            low, high = square // (step + 1 + high), min(one, square // (step + low) + 1)
            if k <= last:
                quotients.append((low, high))
        lows, highs = [one], [one]
        for low, high in reversed(quotients):
            lows.append(lows[-1] * low >> bits)
            highs.append((highs[-1] * high >> bits) + 1)
        return lows, highs


def _working_bits(bits: int) -> int:
    return bits + bits // 8 + 96


def _block_bits(stddev: float) -> int:
    return max(0, math.frexp(stddev)[1] - 1 - _COARSE_BITS)


def _point(block: int, place: int, block_bits: int) -> int:
    return (block << block_bits) + place


def _peak(block: int, block_bits: int) -> int:
    return block << block_bits if block >= 0 else ((block + 1) << block_bits) - 1


def _boundaries(weights: list[Enclosed], first: int, tail: int, bits: int) -> Boundaries:
    """Cumulative sums over the whole, which is the listed weights and two tails of at most ``tail`` each."""
    sums_low = list(accumulate((low for low, _ in weights), initial=0))
    sums_high = list(accumulate((high for _, high in weights), initial=tail))
    least, most = sums_low[-1], sums_high[-1] + tail
    return Boundaries(first, [(s << bits) // most for s in sums_low], [(s << bits) // least for s in sums_high])


def _exp_minus(x: Fraction, bits: int) -> Enclosed:
    """An enclosure of exp(-x), x >= 0, in units of 2^-bits.

    ``Decimal.exp`` is correctly rounded; the quotient before it is off by 10^-digits of itself, which moves the result
    by less than 10^(6 - digits). Both are far below one unit.
    """
    if x > _EXPONENT_LIMIT:
        return 0, 1 << max(0, bits - _EXPONENT_LIMIT)
    digits = math.ceil(bits * math.log10(2)) + 25
    with localcontext(Context(prec=digits, Emax=MAX_EMAX, Emin=MIN_EMIN)):
        scaled = int((-(Decimal(x.numerator) / Decimal(x.denominator))).exp() * (1 << bits))
    return max(0, scaled - 1), scaled + 2
