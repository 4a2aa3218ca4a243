"""Integer-valued noise as events that carry their own Renyi bound: dp_accounting's grid covers one dimension alone.

Both events are of ONE unsampled release: noise on every coordinate of an integer vector. No amplification by sampling
is claimed for them (``common.privacy.groups`` refuses them inside a sample).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from dp_accounting import DpEvent
from numpy.typing import NDArray

from common.errors import PrivacyConfigError

_MOST = 1e12  # above it a float64 no longer tells neighbouring integers' squares apart
WIDE_SIGMA, SMOOTHING_VARIANCE = 12.0, 64.0  # see ``discrete_gaussian_shares``

# Fractions for large epsilons, every integer where usual targets have their best order, powers for tiny ones.
ORDERS: NDArray[np.float64] = np.unique(
    np.concatenate([np.linspace(1.02, 2, 50), np.linspace(2, 12, 101), np.arange(12, 256), np.geomspace(256, 1e6, 200)])
)


@dataclass(frozen=True)
class DiscreteGaussianDpEvent(DpEvent):  # type: ignore[misc]  # the package has no types
    """Independent discrete Gaussians on all coordinates of an integer vector.

    One sampler must draw them: a sum of discrete Gaussians is not one.

    Attributes:
        sigma: the parameter of N_Z(0, sigma^2), in grid steps; the density is proportional to exp(-x^2 / 2 sigma^2).
        l2_sensitivity: bound on the L2 norm of what one unit changes in the INTEGER vector, in grid steps.

    Raises:
        PrivacyConfigError: a number is not positive and finite.
    """

    sigma: float
    l2_sensitivity: float

    def __post_init__(self) -> None:
        _check(sigma=self.sigma, l2_sensitivity=self.l2_sensitivity)

    def renyi(self) -> NDArray[np.float64]:
        """The Renyi divergence at ``ORDERS``, at most ``order * Delta_2^2 / (2 sigma^2)``.

        Source: Canonne, Kamath and Steinke 2020 (arXiv 2004.00010), proposition 5 for one coordinate and theorem 14
        for all. It holds for integer shifts of any dimension: the two normalising sums differ by Poisson summation in
        the right direction.
        """
        return ORDERS * self.l2_sensitivity**2 / (2 * self.sigma**2)


@dataclass(frozen=True)
class SkellamDpEvent(DpEvent):  # type: ignore[misc]  # the package has no types
    """Independent Skellam noise (a difference of two equal Poissons) on all coordinates of an integer vector.

    Sums of Skellam variables are Skellam, so ``variance`` may be that of the sum of several parties' noise.

    Attributes:
        variance: mu, the variance of the noise on one coordinate, in squared grid steps (each Poisson has mu / 2).
        l1_sensitivity, l2_sensitivity: bounds on the norms of what one unit changes in the INTEGER vector; integers
            have L1 <= L2^2, and dimension d gives L1 <= sqrt(d) L2.

    Raises:
        PrivacyConfigError: a number is not positive and finite, or the L1 bound lies below the L2 bound.
    """

    variance: float
    l1_sensitivity: float
    l2_sensitivity: float

    def __post_init__(self) -> None:
        _check(variance=self.variance, l1_sensitivity=self.l1_sensitivity, l2_sensitivity=self.l2_sensitivity)
        if self.l1_sensitivity < self.l2_sensitivity:
            raise PrivacyConfigError("an L1 sensitivity is never below the L2 sensitivity of the same vector")

    def renyi(self) -> NDArray[np.float64]:
        """The Renyi divergence at ``ORDERS``.

        For integer orders a: a D2^2 / (2 mu) + min(((2a - 1) D2^2 + 6 D1) / (4 mu^2), 3 D1 / (2 mu)). Between integers
        the value of the next one holds, as the divergence grows with the order.

        Source: Agarwal, Kairouz and Liu 2021 (arXiv 2110.04995), theorem 3.5 and corollary 3.6.
        """
        mu, first, squared = self.variance, self.l1_sensitivity, self.l2_sensitivity**2
        order = np.ceil(ORDERS)
        excess = np.minimum(((2 * order - 1) * squared + 6 * first) / (4 * mu**2), 3 * first / (2 * mu))
        return order * squared / (2 * mu) + excess


@dataclass(frozen=True)
class DiscreteGaussianSumDpEvent(DpEvent):  # type: ignore[misc]  # the package has no types
    """The sum of independent discrete Gaussians of several parties on all coordinates of an integer vector.

    Such a sum is not a discrete Gaussian; tau bounds how far it is from one.

    Attributes:
        sigma: parameter of each party's N_Z(0, sigma^2), in grid steps.
        shares: how many parties' noise is in the sum.
        dimension: number of coordinates.
        l1_sensitivity, l2_sensitivity: bounds on the norms of what one unit changes in the INTEGER vector.

    Raises:
        PrivacyConfigError: a number is not positive and finite, a count is no integer, or L1 lies below L2.
    """

    sigma: float
    shares: int
    dimension: int
    l1_sensitivity: float
    l2_sensitivity: float

    def __post_init__(self) -> None:
        _check(**vars(self))
        if self.shares != int(self.shares) or self.dimension != int(self.dimension) or self.shares < 1:
            raise PrivacyConfigError("a sum of discrete Gaussians has whole numbers of shares and coordinates")
        if self.l1_sensitivity < self.l2_sensitivity:
            raise PrivacyConfigError("an L1 sensitivity is never below the L2 sensitivity of the same vector")

    @property
    def tau(self) -> float:
        """10 times the sum over k < shares of exp(-2 pi^2 sigma^2 k / (k + 1))."""
        k = np.arange(1, self.shares)
        return 10.0 * float(np.sum(np.exp(-2 * math.pi**2 * self.sigma**2 * k / (k + 1))))

    def renyi(self) -> NDArray[np.float64]:
        """The Renyi divergence at ``ORDERS``; infinite where sigma is below 1/2, for which nothing is shown.

        Source: Kairouz, Liu and Steinke 2021 (arXiv 2102.06387), proposition 14.
        """
        if self.sigma < 0.5:
            return np.full_like(ORDERS, math.inf)
        tau, root = self.tau, math.sqrt(self.shares) * self.sigma
        first, second, dimension = self.l1_sensitivity / root, self.l2_sensitivity / root, self.dimension
        bounds = (
            ORDERS * second**2 / 2 + tau * dimension,
            ORDERS / 2 * (second**2 + 2 * first * tau + tau**2 * dimension),
            ORDERS / 2 * (second + tau * math.sqrt(dimension)) ** 2,
        )
        return np.minimum.reduce(bounds)


def discrete_gaussian_shares(
    sigma: float, shares: int, *, dimension: int, l1_sensitivity: float, l2_sensitivity: float
) -> DpEvent:
    """The event of a sum of discrete Gaussian shares: a Gaussian that dominates it where shares are wide, else tau's.

    For sigma >= 12, at most 10^6 shares, 10^12 coordinates and noise that is not below a fiftieth of the sensitivity:

    1. Convolving N_Z(0, k sigma^2) with N_Z(0, sigma^2) at z gives exp(-z^2 / 2 (k + 1) sigma^2) times a sum of
       exp(-(x - y)^2 / 2 r^2) over integers x, r^2 = sigma^2 k / (k + 1), which Poisson's summation encloses within
       1 +- 2.01 exp(-2 pi^2 r^2) of a constant. So the sum has the law of N_Z(0, n sigma^2) within a factor
       exp(+-10 n exp(-pi^2 sigma^2)) at every integer.
    2. ``mechanisms.discrete_gaussian`` shows, with s^2 = 64 here, that N_Z(0, n sigma^2) has the law of post-processed
       N(0, n sigma^2 - 64) within a factor exp(+-8.04 exp(-128 pi^2)) at every integer, whatever the shift.
    3. Over all coordinates the two laws agree within exp(+-h), h < 10^-500, and by the same argument as there a
       slightly larger shift a of the Gaussian covers it: relatively by (2.52 h + 2.6 exp(a^2 / 8) h) / a < 10^-300.

    Dominated in both directions, the release may be composed as the Gaussian may.

    Raises:
        PrivacyConfigError: as ``DiscreteGaussianSumDpEvent``.
    """
    from dp_accounting import GaussianDpEvent

    exact = DiscreteGaussianSumDpEvent(sigma, shares, dimension, l1_sensitivity, l2_sensitivity)
    variance = shares * sigma**2
    wide = sigma >= WIDE_SIGMA and shares <= 10**6
    if not wide or l2_sensitivity > 50 * math.sqrt(variance - SMOOTHING_VARIANCE):
        return exact
    return GaussianDpEvent((1 - 2.0**-45) * math.sqrt(variance - SMOOTHING_VARIANCE) / l2_sensitivity)


def _check(**numbers: float) -> None:
    for name, number in numbers.items():
        good = isinstance(number, (int, float)) and not isinstance(number, bool)
        if not good or not 1 / _MOST <= number <= _MOST or math.isnan(number):
            raise PrivacyConfigError(f"the {name} of integer noise must lie in [{1 / _MOST:g}, {_MOST:g}]")
