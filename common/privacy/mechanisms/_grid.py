"""Integer noise on a public grid of a power of two."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import PrivacyConfigError
from common.table import FloatArray

_CHUNK = 2**20  # coordinates: integers and sums in float64 exist for one chunk at a time
_STDDEV_RANGE = (2.0**-80, 2.0**80)


def grid_exponent(stddev: float, bits: int) -> int:
    """The k with 2^(k + bits) <= stddev < 2^(k + bits + 1): the grid's step is 2^k.

    Raises:
        PrivacyConfigError: ``stddev`` is not in [2^-80, 2^80]: float32 does not hold such noise beside a value.
    """
    low, high = _STDDEV_RANGE
    if not low <= stddev <= high:
        raise PrivacyConfigError(f"the noise needs a standard deviation in [{low:g}, {high:g}], not {stddev}")
    return math.frexp(stddev)[1] - 1 - bits


def noised_on_grid(
    parameters: Mapping[str, NDArray[Any]], stddev: float, bits: int, draw: Callable[[int, Fraction], NDArray[np.int64]]
) -> dict[str, FloatArray]:
    """New float32 arrays on the grid that ``stddev`` and ``bits`` give; arrays are visited in the order of their names.

    Args:
        draw: ``draw(n, sigma)`` is n exact integers of the standard deviation sigma = stddev / step.

    Raises:
        PrivacyConfigError: ``stddev`` is not in [2^-80, 2^80].
    """
    exponent = grid_exponent(stddev, bits)
    sigma = Fraction(stddev) / Fraction(2) ** exponent
    return {name: add_on_grid(parameters[name], exponent, lambda n: draw(n, sigma)) for name in sorted(parameters)}


def coordinates(parameters: Mapping[str, NDArray[Any]]) -> int:
    """Numbers in all arrays together: what the bound of a rounded sensitivity is stated for."""
    return sum(array.size for array in parameters.values())


def add_on_grid(values: NDArray[Any], exponent: int, draw: Callable[[int], NDArray[np.int64]]) -> FloatArray:
    """Round ``values`` to multiples of 2^exponent, add ``draw(n)`` such multiples, and round the sum to float32.

    Nearest rounding moves each coordinate by 2^(exponent - 1) at most. A value too large to be rounded in float64 is a
    multiple already, and the sum in float64 is the correctly rounded exact one: what is returned is a function of the
    exact integer sum, as long as the noise stays below 2^53.
    """
    out = np.empty(values.shape, dtype=np.float32)
    flat, given = out.reshape(-1), np.ascontiguousarray(values).reshape(-1)
    for start in range(0, len(flat), _CHUNK):
        steps = np.ldexp(given[start : start + _CHUNK].astype(np.float64), -exponent)
        np.rint(steps, out=steps)
        steps += draw(len(steps))
        flat[start : start + _CHUNK] = np.ldexp(steps, exponent, out=steps)
    return out
