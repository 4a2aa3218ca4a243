"""Many polynomials over the field of 2^256 + 297 at many small places, in numpy: Horner's rule on limbs.

A number is ten signed limbs of 26 bits, in 64-bit words. Multiplying by a place and adding a coefficient is one
operation a limb for all polynomials and places at once; carries wait until the words would overflow. What leaves the
top limb comes back into the lowest: 2^260 = 16 * 2^256 = -16 * 297 in this field. Nothing depends on the values.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

PRIME = 2**256 + 297

_BITS, _LIMBS = 26, 10
_MASK = (1 << _BITS) - 1
_FOLD = 297 << (_BITS * _LIMBS - 256)
_ROOM_BITS = 34  # a limb is below 2^27 after its carries and must stay below 2^61 until the next


def values(polynomials: Sequence[Sequence[int]], xs: Sequence[int]) -> list[list[int]]:
    """For each polynomial its values, modulo the prime, at ``xs`` (below 2^32).

    A polynomial is its coefficients, below the prime, the highest power first; all have as many.
    """
    coefficients = _limbs(polynomials)
    places = np.array(xs, dtype=np.int64)
    total = np.zeros((_LIMBS, len(polynomials), len(xs)), dtype=np.int64)
    carry = np.empty_like(total)
    every = max(1, _ROOM_BITS // max(xs).bit_length())
    for step in range(coefficients.shape[0]):
        np.multiply(total, places, out=total)
        np.add(total, coefficients[step], out=total)
        if (step + 1) % every == 0:
            _carry(total, carry)
    _carry(total, carry)
    return _numbers(total)


def _carry(total: NDArray[np.int64], carry: NDArray[np.int64]) -> None:
    """Bring every limb below 2^27 in size: the first pass leaves at most 2^49, the second at most 2^26 + 2^24."""
    for _ in range(2):
        np.right_shift(total, _BITS, out=carry)
        np.bitwise_and(total, _MASK, out=total)
        total[1:] += carry[:-1]
        total[0] -= carry[-1] * _FOLD


def _limbs(polynomials: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    """Coefficients as limbs: an array (power, limb, polynomial, 1)."""
    limbs = [[[c >> _BITS * i & _MASK for i in range(_LIMBS)] for c in polynomial] for polynomial in polynomials]
    return np.ascontiguousarray(np.array(limbs, dtype=np.int64).transpose(1, 2, 0))[..., None]


def _numbers(total: NDArray[np.int64]) -> list[list[int]]:
    pairs = total[0::2] + (total[1::2] << _BITS)  # two limbs a word: half the work with Python's integers
    shifts = [2 * _BITS * i for i in range(len(pairs))]
    rows = pairs.transpose(1, 2, 0).tolist()
    return [[sum(p << s for p, s in zip(pair, shifts, strict=True)) % PRIME for pair in row] for row in rows]
