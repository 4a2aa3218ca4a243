"""Noise by address: any row's normals of any round, computed when asked for, with nothing stored.

The normals of row r of a table in a round are a function of (key, table, round, width, r) alone: bit for bit the same
however the rows are asked for. HKDF-SHA256 gives each (table, round, width) an AES-256 key of its own, and row r owns
the counters from ``r * blocks`` to ``(r + 1) * blocks - 1`` of its keystream, one block of 128 bits for each pair of
normals. Counter mode is the block cipher on counters (NIST SP 800-38A, section 6.5), so scattered rows cost no more
than neighbours: their counters are built as an array and encrypted in one call.

An address gives the same numbers each time, by design. **Whoever uses this spends an address once**: two values
released under the noise of one address show their difference without any noise. Which addresses are spent is the
caller's to know; this module keeps no record.
"""

from __future__ import annotations

from typing import NoReturn

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import ECB
from numpy.typing import NDArray

from common.errors import PrivacyConfigError
from common.privacy._box_muller import CHUNK, BoxMuller
from common.privacy.rng import NoiseSource, encode_context, hkdf_sha256
from common.table import FloatArray

_MOST_COUNTERS = 2**63
_MOST_VALUES = 2**34


class AddressableNoise:
    """Standard normals by address, under a key of its own taken from ``source`` (so a seeded one repeats)."""

    __slots__ = ("_key", "test_mode")

    def __init__(self, source: NoiseSource) -> None:
        self.test_mode = source.test_mode
        self._key = source.derive("addressable noise").words(4).tobytes()

    def normal(self, rows: NDArray[np.integer], width: int, *, table: str, round: int) -> FloatArray:
        """Independent standard normals, float32 (len(rows), width): line i holds those of row ``rows[i]``.

        Rows may come in any order; one that comes twice gets the same numbers twice.

        Args:
            rows: row numbers, not negative, shape (R,).
            width: numbers per row. Another width is another address: its numbers are unrelated.

        Raises:
            PrivacyConfigError: a row, the width or the round is out of range, or the result would be too large.
        """
        blocks = _blocks(rows, width, round)
        key = hkdf_sha256(self._key, salt=b"", info=encode_context(("normal", table, round, width)))
        cipher = Cipher(AES256(key), ECB()).encryptor()
        pairs = np.empty((len(rows), blocks, 2), dtype=np.float32)
        part = max(1, CHUNK // 2 // blocks)
        transform = BoxMuller(min(part, len(rows)) * blocks)
        for start in range(0, len(rows), part):
            _fill(pairs[start : start + part], rows[start : start + part], cipher, transform)
        values = pairs.reshape(len(rows), 2 * blocks)
        return values if width % 2 == 0 else values[:, :width].copy()

    def __repr__(self) -> str:
        return f"AddressableNoise({'test mode: not private' if self.test_mode else 'operating system'})"

    def _refuse(self, *_: object) -> NoReturn:
        raise TypeError("addressable noise cannot be copied or pickled: the copy would repeat its noise")

    __copy__ = __deepcopy__ = __reduce__ = __reduce_ex__ = __getstate__ = _refuse


def _fill(pairs: FloatArray, rows: NDArray[np.integer], cipher: CipherContext, transform: BoxMuller) -> None:
    blocks = pairs.shape[1]
    counters = np.zeros((len(rows), blocks, 2), dtype=">u8")  # 128 bits, big-endian, as counter mode counts
    first = rows.astype(np.uint64) * np.uint64(blocks)
    counters[:, :, 1] = first[:, None] + np.arange(blocks, dtype=np.uint64)
    words = np.frombuffer(cipher.update(counters.data.cast("B")), dtype="<u8").reshape(-1, 2)
    flat = pairs.reshape(-1, 2)
    for column, values in enumerate(transform(words[:, 0], words[:, 1], 1.0)):
        flat[:, column] = values.numpy()


def _blocks(rows: NDArray[np.integer], width: int, round: int) -> int:
    """Checks an address; returns the blocks of keystream that a row takes."""
    if rows.ndim != 1 or not np.issubdtype(rows.dtype, np.integer):
        raise PrivacyConfigError(f"rows must be integers in one dimension, not {rows.dtype} of shape {rows.shape}")
    if isinstance(width, bool) or width < 1 or len(rows) * width > _MOST_VALUES:
        raise PrivacyConfigError(f"a row has at least 1 number and a batch at most 2^34, not {len(rows)} x {width}")
    if isinstance(round, bool) or not isinstance(round, (int, np.integer)) or round < 0:
        raise PrivacyConfigError(f"a round is a number from 0 on, not {round!r}")
    blocks = (int(width) + 1) // 2
    if len(rows) and not (int(rows.min()) >= 0 and (int(rows.max()) + 1) * blocks <= _MOST_COUNTERS):
        raise PrivacyConfigError(f"a row number lies outside [0, 2^63 / {blocks})")
    return blocks
