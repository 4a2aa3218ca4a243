"""Sealed messages between two clients, carried by a coordinator that can neither read nor change them."""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from common.errors import SecAggError
from common.secagg.keys import KEY_BYTES

TAG_BYTES = 16
# A nonce keeps two messages under one key apart. Here a key seals one message: it is derived for one run, round,
# phase, sender and receiver from key pairs made for that round. So the nonce is a constant, and nothing that could
# repeat or be chosen by an attacker remains (NIST SP 800-38D, section 8: a key and nonce are never used twice).
_NONCE = bytes(12)


def seal(key: bytes, aad: bytes, plaintext: bytes) -> bytes:
    """Encrypt and authenticate with AES-256-GCM; 16 bytes longer than ``plaintext``.

    ``key`` must be fresh for this one message. ``aad`` is authenticated and not sent.

    Raises:
        SecAggError: ``bad_key``: not 32 bytes.
    """
    return _cipher(key).encrypt(_NONCE, plaintext, aad)


def open_sealed(key: bytes, aad: bytes, data: bytes) -> bytes:
    """The plaintext of ``seal`` under the same key and ``aad``.

    Raises:
        SecAggError: ``bad_seal``: anything differs; ``bad_key``: the key is not 32 bytes.
    """
    try:
        return _cipher(key).decrypt(_NONCE, data, aad)
    except InvalidTag:
        raise SecAggError("bad_seal", "a sealed message was altered, or is meant for another place") from None


def _cipher(key: bytes) -> AESGCM:
    if len(key) != KEY_BYTES:
        raise SecAggError("bad_key", f"a sealing key has {len(key)} bytes instead of {KEY_BYTES}")
    return AESGCM(key)
