"""The discrete Gaussian mechanism (Canonne, Kamath and Steinke 2020) on a fine public grid.

Every coordinate is rounded to the nearest multiple of ``step``, the power of two with 2^40 step <= stddev < 2^41 step,
and exact integer noise of parameter sigma = stddev / step is added in steps. What follows, the float32 that leaves
included, is a function of those integers: no low-order bit of a float is left to tell anything (Mironov 2012).

**Sensitivity.** Rounding moves each coordinate by half a step at most, so two sums at L2 distance D end at most
D / step + sqrt(d) steps apart. d is held to 2^32 coordinates; ``event`` accounts for the 2^16 steps.

**Event.** For integer shifts, the discrete Gaussian costs no more than a continuous one that is narrower by a hair:

1. Add N(0, tau^2) to the integers (the Gaussian mechanism) and replace each coordinate y by an integer x drawn with
   probability exp(-(x - y)^2 / 2 s^2) / S(y), S(y) = sum_k exp(-(k - y)^2 / 2 s^2): post-processing, so it costs
   no more. By Poisson's summation S(y) is sqrt(2 pi) s within a factor 1 +- e, e <= 2.01 exp(-2 pi^2 s^2). Were it
   constant, the result would have exactly the weights of a discrete Gaussian with sigma^2 = tau^2 + s^2 (complete the
   square). So the two laws of d coordinates agree pointwise within a factor exp(+-h), h = 4 d e, whatever the shift.
2. Hence delta(epsilon) <= exp(h) G_a(epsilon - 2 h) for epsilon >= 0 in both directions, G_a the Gaussian's curve at
   a = D / tau. dG/da is phi(a / 2 - epsilon / a); -dG/depsilon is at most 1.26 times that and G at most
   2.6 exp(a^2 / 8) times, so a slightly larger a covers both: with s^2 = 2^20 and sigma >= 2^40, a (1 + 2^-60) does for
   all a <= 10^4. Being dominated in both directions, the mechanism may be composed and Poisson-sampled as the Gaussian
   may (Zhu, Dong and Wang 2022, dominating pairs).

tau / sigma >= 1 - 2^-60 then, so the factor 1 - 2^-50 below covers s, h and the rounding of this module's own floats.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from common.errors import PrivacyConfigError
from common.privacy.integer_noise import discrete_gaussian
from common.privacy.mechanisms._grid import coordinates, noised_on_grid
from common.privacy.rng import NoiseSource
from common.table import FloatArray

if TYPE_CHECKING:
    from dp_accounting import DpEvent

GRID_BITS = 40
MOST_COORDINATES = 2**32
LEAST_NOISE_MULTIPLIER = 1e-4


@dataclass(frozen=True)
class DiscreteGaussian:
    """Independent discrete Gaussian noise on every coordinate of every array, touched or not."""

    name: str = "discrete_gaussian"

    def add_noise(
        self, parameters: Mapping[str, NDArray[Any]], stddev: float, source: NoiseSource
    ) -> dict[str, FloatArray]:
        """New float32 arrays; the input is left as it is. Arrays are visited in the order of their names.

        Raises:
            PrivacyConfigError: ``stddev`` is not in [2^-80, 2^80], or there are more than 2^32 coordinates.
        """
        if coordinates(parameters) > MOST_COORDINATES:
            raise PrivacyConfigError("the bound of discrete Gaussian noise covers at most 2^32 coordinates")
        return noised_on_grid(parameters, stddev, GRID_BITS, lambda n, s: discrete_gaussian(source, n, sigma=s))

    def event(self, noise_multiplier: float) -> DpEvent:
        """A Gaussian that dominates one release with stddev = noise_multiplier times the L2 sensitivity.

        Its multiplier is smaller by a share of noise_multiplier / 2^24 for the rounding; see the module.

        Raises:
            PrivacyConfigError: ``noise_multiplier`` is below 1e-4, for which nothing is shown here, or NaN.
        """
        from dp_accounting import GaussianDpEvent

        if not noise_multiplier >= LEAST_NOISE_MULTIPLIER:
            raise PrivacyConfigError(
                f"discrete Gaussian noise needs a noise multiplier of {LEAST_NOISE_MULTIPLIER:g} or more, "
                f"not {noise_multiplier}"
            )
        rounding = math.sqrt(MOST_COORDINATES) * 2.0**-GRID_BITS
        return GaussianDpEvent((1 - 2.0**-50) / (1 / noise_multiplier + rounding))


MECHANISM = DiscreteGaussian()
