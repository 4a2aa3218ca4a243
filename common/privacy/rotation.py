"""Randomized Hadamard rotation: spreads a vector's energy over all of its numbers, by a public seed.

x becomes H D x / sqrt(n): D has random signs on its diagonal, H is the n x n Hadamard matrix in Sylvester's order, n a
power of two. The rotation keeps the L2 norm, so it changes nothing about sensitivity; it makes all numbers of a clipped
vector small, so that they fit a narrow grid (Kairouz, Liu and Steinke 2021, section 4.2). Its seed is public: noise
never comes from it.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from common.seeds import public_seed

_BLOCK = 64  # H is a Kronecker product of blocks this large: matrix products in place of butterflies

Vector = NDArray[np.float64]


def rotation_seed(seed: int, round_number: int) -> int:
    """The public seed of one round's rotation; ``seed`` is the scenario's."""
    return public_seed("rotation", seed, round_number)


def rotated(vector: Vector, seed: int) -> Vector:
    """H D x / sqrt(n) for x of length n, a power of two; a new array, float64."""
    return _transform(vector * _signs(len(vector), seed))


def unrotated(vector: Vector, seed: int) -> Vector:
    """The inverse: D H y / sqrt(n)."""
    return _transform(vector) * _signs(len(vector), seed)


def _transform(vector: Vector) -> Vector:
    """H x / sqrt(n): one matrix product for each factor of H."""
    size = len(vector)
    done = 1
    out: Vector = vector.astype(np.float64)
    while done < size:
        block = min(_BLOCK, size // done)
        if done == 1:  # the same product from the right, H being symmetric: one large one in place of many small ones
            out = (out.reshape(-1, block) @ _hadamard(block)).reshape(size)
        else:
            out = np.matmul(_hadamard(block), out.reshape(-1, block, done)).reshape(size)
        done *= block
    out /= math.sqrt(size)
    return out


def _hadamard(size: int) -> Vector:
    """Sylvester's matrix: entry (i, j) is -1 to the number of bits that i and j share."""
    shared = np.arange(size)[:, None] & np.arange(size)[None, :]
    return (1.0 - 2.0 * (np.bitwise_count(shared) & 1)).astype(np.float64)


def _signs(size: int, seed: int) -> Vector:
    bits = np.random.Generator(np.random.PCG64(seed)).integers(0, 256, (size + 7) // 8, dtype=np.uint8)
    return (1.0 - 2.0 * np.unpackbits(bits)[:size]).astype(np.float64)
