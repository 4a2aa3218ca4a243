"""The Skellam mechanism (Agarwal, Kairouz and Liu 2021): integer noise whose sums are again Skellam.

Its use is noise that many parties add in shares: the sum over any of them has exactly the law that their number gives.
Every coordinate is rounded to the nearest multiple of ``step``, the power of two with 2^13 step <= stddev < 2^14 step,
and exact integer noise of mean mu = (stddev / step)^2 / 2 per Poisson variable is added in steps.

**Sensitivity.** Rounding moves each coordinate by half a step at most, so two sums at L2 distance D end at most
D / step + sqrt(d) steps apart, and integers have an L1 norm of at most sqrt(d) times that. d is held to 2^20: a finer
grid would carry more coordinates, but the tables of an exact sampler grow with it. At noise multiplier 1 the rounding
is charged like an eighth of the sensitivity. Where one party adds all the noise, ``discrete_gaussian`` costs less.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from common.errors import PrivacyConfigError
from common.privacy.integer_noise import skellam
from common.privacy.mechanisms._grid import coordinates, noised_on_grid
from common.privacy.rng import NoiseSource
from common.table import FloatArray

if TYPE_CHECKING:
    from dp_accounting import DpEvent

GRID_BITS = 13
MOST_COORDINATES = 2**20


@dataclass(frozen=True)
class Skellam:
    """Independent Skellam noise on every coordinate of every array, touched or not."""

    name: str = "skellam"

    def add_noise(
        self, parameters: Mapping[str, NDArray[Any]], stddev: float, source: NoiseSource
    ) -> dict[str, FloatArray]:
        """New float32 arrays; the input is left as it is. Arrays are visited in the order of their names.

        Raises:
            PrivacyConfigError: ``stddev`` is not in [2^-80, 2^80], or there are more than 2^20 coordinates.
        """
        if coordinates(parameters) > MOST_COORDINATES:
            raise PrivacyConfigError(
                "the bound of Skellam noise covers at most 2^20 coordinates",
                remedy="Set privacy.mechanism = 'discrete_gaussian' or 'gaussian'.",
            )
        return noised_on_grid(parameters, stddev, GRID_BITS, lambda n, s: skellam(source, n, mu=s * s / 2))

    def event(self, noise_multiplier: float) -> DpEvent:
        """One release with stddev = noise_multiplier times the L2 sensitivity, at the coarsest grid that can occur.

        Every term of the bound falls as stddev / step grows at a fixed multiplier, so 2^13 steps stand for all.

        Raises:
            PrivacyConfigError: ``noise_multiplier`` is not positive and finite.
        """
        from common.privacy.integer_events import SkellamDpEvent

        if not 0 < noise_multiplier < math.inf:
            raise PrivacyConfigError(f"Skellam noise needs a positive noise multiplier, not {noise_multiplier}")
        root, scale = math.sqrt(MOST_COORDINATES), 2.0**GRID_BITS
        l2 = (scale / noise_multiplier + root) * (1 + 2.0**-50)
        return SkellamDpEvent(variance=scale**2, l1_sensitivity=min(l2 * l2, root * l2), l2_sensitivity=l2)


MECHANISM = Skellam()
