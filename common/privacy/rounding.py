"""Conditional stochastic rounding: integers whose norm is ALWAYS within a public bound.

A vector on the grid is rounded up or down, each number by itself, so that it is kept on average; where the integers'
norm exceeds the bound they are drawn again. What is still too long after many tries is rounded towards zero, which
makes no number larger, and what is too long even then, or not finite, becomes zero. The norm is computed on the
integers, in 64 bits, so no error in floating point can loosen it.

Source: Kairouz, Liu and Steinke 2021 (arXiv 2102.06387), algorithm 1 and definition 21.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.privacy.rng import NoiseSource
from common.table import IntArray

MOST_TRIES = 40  # each keeps a vector with probability 0.39 or more, so rounding towards zero is rarer than 1e-8
_LONGEST = 2.0**60  # squared norm of what is rounded: the integers' squares then fit 63 bits
_CHUNK = 2**18


@dataclass(frozen=True)
class Part:
    """Some numbers of several vectors, in grid steps.

    Attributes:
        owners: shape (R,), the vector that each row belongs to, ascending.
        values: shape (R, D), any float type.
    """

    owners: IntArray
    values: NDArray[Any]


def rounded(
    parts: Sequence[Part], count: int, *, scale: float, most_squared_norm: int, source: NoiseSource
) -> list[IntArray]:
    """Integers for ``values * scale``, part by part; the squared norm of each vector is at most ``most_squared_norm``.

    Args:
        count: how many vectors the parts hold.
        scale: a power of two.
        source: of the roundings, whose secrecy no guarantee needs.
    """
    fits = _usable(parts, count, scale)
    whole = [np.zeros(part.values.shape, dtype=np.int64) for part in parts]
    wanted = fits
    for attempt in range(MOST_TRIES + 1):
        _round_rows(parts, whole, wanted, scale=scale, source=source if attempt < MOST_TRIES else None)
        wanted = wanted & (_squared_norms(parts, whole, count) > most_squared_norm)
        if not wanted.any():
            return whole
    for part, integers in zip(parts, whole, strict=True):
        integers[wanted[part.owners]] = 0
    return whole


def _round_rows(
    parts: Sequence[Part], whole: list[IntArray], wanted: NDArray[np.bool_], *, scale: float, source: NoiseSource | None
) -> None:
    """Round the rows of the wanted vectors into ``whole``; towards zero without a source."""
    everything = bool(wanted.all())
    for part, integers in zip(parts, whole, strict=True):
        rows = np.arange(len(part.owners)) if everything else np.flatnonzero(wanted[part.owners])
        width = max(1, integers.shape[1])
        for start in range(0, len(rows), max(1, _CHUNK // width)):
            chosen = rows[start : start + max(1, _CHUNK // width)]
            integers[chosen] = _integers(part.values[chosen].astype(np.float64) * scale, source)


def _integers(steps: NDArray[np.float64], source: NoiseSource | None) -> IntArray:
    if source is None:
        return np.trunc(steps).astype(np.int64)
    low = np.floor(steps)
    up = source.uniform(steps.size).reshape(steps.shape) < steps - low
    return low.astype(np.int64) + up


def _usable(parts: Sequence[Part], count: int, scale: float) -> NDArray[np.bool_]:
    """Which vectors are finite, and not so long that their squares would not fit."""
    squares = np.zeros(count)
    for part in parts:
        with np.errstate(invalid="ignore", over="ignore"):
            rows = np.einsum("rd,rd->r", part.values, part.values, dtype=np.float64) * scale**2
            squares += np.bincount(part.owners, weights=rows, minlength=count)
    return squares <= 1.0001 * _LONGEST  # false for NaN


def _squared_norms(parts: Sequence[Part], whole: list[IntArray], count: int) -> IntArray:
    """Exact squared norms, by differences of running sums, which are right modulo 2^64 whatever the total."""
    total = np.zeros(count, dtype=np.int64)
    for part, integers in zip(parts, whole, strict=True):
        running = np.concatenate([[0], np.cumsum(np.einsum("rd,rd->r", integers, integers))])
        ends = np.searchsorted(part.owners, np.arange(count + 1))
        total += np.diff(running[ends])
    return total
