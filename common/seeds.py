"""Randomness that every party can reproduce. Never for privacy: noise and secret sampling use ``privacy.rng``."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from common.table import IntArray

_GAMMA = np.uint64(0x9E3779B97F4A7C15)


def public_seed(*context: object) -> int:
    """64 bits of SHA-256 of a context that names the purpose."""
    text = "\x1f".join(str(part) for part in context)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def public_rng(*context: object) -> np.random.Generator:
    """A generator that every party can reproduce: for simulated faults and public choices, never for privacy."""
    return np.random.default_rng(public_seed(*context))


class Streams:
    """Random numbers for K clients side by side; what client k draws follows from ``seeds[k]`` alone.

    The i-th number of a stream is SplitMix64's (Steele, Lea and Flood 2014, figure 17) at
    ``start + (i + 1) * 0x9E3779B97F4A7C15``, computed for all clients at once: a hundred numpy generators would take
    longer to make than to use.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self._seeds = np.array([seed % 2**64 for seed in seeds], dtype=np.uint64)

    def uniform(self, counts: IntArray, *purpose: object) -> NDArray[np.float64]:
        """``counts[k]`` multiples of 2^-53 in [0, 1) for each client, one client after the other.

        The same ``purpose`` gives the same numbers again; another one gives numbers of their own.
        """
        return (self._bits(counts, purpose) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def permutations(self, counts: IntArray, *purpose: object) -> IntArray:
        """A random order of ``range(counts[k])`` for each client, one client after the other."""
        owner, start = _owners(counts)
        width = len(self._seeds).bit_length()
        bits = self._bits(counts, purpose) >> np.uint64(width)
        order = np.argsort(bits | (owner.astype(np.uint64) << np.uint64(64 - width)))
        return order - start[owner]

    def stratified(self, counts: IntArray, *purpose: object) -> tuple[NDArray[np.float64], IntArray]:
        """One uniform number from each of ``counts[k]`` equal intervals of [0, 1), ascending; and a random order.

        The order gives places in the first array, one client after the other.
        """
        owner, start = _owners(counts)
        inside = np.arange(len(owner)) - start[owner]
        values = (inside + self.uniform(counts, *purpose, "within")) / counts[owner]
        return values, self.permutations(counts, *purpose, "order") + start[owner]

    def _bits(self, counts: IntArray, purpose: tuple[object, ...]) -> NDArray[np.uint64]:
        owner, start = _owners(counts)
        begin = _mixed(self._seeds ^ np.uint64(public_seed(*purpose)))
        number = (np.arange(len(owner)) - start[owner] + 1).astype(np.uint64)
        return _mixed(begin[owner] + number * _GAMMA)


def _owners(counts: IntArray) -> tuple[IntArray, IntArray]:
    """The client of every number, and each client's first place."""
    return np.repeat(np.arange(len(counts)), counts), np.cumsum(counts) - counts


def _mixed(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's output function (variant 13 of David Stafford's mixers)."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
