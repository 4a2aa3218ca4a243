"""Exact draws from a law on the integers, by a table of blocks, fast.

A draw takes 16 random bits, which a guide table turns into a block unless a boundary between blocks lies too near;
then it takes a place in the block evenly and accepts it with the law's value there over the law's peak in the block
(von Neumann's rejection). The result has exactly the law:

* a block is chosen by the inversion of a uniform number with infinitely many bits, of which only as many are drawn as
  decide it. 16 bits decide all but a few draws, 64 bits all but about 2^-53 of them; for those, bits are added until
  the enclosures of ``_integer_laws`` leave no doubt;
* so is a place accepted: first by 16 bits against the least ratio in the block, then by 53 bits against an estimate
  of known error, at last by as many bits as it takes.

Nothing is compared with a number that is merely near the right one.

How long a batch takes is the one thing that shows (Jin et al. 2022 on timing): all draws of a chunk go through the same
array operations, and only the lengths of a few small arrays vary, with the count of draws that 16 bits leave open. That
count says less of one draw the more are drawn together, so draw for whole tables, never number by number.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

import numpy as np
from numpy.typing import NDArray

from common.privacy._integer_laws import RATIO_ERROR, Boundaries, Enclosed, Law
from common.privacy.rng import NoiseSource

_GUIDE_BITS = 16
_CHUNK = 65_536  # draws: the words and results of one chunk stay in the core's own cache
_OPEN = -(2**15)  # stands in the guide for a block that 16 bits do not decide
_FINE_BITS = 53

Integers = NDArray[np.int64]


class BlockSampler:
    """Draws from one law. Holds tables of public numbers alone, so it may be kept and shared."""

    def __init__(self, law: Law) -> None:
        self._law = law
        table = law.boundaries(64)
        self._first = table.first
        self._lows, self._highs = (
            np.array([min(b, 2**64 - 1) for b in side], dtype=np.uint64) for side in (table.lows, table.highs)
        )
        self._guide = self._make_guide()

    def draw(self, source: NoiseSource, n: int) -> Integers:
        """``n`` independent draws."""
        out = np.empty(n, dtype=np.int64)
        rejected = self._fill(source, out)
        while len(rejected):
            again = np.empty(len(rejected), dtype=np.int64)
            still = self._fill(source, again)
            out[rejected] = again
            rejected = rejected[still]
        return out

    def _fill(self, source: NoiseSource, out: Integers) -> Integers:
        """Propose a value for every place of ``out``; returns the places where it is rejected."""
        starts = range(0, len(out), _CHUNK)
        rejected = [start + self._propose(source, out[start : start + _CHUNK]) for start in starts]
        return np.concatenate(rejected) if rejected else np.empty(0, dtype=np.int64)

    def _make_guide(self) -> NDArray[np.int32]:
        """For every 16 bits the block in the upper half of a word, and in the lower 2^16 times its least ratio."""
        low = np.arange(1 << _GUIDE_BITS, dtype=np.uint64) << np.uint64(64 - _GUIDE_BITS)
        blocks, decided = self._look_up(low, low + np.uint64((1 << (64 - _GUIDE_BITS)) - 1))
        if not self._law.block_bits:
            return np.where(decided, blocks, _OPEN).astype(np.int32)
        width = 1 << self._law.block_bits
        least = self._law.ratio_estimates(blocks, np.where(blocks < 0, 0, width - 1)) - 2 * RATIO_ERROR
        sure = np.floor(np.nan_to_num(np.maximum(least, 0)) * (1 << 16)).astype(np.int64)
        return np.where(decided, (blocks << 16) | sure, _OPEN << 16).astype(np.int32)

    def _look_up(self, low: NDArray[np.uint64], high: NDArray[np.uint64]) -> tuple[Integers, NDArray[np.bool_]]:
        """The blocks of uniform numbers known to lie in [low, high + 1) / 2^64, and whether that decides them."""
        below = np.searchsorted(self._highs, low, side="left")
        return self._first - 1 + below, self._lows[below] > high

    def _propose(self, source: NoiseSource, out: Integers) -> Integers:
        """Fill ``out``; returns the indices that are rejected and must be drawn again."""
        short = source.short_words(len(out))
        found = self._guide[short.astype(np.intp)]
        bits = self._law.block_bits
        if not bits:
            out[:] = found
            open_ = np.flatnonzero(found == _OPEN)
            out[open_] = self._invert(source, short[open_])
            return open_[:0]
        words = source.words(len(out)).view(np.int64)
        np.left_shift(found >> 16, bits, out=out, dtype=np.int64)
        out |= words & ((1 << bits) - 1)
        open_ = np.flatnonzero((words >> 48) & 0xFFFF >= found & 0xFFFF)
        blocks = (found[open_] >> 16).astype(np.int64)
        unknown = np.flatnonzero(blocks == _OPEN)
        blocks[unknown] = self._invert(source, short[open_[unknown]])
        chances = words[open_].view(np.uint64)
        places = (chances & np.uint64((1 << bits) - 1)).view(np.int64)
        out[open_] = (blocks << bits) + places
        return open_[~self._accept(source, blocks, places, chances >> np.uint64(48))]

    def _invert(self, source: NoiseSource, short: NDArray[np.uint16]) -> Integers:
        """Blocks of uniform numbers that begin with the bits of ``short``."""
        rest = np.uint64(64 - _GUIDE_BITS)
        uniform = short.astype(np.uint64) << rest | source.words(len(short)) >> np.uint64(_GUIDE_BITS)
        blocks, decided = self._look_up(uniform, uniform)
        for i in np.flatnonzero(~decided):
            blocks[i] = self._settle_block(source, int(uniform[i]))
        return blocks

    def _settle_block(self, source: NoiseSource, uniform: int) -> int:
        bits = 64
        while True:
            uniform, bits = _longer(source, uniform, bits)
            table: Boundaries = self._law.boundaries(bits)
            below = bisect_left(table.highs, uniform)
            if below == bisect_right(table.lows, uniform):
                return table.first - 1 + below

    def _accept(
        self, source: NoiseSource, blocks: Integers, places: Integers, chances: NDArray[np.uint64]
    ) -> NDArray[np.bool_]:
        """Whether uniform numbers that begin with the 16 bits of ``chances`` lie below the ratios."""
        ratios = self._law.ratio_estimates(blocks, places)
        more = source.words(len(blocks)) >> np.uint64(64 - (_FINE_BITS - 16))
        fine = chances << np.uint64(_FINE_BITS - 16) | more
        uniform = fine.astype(np.float64) * 2.0**-_FINE_BITS
        accepted: NDArray[np.bool_] = uniform < ratios - 2 * RATIO_ERROR
        for i in np.flatnonzero(~(accepted | (uniform > ratios + 2 * RATIO_ERROR))):
            accepted[i] = self._settle_acceptance(source, int(fine[i]), (int(blocks[i]), int(places[i])))
        return accepted

    def _settle_acceptance(self, source: NoiseSource, uniform: int, point: tuple[int, int]) -> bool:
        bits = _FINE_BITS
        while True:
            uniform, bits = _longer(source, uniform, bits)
            ratio: Enclosed = self._law.ratio(*point, bits)
            if uniform < ratio[0] or uniform >= ratio[1]:
                return uniform < ratio[0]


def _longer(source: NoiseSource, uniform: int, bits: int) -> tuple[int, int]:
    return uniform << 64 | int(source.words(1)[0]), bits + 64
