"""How the joint gradient of a unit is bounded: flat, per layer, or with a bound that follows the data privately.

A layer here is one table or one dense parameter. ``squares`` maps every layer to the squared norms of the units'
gradients, shape (units,), float64.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from common.errors import PrivacyConfigError
from common.privacy.accounting import remaining_noise_multiplier
from common.privacy.rng import NoiseSource
from common.privacy.table_gradients import clip_factors

Squares = Mapping[str, torch.Tensor]
COLUMNS_AT_ONCE = 65_536  # bounds the float64 copies of dense gradients


class UnitClip(Protocol):
    """Bounds what one unit adds to the sum over all layers: its L2 norm is at most ``sensitivity``."""

    @property
    def sensitivity(self) -> float: ...

    def factors(self, squares: Squares) -> dict[str, torch.Tensor]:
        """The factor of every unit's gradient in every layer; 0 where a gradient is not finite."""

    def after_step(self, source: NoiseSource) -> None:
        """Called once a logical batch, after all its pieces."""

    def abandon(self) -> None:
        """Called where a logical batch ends without a step: forget it."""


@dataclass(frozen=True)
class FlatClip:
    """One bound for the norm over all layers together (Abadi et al. 2016, Algorithm 1)."""

    sensitivity: float

    def factors(self, squares: Squares) -> dict[str, torch.Tensor]:
        """One factor a unit, the same in every layer."""
        factors = clip_factors(_joint(squares), self.sensitivity)
        return dict.fromkeys(squares, factors)

    def after_step(self, source: NoiseSource) -> None:
        """Nothing follows the data."""

    def abandon(self) -> None:
        """Nothing is remembered."""


@dataclass(frozen=True)
class PerLayerClip:
    """A bound C_k for each layer; a unit's whole contribution is bounded by ``sqrt(sum C_k^2)``."""

    bounds: Mapping[str, float]

    @property
    def sensitivity(self) -> float:
        """``sqrt(sum C_k^2)``."""
        return math.sqrt(sum(bound**2 for bound in self.bounds.values()))

    def factors(self, squares: Squares) -> dict[str, torch.Tensor]:
        """A unit with a gradient that is not finite anywhere is left out everywhere."""
        finite = torch.isfinite(_joint(squares)).double()
        return {name: clip_factors(found, self.bounds[name]) * finite for name, found in squares.items()}

    def after_step(self, source: NoiseSource) -> None:
        """Nothing follows the data."""

    def abandon(self) -> None:
        """Nothing is remembered."""


class AdaptiveClip:
    """A flat bound that follows a quantile of the norms (Andrew et al. 2021, arXiv 1905.03871, Algorithm 1).

    Every step releases ``sum_u (b_u - 1/2) + N(0, count_stddev^2)``, with b_u = 1 where unit u is not clipped. One unit
    changes that sum by 1/2, so the count has the noise multiplier ``2 count_stddev``; together with the clipped sums it
    is one Gaussian of multiplier sigma when these get ``(sigma^-2 - (2 count_stddev)^-2)^(-1/2)`` (theorem 1 there).

    Args:
        start: the first bound.
        quantile: the share of units that shall not be clipped.
        lr: step of the logarithm of the bound.
        denominator: public: the expected number of units in a batch, never the realised one.
        count_stddev: noise of the count.
    """

    def __init__(self, start: float, *, quantile: float, lr: float, denominator: float, count_stddev: float) -> None:
        if not (0 < quantile < 1 and lr > 0 and denominator > 0 and 0 < count_stddev < math.inf):
            raise PrivacyConfigError(
                "adaptive clipping needs 0 < quantile < 1, and a positive lr, denominator and noise"
            )
        self.sensitivity = start
        self.count_stddev = count_stddev
        self._quantile, self._lr, self._denominator = quantile, lr, denominator
        self._centred = 0.0

    def factors(self, squares: Squares) -> dict[str, torch.Tensor]:
        """As ``FlatClip``; counts whom it leaves alone. A unit that is not finite counts as clipped."""
        joint = _joint(squares)
        free = torch.isfinite(joint) & (joint <= self.sensitivity**2)
        self._centred += float(free.double().sum()) - 0.5 * len(joint)
        return dict.fromkeys(squares, clip_factors(joint, self.sensitivity))

    def after_step(self, source: NoiseSource) -> None:
        """Move the bound by the noised share of units that were not clipped."""
        noised = self._centred + float(source.normal(1, self.count_stddev)[0])
        self._centred = 0.0
        share = min(1.0, max(0.0, noised / self._denominator + 0.5))
        self.sensitivity *= math.exp(-self._lr * (share - self._quantile))

    def abandon(self) -> None:
        """Forget the count: a unit may be drawn again, and the noise of one count covers it once."""
        self._centred = 0.0

    def value_multiplier(self, noise_multiplier: float) -> float:
        """The noise multiplier of the clipped sums that leaves ``noise_multiplier`` in all.

        Raises:
            PrivacyConfigError: the count alone costs more than that.
        """
        return remaining_noise_multiplier(noise_multiplier, 2 * self.count_stddev)


def _joint(squares: Squares) -> torch.Tensor:
    return torch.stack(list(squares.values())).sum(dim=0)


def unit_clip(clipping: str, max_grad_norm: float | Sequence[float], layers: Sequence[str]) -> UnitClip:
    """The clip that Opacus' words name: ``flat`` with one bound, ``per_layer`` with one for each of ``layers``.

    Raises:
        PrivacyConfigError: an unknown name, a bound that is not positive, or another number of bounds than layers.
    """
    bounds = [max_grad_norm] if isinstance(max_grad_norm, (int, float)) else list(max_grad_norm)
    if not all(0 < bound < math.inf for bound in bounds):
        raise PrivacyConfigError(f"a clip norm must be positive and finite, not {max_grad_norm}")
    if clipping == "flat" and len(bounds) == 1:
        return FlatClip(float(bounds[0]))
    if clipping == "per_layer" and len(bounds) == len(layers):
        return PerLayerClip(dict(zip(layers, bounds, strict=True)))
    raise PrivacyConfigError(
        f"clipping = {clipping!r} with {len(bounds)} bounds does not fit {len(layers)} layers",
        remedy="Use 'flat' with one bound, or 'per_layer' with one for each of: " + ", ".join(layers),
    )


def weighted_sum(gradient: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """``sum_u factors[u] gradient[u]``, float64; a factor of zero silences NaN too."""
    kept = torch.nonzero(factors).reshape(-1)
    total = torch.zeros(gradient.shape[1], dtype=torch.float64, device=gradient.device)
    for start in range(0, gradient.shape[1], COLUMNS_AT_ONCE):
        columns = slice(start, start + COLUMNS_AT_ONCE)
        total[columns] = factors[kept] @ gradient[kept, columns].double()
    return total
