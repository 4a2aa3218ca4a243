"""The least that one round of secure aggregation costs: its primitive operations and nothing around them.

One client: fresh X25519 and Ed25519 keys, a signed advert, the signatures of its k neighbours' adverts, Shamir shares
of two secrets, one X25519 agreement a neighbour for sealed shares (one shared secret serves both directions) and one
for masks, HKDF for every key, AES-256-GCM to seal and to open, AES-256-CTR streams over the vector with their
additions, one packing, a signature, and t signatures of neighbours. The server, for each client: two signatures, one
addition of a packed vector, one secret from t shares, its seed by HKDF, its stream and the subtraction.

What the floor leaves out is what a protocol adds: messages and their encoding, hashes, the graph, checks of anything
but signatures and seals, commitments, erasure, checks of keys.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from common.secagg.masks import Words
from common.secagg.shamir import Recombiner, split, split_many

KEY, NONCE, INFO = 32, bytes(12), bytes(180)  # the protocol's contexts have about so many bytes
STATEMENT = bytes(280)
BLOCK_BYTES = 256 * 1024
OPEN_STREAMS = 256


@dataclass(frozen=True)
class Shape:
    """Neighbours, threshold and the vector of one round with a single phase of 16-bit values."""

    degree: int
    threshold: int
    length: int


class ClientFloor:
    """One client among neighbours whose keys, signatures and sealed shares were made beforehand."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._signed = _signed(shape.degree)
        self._sealing = [_agreement_public() for _ in range(shape.degree)]
        self._masking = [_agreement_public() for _ in range(shape.degree)]
        self._identity = os.urandom(KEY)
        self._shared: list[bytes] = []
        self._mail: list[bytes] = []

    def advert(self) -> None:
        """Fresh keys, signed."""
        for _ in range(2):
            X25519PrivateKey.from_private_bytes(os.urandom(KEY)).public_key().public_bytes_raw()
        Ed25519PrivateKey.from_private_bytes(os.urandom(KEY)).public_key().public_bytes_raw()
        Ed25519PrivateKey.from_private_bytes(self._identity).sign(STATEMENT)

    def shares(self) -> None:
        """Two secrets, shared and sealed."""
        _verify_all(self._signed)
        degree, threshold = self._shape.degree, self._shape.threshold
        columns = split_many([os.urandom(KEY), os.urandom(KEY)], range(1, degree + 1), threshold, os.urandom)
        private = X25519PrivateKey.from_private_bytes(os.urandom(KEY))
        self._shared = [private.exchange(X25519PublicKey.from_public_bytes(public)) for public in self._sealing]
        self._mail = [
            AESGCM(_hkdf(shared)).encrypt(NONCE, first + second, INFO)
            for shared, first, second in zip(self._shared, *columns, strict=True)
        ]

    def masked(self, vector: Words) -> bytes:
        """Neighbours' shares opened, and the vector under all its masks, packed."""
        for shared, sealed in zip(self._shared, self._mail, strict=True):
            AESGCM(_hkdf(shared)).decrypt(NONCE, sealed, INFO)
        private = X25519PrivateKey.from_private_bytes(os.urandom(KEY))
        seeds = [_hkdf(private.exchange(X25519PublicKey.from_public_bytes(public))) for public in self._masking]
        total, half = vector.copy(), len(seeds) // 2
        add_streams(total, [_hkdf(os.urandom(KEY)), *seeds[:half]], seeds[half:])
        return total.tobytes()

    def confirmation(self) -> None:
        """One signature."""
        Ed25519PrivateKey.from_private_bytes(self._identity).sign(STATEMENT)

    def reveal(self) -> None:
        """The signatures of as many neighbours as open a secret."""
        _verify_all(self._signed[: self._shape.threshold])


class ServerFloor:
    """The server's primitives, once for each client; ``finish`` for all that are in the sum."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._signed = _signed(1)
        self._total: Words = np.zeros(shape.length, dtype="<u2")
        self._shares = split(os.urandom(KEY), range(1, shape.degree + 1), shape.threshold, os.urandom)
        self._clients = 0

    def signature(self) -> None:
        """Of an advert, or of a confirmation."""
        _verify_all(self._signed)

    def masked(self, body: bytes) -> None:
        """One vector added to the sum."""
        np.add(self._total, np.frombuffer(body, dtype="<u2"), out=self._total)
        self._clients += 1

    def finish(self) -> Words:
        """Every client's own mask, from its shares; all have one set of places, so one set of coefficients."""
        threshold = self._shape.threshold
        recombiner = Recombiner(range(1, threshold + 1))
        seeds = [_hkdf(recombiner.combine(self._shares[:threshold])) for _ in range(self._clients)]
        for start in range(0, len(seeds), OPEN_STREAMS):
            add_streams(self._total, [], seeds[start : start + OPEN_STREAMS])
        return self._total


def add_streams(total: Words, plus: Sequence[bytes], minus: Sequence[bytes]) -> None:
    """AES-256-CTR streams of these keys added to and taken off ``total``, block by block in the cache."""
    streams: list[tuple[CipherContext, np.ufunc]] = [(_stream(seed), np.add) for seed in plus]
    streams += [(_stream(seed), np.subtract) for seed in minus]
    step = min(BLOCK_BYTES // total.itemsize, max(1, len(total)))
    words = np.empty(step, dtype=total.dtype)
    zeros, buffer = memoryview(bytes(words.nbytes)), words.view(np.uint8).data
    for start in range(0, len(total), step):
        part = total[start : start + step]
        for stream, operation in streams:
            stream.update_into(zeros[: part.nbytes], buffer)
            operation(part, words[: len(part)], out=part)


def _stream(seed: bytes) -> CipherContext:
    return Cipher(AES256(seed), CTR(bytes(16))).encryptor()


def _hkdf(secret: bytes) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=KEY, salt=bytes(KEY), info=INFO).derive(secret)


def _agreement_public() -> bytes:
    return X25519PrivateKey.generate().public_key().public_bytes_raw()


def _signed(count: int) -> list[tuple[bytes, bytes]]:
    """Public keys of different signers with their signatures of one statement."""
    keys = [Ed25519PrivateKey.generate() for _ in range(count)]
    return [(key.public_key().public_bytes_raw(), key.sign(STATEMENT)) for key in keys]


def _verify_all(signed: Sequence[tuple[bytes, bytes]]) -> None:
    for public, signature in signed:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, STATEMENT)
