"""The public grid of a secure sum: scale, bits, bounds and noise shares, all from one set of numbers.

A value v stands on the grid as v * scale. Every client sends integers modulo 2^bits; the coordinator learns their
sum. docs/sensitivity.md section 11 derives what is used here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from common.errors import PrivacyConfigError

if TYPE_CHECKING:
    from dp_accounting import DpEvent

BITS = (16, 24, 32)
MECHANISMS = ("skellam", "discrete_gaussian")
LOG_INVERSE_BETA = 0.5  # beta = exp(-1/2): a rounding is kept with probability 0.39 or more
LEAST_CLIPS = 64  # clip norms that one client's sum of units may reach in a coordinate before it is clamped
MOST_SHARE_VARIANCE = 2.0**28  # of one client's noise: the tables of exact Skellam noise grow with its root
_CHEAP_VARIANCE, _NO_INFLATION = 2.0**22, 1e-3  # a scale that needs more than the first serves down to the second
_MOST_NUMBER = 1e12  # what events of integer noise take
_MOST_NORM = 2.0**30  # squares of norms stay in 64 bits
_LEAST_MEAN, _LEAST_SIGMA = 1e-3, 0.5  # of a share; theorem 1 of Kairouz et al. needs the second
_SHARE_BITS = 32  # of a share's parameter, so that its products with counts of clients are exact
# What overflows: of rotated updates 2^-20 of the numbers, for a wrapped one is spread over the whole update again and
# moves each value by 2^bits / sqrt(n) steps, less than the noise; of sums of units nothing with probability 1 - 2^-40.
_LOG_NUMBER, _LOG_RELEASE = 20 * math.log(2), 40 * math.log(2)
_STEPS = 16  # scales an octave; each has few bits, so that a float32 times a scale is exact in float64
_ROUND_UP = 1 + 2.0**-50


@dataclass(frozen=True)
class SecureSum:
    """Public terms of a sum under secure aggregation.

    Attributes:
        aggregation: ``full``: the protocol runs; ``ideal``: a simulator adds up in the clear what clients would mask.
        max_clients: largest cohort; sums of so many never overflow, but for the tail of the noise.
        survivors: T: fewer clients in a sum abort the round.
        colluders: c clients may tell their share of the noise; T - c shares are accounted.
        roster: whether identities come from a roster signed offline; else the coordinator is semi-honest.
        dimension: numbers in one update; 0 while the row domain is not known: such a plan accounts nothing.
        bits: of a masked number; 0 while the dimension is not known.

    Raises:
        PrivacyConfigError: a number is out of range, or they contradict one another.
    """

    aggregation: str
    max_clients: int
    survivors: int
    colluders: int
    roster: bool
    dimension: int = 0
    bits: int = 0

    def __post_init__(self) -> None:
        if self.aggregation not in ("full", "ideal"):
            raise PrivacyConfigError(
                "mode 'distributed' needs secure aggregation: without it the coordinator sees single updates with a "
                "share of the noise",
                remedy="Set federation.secure_aggregation = 'full', or 'ideal' in a simulation.",
            )
        if self.colluders < 0 or self.survivors < max(2, self.colluders + 1):
            raise PrivacyConfigError(
                f"min_clients = {self.survivors} must be 2 or more and above colluders = {self.colluders}: the noise "
                "is shared out for the clients that are left without them",
                remedy="Raise federation.min_clients, or lower federation.colluders.",
            )
        if not self.survivors <= self.max_clients <= 1_000_000:
            raise PrivacyConfigError(
                f"max_clients = {self.max_clients} must lie between min_clients = {self.survivors} and a million: the "
                "bound on overflow holds for cohorts up to it",
                remedy="Set federation.max_clients to the largest cohort that can occur, and not much more.",
            )
        if self.bits not in (0, *BITS) or not 0 <= self.dimension <= 2**40:
            raise PrivacyConfigError(f"a secure sum has {BITS} bits, and at most 2^40 numbers in an update")

    @property
    def honest(self) -> int:
        """T - max(c, 1): shares of noise in a sum that an observer does not know; every client knows its own."""
        return self.survivors - max(self.colluders, 1)


@dataclass(frozen=True)
class Shape:
    """What the grid depends on beside the terms: clip, kind of noise, and whether updates are rotated."""

    l2_clip_norm: float
    mechanism: str
    rotated: bool


@dataclass(frozen=True)
class Grid:
    """Everything about the integers of one release.

    Attributes:
        scale: steps a unit of value.
        length: numbers that a client sends (a power of two where updates are rotated).
        most_squared_norm: bound on the squared L2 norm of one unit's integers, always enforced.
        clamp: bound on the absolute value of one client's integer before noise.
        share: parameter of one client's noise, in steps: mean of each Poisson (skellam), or sigma.
        room: largest absolute value that a sum of ``bits`` bits holds.
    """

    secure: SecureSum
    shape: Shape
    scale: float
    length: int
    most_squared_norm: int
    clamp: int
    share: float
    room: int

    @property
    def l2_sensitivity(self) -> float:
        """Bound on what one unit changes, in steps."""
        return math.sqrt(self.most_squared_norm) * _ROUND_UP

    @property
    def l1_sensitivity(self) -> float:
        """The same in L1: integers have |v|_1 <= |v|_2^2, n numbers have |v|_1 <= sqrt(n) |v|_2."""
        return min(float(self.most_squared_norm), math.sqrt(self.length) * self.l2_sensitivity) * _ROUND_UP

    @property
    def inflation(self) -> float:
        """How much rounding adds to the sensitivity: 0.01 is one per cent."""
        return self.l2_sensitivity / (self.scale * self.shape.l2_clip_norm) - 1

    @property
    def share_variance(self) -> float:
        """Of one client's noise, in squared steps; of the discrete Gaussian, an upper bound of it that is close."""
        return 2 * self.share if self.shape.mechanism == "skellam" else self.share**2

    def noise_stddev(self, clients: int | None = None) -> float:
        """Standard deviation of the noise in a decoded sum over ``clients`` (default: the T - c accounted)."""
        return math.sqrt(self.share_variance * (self.secure.honest if clients is None else clients)) / self.scale

    def event(self) -> DpEvent:
        """One release: noise of exactly T - c shares; more of them are post-processing."""
        from common.privacy.integer_events import SkellamDpEvent, discrete_gaussian_shares

        l1, l2, shares = self.l1_sensitivity, self.l2_sensitivity, self.secure.honest
        if self.shape.mechanism == "skellam":
            return SkellamDpEvent(variance=2 * self.share * shares, l1_sensitivity=l1, l2_sensitivity=l2)
        return discrete_gaussian_shares(self.share, shares, dimension=self.length, l1_sensitivity=l1, l2_sensitivity=l2)


def padded(dimension: int) -> int:
    """The smallest power of two that holds ``dimension`` numbers."""
    return 1 << max(0, dimension - 1).bit_length()


def rounded_squared_norm(norm: float, length: int) -> int:
    """Bound on the squared norm of conditional rounding of a vector of ``length`` numbers and L2 norm ``norm``.

    min((s + sqrt d)^2, s^2 + d/4 + sqrt(2 log(1/beta)) (s + sqrt(d)/2)), in steps, rounded down to an integer.

    Source: Kairouz, Liu and Steinke 2021 (arXiv 2102.06387), theorem 1 and proposition 22.
    """
    root = math.sqrt(length)
    tail = math.sqrt(2 * LOG_INVERSE_BETA) * (norm + root / 2)
    return math.floor(min((norm + root) ** 2, norm**2 + length / 4 + tail))


def grid_at(secure: SecureSum, shape: Shape, noise_multiplier: float, scale: float) -> Grid:
    """The grid of one scale; ``too_fine`` and ``too_coarse`` tell whether it may be used."""
    length = padded(secure.dimension) if shape.rotated else secure.dimension
    norm = scale * shape.l2_clip_norm
    most = rounded_squared_norm(norm, length)
    total = (noise_multiplier * norm) ** 2 / secure.honest
    share = few_bits(total / 2 if shape.mechanism == "skellam" else math.sqrt(total))
    room = 2 ** (secure.bits - 1) - 1 if secure.bits else 0
    made = Grid(secure, shape, scale, length, most, 0, share, room)
    left = (room - noise_reach(made)) // secure.max_clients
    clamp = min(left, math.isqrt(most)) if shape.rotated else left
    return Grid(secure, shape, scale, length, most, max(0, clamp), share, room)


def too_fine(grid: Grid) -> bool:
    """Whether the scale is too large: for the bits, for exact noise, or for exact norms."""
    norm, share = grid.scale * grid.shape.l2_clip_norm, grid.share_variance
    tables = share if grid.shape.mechanism == "skellam" else 0.0  # the other law needs none that grow
    return (
        norm + math.sqrt(grid.length) > _MOST_NORM
        or grid.l1_sensitivity > _MOST_NUMBER
        or tables > MOST_SHARE_VARIANCE
        or (share > _CHEAP_VARIANCE and grid.inflation < _NO_INFLATION)
        or share * grid.secure.honest > _MOST_NUMBER
        or grid.clamp < least_clamp(grid)
    )


def too_coarse(grid: Grid) -> bool:
    """Whether a clip norm is less than one step, or the noise of a share is too small to be drawn."""
    least = _LEAST_MEAN if grid.shape.mechanism == "skellam" else _LEAST_SIGMA
    return grid.scale * grid.shape.l2_clip_norm < 1 or grid.share < least


def least_clamp(grid: Grid) -> int:
    """What one client's integers need: they are clamped beyond.

    Rotated updates: each number is a sum of independent signs times values, so Hoeffding's bound gives what all but
    2^-20 of them stay below; one step more for the rounding. Sums of units: LEAST_CLIPS clip norms.
    """
    norm = grid.scale * grid.shape.l2_clip_norm
    if not grid.shape.rotated:
        return math.ceil(LEAST_CLIPS * norm)
    reach = norm * math.sqrt(2 * (math.log(2) + _LOG_NUMBER) / grid.length)
    return min(math.ceil(reach) + 1, math.isqrt(grid.most_squared_norm))


def noise_reach(grid: Grid) -> int:
    """What numbers of a sum of ``max_clients`` shares stay below: all but 2^-20 where rotated, else all of a release.

    Chernoff's bound of the Skellam law (its cumulants are cosh), or of a sub-Gaussian one with the same variance, which
    sums of discrete Gaussians have (Canonne, Kamath and Steinke 2020, corollary 17).
    """
    wanted = math.log(2) + (_LOG_NUMBER if grid.shape.rotated else math.log(grid.length) + _LOG_RELEASE)
    variance = grid.share_variance * grid.secure.max_clients
    if grid.shape.mechanism != "skellam":
        return math.ceil(math.sqrt(2 * variance * wanted))
    return skellam_reach(variance, wanted)


def skellam_reach(variance: float, wanted: float) -> int:
    """What Skellam noise reaches, on one side, with a probability of at most exp(-wanted)."""

    def exponent(x: float) -> float:
        return x * math.asinh(x / variance) - x * x / (math.hypot(x, variance) + variance)

    low, high = 0, 1
    while exponent(high) < wanted:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if exponent(middle) >= wanted else (middle, high)
    return high


def scales(l2_clip_norm: float) -> list[float]:
    """Scales to choose from, ascending: a clip norm is between 1/4 and 2^31 steps."""
    bits = math.frexp(l2_clip_norm)[1]  # 2^(bits - 1) <= C < 2^bits
    return [math.ldexp(_STEPS + k % _STEPS, k // _STEPS - bits - 4) for k in range(31 * _STEPS + 1)]


def share_fraction(grid: Grid) -> Fraction:
    """The share's parameter as the exact number that it is."""
    return Fraction(grid.share)


def few_bits(value: float) -> float:
    """``value`` rounded up to 32 significant bits."""
    mantissa, exponent = math.frexp(value)
    return math.ldexp(math.ceil(math.ldexp(mantissa, _SHARE_BITS)), exponent - _SHARE_BITS)
