"""One-time masks: a 32-byte seed becomes a vector that is uniform over Z_2^b to whoever lacks the seed.

The stream is AES-256 in counter mode (NIST SP 800-38A, section 6.5) over zeros, from counter zero: a seed is derived
for one run, round, phase and pair, and makes one mask. Values are the low ``bits`` of consecutive little-endian words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR
from numpy.typing import NDArray

from common.errors import SecAggError
from common.secagg.keys import KEY_BYTES

Words = NDArray[np.unsignedinteger[Any]]

_CHUNK_BYTES = 256 * 1024  # stream and vector stay in the second-level cache between cipher and addition
LEAST_BITS, MOST_BITS = 8, 32


def dtype_of(bits: int) -> np.dtype[np.unsignedinteger[Any]]:
    """The narrowest unsigned little-endian type that holds ``bits``: 8, 16 or 32 wide.

    Raises:
        SecAggError: ``bad_bits``: not in [8, 32].
    """
    if not LEAST_BITS <= bits <= MOST_BITS:
        raise SecAggError("bad_bits", f"values have from {LEAST_BITS} to {MOST_BITS} bits, not {bits}")
    return np.dtype("<u1" if bits == 8 else "<u2" if bits <= 16 else "<u4")


class Masker:
    """Adds masks to and takes them off vectors of one shape, through one pair of reused buffers.

    An instance serves one thread at a time.
    """

    def __init__(self, bits: int, length: int) -> None:
        """``bits`` of a value; ``length`` of the vectors.

        Raises:
            SecAggError: ``bad_bits``; ``wrong_length``: a negative length.
        """
        if length < 0:
            raise SecAggError("wrong_length", f"a vector cannot have {length} values")
        self.dtype = dtype_of(bits)
        self.bits, self.length = bits, length
        size = min(_CHUNK_BYTES, length * self.dtype.itemsize)
        self._zeros = memoryview(bytes(size))
        self._stream = np.empty(size, dtype=np.uint8)
        self._words: Words = self._stream.view(self.dtype)
        whole = 8 * self.dtype.itemsize
        self._low_bits = None if bits == whole else self.dtype.type((1 << bits) - 1)

    def add(self, total: Words, seed: bytes) -> None:
        """Add the mask of ``seed`` to ``total`` in place, modulo 2^bits; raises as ``apply``."""
        self.apply(total, plus=(seed,))

    def subtract(self, total: Words, seed: bytes) -> None:
        """Take the mask of ``seed`` off ``total`` in place, modulo 2^bits; raises as ``apply``."""
        self.apply(total, minus=(seed,))

    def apply(self, total: Words, *, plus: Sequence[bytes] = (), minus: Sequence[bytes] = ()) -> None:
        """Add the masks of all seeds ``plus`` and take off those of ``minus``, in one pass over ``total``.

        ``total`` is contiguous, of this masker's length and type; its values end below 2^bits.

        Raises:
            SecAggError: ``bad_key``: a seed is not 32 bytes; ``wrong_length``: the vector has another shape or type.
                Nothing was changed.
        """
        self._check(total)
        streams: list[tuple[CipherContext, np.ufunc]] = [(_keystream(seed), np.add) for seed in plus]
        streams += [(_keystream(seed), np.subtract) for seed in minus]
        step = max(1, len(self._words))
        for start in range(0, self.length, step):
            part = total[start : start + step]
            words = self._words[: len(part)]
            size = len(part) * self.dtype.itemsize
            for stream, operation in streams:
                stream.update_into(self._zeros[:size], self._stream.data)
                operation(part, words, out=part)
            if self._low_bits is not None:
                np.bitwise_and(part, self._low_bits, out=part)
        self._stream.fill(0)  # the last piece of a mask does not stay behind

    def _check(self, total: Words) -> None:
        fits = isinstance(total, np.ndarray) and total.shape == (self.length,) and total.dtype == self.dtype
        if not fits or not total.flags.c_contiguous or not total.flags.writeable:
            raise SecAggError("wrong_length", f"the vector is not {self.length} values of type {self.dtype.name}")


def _keystream(seed: bytes) -> CipherContext:
    if len(seed) != KEY_BYTES:
        raise SecAggError("bad_key", f"a mask's seed has {len(seed)} bytes instead of {KEY_BYTES}")
    return Cipher(AES256(seed), CTR(bytes(16))).encryptor()
