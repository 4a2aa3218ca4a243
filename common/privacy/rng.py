"""Cryptographic randomness for noise and sampling.

The keystream is AES-256 in counter mode (NIST SP 800-38A, section 6.5), keyed from the operating system or through
HKDF-SHA256 (RFC 5869). Normals come from Box and Muller's transform (1958) on 53-bit uniforms: the largest value that
can be drawn is sqrt(2 * 53 * ln 2) = 8.57 standard deviations, so the missing tail has mass below 1e-17 a draw. With
24-bit uniforms the cut would be at 5.77 and visible in a table of a hundred million entries.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import NoReturn

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

from common.errors import PrivacyConfigError
from common.privacy._box_muller import BITS, CHUNK, ULP, BoxMuller

_KEY_BYTES = 32
_ZEROS = memoryview(bytes(8 * 65_536))  # what is encrypted: cleared once, not for every call


class NoiseSource:
    """A stream of secret random numbers; make one from the operating system for each run.

    The stream moves on with every call. ``test_mode`` tells that the numbers are reproducible from a public seed:
    whatever is released from such a source carries no guarantee.
    """

    __slots__ = ("_context", "_key", "_pid", "_stream", "test_mode")

    def __init__(self, key: bytes, *, test_mode: bool, context: bytes = b"") -> None:
        if len(key) != _KEY_BYTES:
            raise PrivacyConfigError(f"a noise key has {_KEY_BYTES} bytes, not {len(key)}")
        self.test_mode = test_mode
        self._context = context
        self._key = key
        self._pid = os.getpid()
        self._stream: CipherContext | None = None  # many sources only derive others

    @classmethod
    def from_os(cls) -> NoiseSource:
        """A source keyed by the operating system's generator: the only kind that supports a claim."""
        return cls(os.urandom(_KEY_BYTES), test_mode=False)

    @classmethod
    def seeded_for_tests(cls, seed: int) -> NoiseSource:
        """A reproducible source. Anyone who knows ``seed`` can remove the noise: it voids the claim."""
        material = b"fedembed seeded test mode\x00" + str(int(seed)).encode()
        return cls(hkdf_sha256(material, salt=b"", info=b"root"), test_mode=True, context=b"root")

    def derive(self, *context: str | int) -> NoiseSource:
        """A stream of its own for one purpose, such as ``derive("round", 3, "noise")``.

        From the operating system, every call gives fresh randomness even when a context comes twice, so noise can
        never be used twice by mistake. In seeded test mode the same context gives the same stream.
        """
        info = self._context + encode_context(context)
        salt = b"" if self.test_mode else os.urandom(_KEY_BYTES)
        return NoiseSource(hkdf_sha256(self._key, salt=salt, info=info), test_mode=self.test_mode, context=info)

    def normal(self, shape: int | Sequence[int], stddev: float) -> NDArray[np.float32]:
        """Independent N(0, stddev^2) of the given shape: computed in float64, rounded once to float32.

        Raises:
            PrivacyConfigError: ``stddev`` is negative, NaN or infinite.
        """
        if not 0 <= stddev < math.inf:
            raise PrivacyConfigError(f"a standard deviation must be finite and not negative, not {stddev}")
        import torch

        out = np.empty(shape, dtype=np.float32)
        flat = torch.from_numpy(out.reshape(-1))
        transform = BoxMuller((min(CHUNK, out.size) + 1) // 2)
        for start in range(0, out.size, CHUNK):
            part = flat[start : start + CHUNK]
            half = (len(part) + 1) // 2
            words = self.words(2 * half)
            cosines, sines = transform(words[:half], words[half:], stddev)
            part[:half].copy_(cosines)
            part[half:].copy_(sines[: len(part) - half])
        return out

    def words(self, n: int) -> NDArray[np.uint64]:
        """``n`` words of 64 random bits (a read-only array)."""
        return np.frombuffer(self._keystream(8 * n), dtype="<u8")

    def short_words(self, n: int) -> NDArray[np.uint16]:
        """``n`` words of 16 random bits (a read-only array)."""
        return np.frombuffer(self._keystream(2 * n), dtype="<u2")

    def uniform(self, n: int) -> NDArray[np.float64]:
        """``n`` multiples of 2^-53 in [0, 1)."""
        return self._bits53(n).astype(np.float64) * ULP

    def bernoulli(self, n: int, rate: float) -> NDArray[np.bool_]:
        """``n`` independent draws, each true with probability ``rate`` (exact to 2^-53).

        Raises:
            PrivacyConfigError: ``rate`` is not in [0, 1].
        """
        if not 0 <= rate <= 1:
            raise PrivacyConfigError(f"a rate must lie in [0, 1], not {rate}")
        return self.uniform(n) < rate

    def integers(self, n: int, high: int) -> NDArray[np.int64]:
        """``n`` independent integers, uniform on [0, high), by rejection: no modulo bias.

        Raises:
            PrivacyConfigError: ``high`` is not in [1, 2^63).
        """
        if not 1 <= high < 2**63:
            raise PrivacyConfigError(f"the number of choices must lie in [1, 2^63), not {high}")
        limit = 2**64 - 2**64 % high
        found = np.empty(0, dtype=np.uint64)
        while len(found) < n:
            words = self.words(n - len(found))
            found = np.concatenate([found, words[words <= np.uint64(limit - 1)]])
        return (found % np.uint64(high)).astype(np.int64)

    def _bits53(self, n: int) -> NDArray[np.uint64]:
        return self.words(n) >> np.uint64(64 - BITS)

    def _keystream(self, size: int) -> bytes:
        if self._pid != os.getpid() and not self.test_mode:
            # A forked process would repeat its parent's noise; it takes a key of its own instead.
            self._key, self._pid, self._stream = os.urandom(_KEY_BYTES), os.getpid(), None
        if self._stream is None:
            # A fresh key for every stream, so the counter may begin at zero (SP 800-38A, appendix B).
            self._stream = Cipher(AES256(self._key), CTR(bytes(16))).encryptor()
        return self._stream.update(_ZEROS[:size] if size <= len(_ZEROS) else bytes(size))

    def __repr__(self) -> str:
        return "NoiseSource(test mode: not private)" if self.test_mode else "NoiseSource(operating system)"

    def _refuse(self, *_: object) -> NoReturn:
        raise TypeError("a noise source cannot be copied or pickled: the copy would repeat its noise")

    __copy__ = __deepcopy__ = __reduce__ = __reduce_ex__ = __getstate__ = _refuse


def encode_context(context: Sequence[str | int]) -> bytes:
    """Bytes that differ whenever two contexts differ: type, length and content of every part, in order.

    Raises:
        PrivacyConfigError: the context is empty or has a part that is neither text nor integer.
    """
    if not context:
        raise PrivacyConfigError("a derived noise stream needs a context that names its purpose")
    encoded = []
    for part in context:
        if isinstance(part, bool) or not isinstance(part, (str, int, np.integer)):
            raise PrivacyConfigError(f"a noise context is made of text and integers, not {type(part).__name__}")
        kind, body = (b"s", part.encode()) if isinstance(part, str) else (b"i", str(int(part)).encode())
        encoded.append(kind + len(body).to_bytes(8, "big") + body)
    return len(encoded).to_bytes(8, "big") + b"".join(encoded)


def hkdf_sha256(key: bytes, *, salt: bytes, info: bytes) -> bytes:
    """A key of 32 bytes for the purpose that ``info`` names (RFC 5869)."""
    return HKDF(algorithm=hashes.SHA256(), length=_KEY_BYTES, salt=salt or None, info=info).derive(key)
