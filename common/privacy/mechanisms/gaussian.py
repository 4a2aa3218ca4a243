"""The Gaussian mechanism (Dwork and Roth 2014, appendix A; exact analysis Balle and Wang 2018, theorem 8)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from common.errors import PrivacyConfigError
from common.privacy.rng import NoiseSource
from common.table import FloatArray

if TYPE_CHECKING:
    from dp_accounting import DpEvent


# What leaves is a multiple of a public power of two near stddev / 4096: unrounded, the low-order bits of a float would
# tell a row that holds noise alone from one that holds a value too (Mironov 2012). The variance grows by 5e-9.
GRID_BITS = 12


@dataclass(frozen=True)
class Gaussian:
    """Independent N(0, stddev^2) on every coordinate of every array, touched or not, rounded to a public grid."""

    name: str = "gaussian"

    def add_noise(
        self, parameters: Mapping[str, NDArray[Any]], stddev: float, source: NoiseSource
    ) -> dict[str, FloatArray]:
        """New float32 arrays; the input is left as it is. Arrays are visited in the order of their names.

        Raises:
            PrivacyConfigError: ``stddev`` is not positive and finite.
        """
        if not 0 < stddev < math.inf:
            raise PrivacyConfigError(f"the noise needs a positive finite standard deviation, not {stddev}")
        noised = {}
        for name in sorted(parameters):
            array = source.normal(parameters[name].shape, stddev)
            array += parameters[name]
            noised[name] = on_grid(array, stddev)
        return noised

    def event(self, noise_multiplier: float) -> DpEvent:
        """One release with stddev = noise_multiplier times the L2 sensitivity."""
        from dp_accounting import GaussianDpEvent

        return GaussianDpEvent(noise_multiplier)


def on_grid(array: FloatArray, stddev: float) -> FloatArray:
    """Round ``array`` in place to multiples of 2^(floor(log2(stddev)) - 12), and return it.

    Adding and subtracting 1.5 * 2^23 grid steps rounds in float32's own arithmetic, and cannot overflow.
    """
    shift = np.float32(1.5 * 2.0 ** (23 + math.floor(math.log2(stddev)) - GRID_BITS))
    array += shift
    array -= shift
    return array


MECHANISM = Gaussian()
