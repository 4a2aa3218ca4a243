"""The Gaussian mechanism (Dwork and Roth 2014, appendix A; exact analysis Balle and Wang 2018, theorem 8)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.errors import PrivacyConfigError
from common.privacy.rng import NoiseSource
from common.table import FloatArray

if TYPE_CHECKING:
    from dp_accounting import DpEvent


@dataclass(frozen=True)
class Gaussian:
    """Independent N(0, stddev^2) on every coordinate of every array, touched or not."""

    name: str = "gaussian"

    def add_noise(
        self, parameters: Mapping[str, FloatArray], stddev: float, source: NoiseSource
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
            noised[name] = array
        return noised

    def event(self, noise_multiplier: float) -> DpEvent:
        """One release with stddev = noise_multiplier times the L2 sensitivity."""
        from dp_accounting import GaussianDpEvent

        return GaussianDpEvent(noise_multiplier)


MECHANISM = Gaussian()
