"""Noise mechanisms: one module each, with the constant ``MECHANISM``, found by listing this package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import NDArray

from common.discovery import load_member, member_names
from common.table import FloatArray

if TYPE_CHECKING:
    from dp_accounting import DpEvent

    from common.privacy.rng import NoiseSource

CONSTANT = "MECHANISM"


class Mechanism(Protocol):
    """Adds noise to a sum of contributions and says what that costs. ``name`` equals its module's name."""

    name: str

    def add_noise(
        self, parameters: Mapping[str, NDArray[Any]], stddev: float, source: NoiseSource
    ) -> dict[str, FloatArray]:
        """New float32 arrays with independent noise of that ``stddev`` on every coordinate, added before rounding."""

    def event(self, noise_multiplier: float) -> DpEvent:
        """The event of one release with ``stddev = noise_multiplier * L2 sensitivity``."""


def names() -> list[str]:
    """Names of all mechanisms."""
    return member_names(__name__)


def load(name: str) -> Mechanism:
    """The mechanism called ``name``. Raises ``ConfigError`` with the nearest known name."""
    mechanism: Mechanism = load_member(__name__, name, CONSTANT)
    return mechanism
