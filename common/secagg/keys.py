"""Key agreement, derivation, commitments and signatures.

X25519 (RFC 7748), HKDF-SHA256 (RFC 5869), Ed25519 (RFC 8032), all from ``cryptography``. What is added here is what
these leave to the protocol: one encoding per key, no points of small order, and a context in every derivation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from common.errors import SecAggError
from common.secagg.encoding import pack

PROTOCOL = b"fedembed-secagg/1"
KEY_BYTES = 32
SIGNATURE_BYTES = 64
Entropy = Callable[[int], bytes]

_SALT = hashlib.sha256(PROTOCOL).digest()
_FIELD_PRIME = 2**255 - 19  # of the curve behind both X25519 and Ed25519
_LOW_BITS = 2**255 - 1
# The y-coordinates of the eight points of small order on edwards25519 (the order-8 pair solves d*y^4 + 2*y^2 = 1).
# As a public key such a point verifies a signature on any message, so nobody may register one.
_ORDER_8 = 2707385501144840649318225287225658788936804267575313519463743609750303402022
_SMALL_ORDER = frozenset({0, 1, _FIELD_PRIME - 1, _ORDER_8, _FIELD_PRIME - _ORDER_8})
# The u-coordinates of the points of small order on curve25519 and its twist: for these, and for no other canonical
# coordinate, every X25519 shared secret is zero (the order-8 pair is (1 + y) / (1 - y) of the two above).
_U_OF_ORDER_8 = (
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
)
_SMALL_ORDER_COORDINATES = frozenset({0, 1, _FIELD_PRIME - 1, *_U_OF_ORDER_8})


def drawn(entropy: Entropy, size: int) -> bytes:
    """``size`` bytes from ``entropy``.

    Raises:
        SecAggError: ``bad_entropy``: the source gave another number of bytes.
    """
    data = entropy(size)
    if len(data) != size:
        raise SecAggError("bad_entropy", f"the source of randomness gave {len(data)} bytes instead of {size}")
    return data


def agreement_keypair(entropy: Entropy) -> tuple[bytes, bytes]:
    """A fresh X25519 key pair (private, public), 32 bytes each."""
    private = drawn(entropy, KEY_BYTES)
    return private, agreement_public(private)


def agreement_public(private: bytes) -> bytes:
    """The X25519 public key of a private key (RFC 7748, section 6.1); always the canonical encoding.

    Raises:
        SecAggError: ``bad_key``: not 32 bytes.
    """
    _expect(private, KEY_BYTES, "bad_key")
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def check_agreement_public(public: bytes) -> None:
    """Refuse an X25519 public key with which no agreement is possible, without trying one.

    Raises:
        SecAggError: ``bad_key``: another length, not the canonical encoding of a coordinate, or a point of small order.
    """
    if _coordinate(public) in _SMALL_ORDER_COORDINATES:
        raise SecAggError("bad_key", "a public key is a point of small order")


def _coordinate(public: bytes) -> int:
    """The coordinate of a public key in canonical form.

    RFC 7748 reads several byte strings as one point; accepting one of them only keeps "this is the advertised key" a
    comparison of bytes.
    """
    _expect(public, KEY_BYTES, "bad_key")
    coordinate = int.from_bytes(public, "little")
    if coordinate >= _FIELD_PRIME:
        raise SecAggError("bad_key", "a public key is not in canonical form")
    return coordinate


def agree(private: bytes, public: bytes, info: bytes) -> bytes:
    """``AgreementKey(private).agree(public, info)``, for a private key that is used once."""
    return AgreementKey(private).agree(public, info)


class AgreementKey:
    """An X25519 private key made ready for many agreements: making it ready costs as much as one of them."""

    __slots__ = ("_key",)

    def __init__(self, private: bytes) -> None:
        """``private``: 32 bytes.

        Raises:
            SecAggError: ``bad_key``: another length.
        """
        _expect(private, KEY_BYTES, "bad_key")
        self._key = X25519PrivateKey.from_private_bytes(private)

    def exchange(self, public: bytes) -> bytes:
        """The X25519 shared secret, 32 bytes, for ``derive``: one agreement serves several keys.

        Raises:
            SecAggError: ``bad_key``: a public key of another length, in a non-canonical encoding, or of small order:
                its shared secret would be zero and known to everybody (RFC 7748, section 6.1).
        """
        _coordinate(public)
        try:
            return self._key.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError:  # how the library reports an all-zero shared secret
            raise SecAggError("bad_key", "a public key is a point of small order") from None

    def agree(self, public: bytes, info: bytes) -> bytes:
        """A key of 32 bytes that only the two parties can compute: HKDF-SHA256 of the X25519 shared secret.

        ``info`` names the purpose; both sides must give the same bytes, with both identities in an agreed order.
        Raises as ``exchange``.
        """
        return _hkdf(self.exchange(public), info)


def derive(secret: bytes, info: bytes) -> bytes:
    """A key of 32 bytes for the purpose ``info`` from a secret of 32 bytes (HKDF-SHA256, RFC 5869).

    Raises:
        SecAggError: ``bad_key``: the secret has another length.
    """
    _expect(secret, KEY_BYTES, "bad_key")
    return _hkdf(secret, info)


def commitment(secret: bytes, info: bytes) -> bytes:
    """A hash of 32 bytes that binds its sender to a uniform secret of 32 bytes without telling it.

    Raises:
        SecAggError: ``bad_key``: the secret has another length.
    """
    _expect(secret, KEY_BYTES, "bad_key")
    return hashlib.sha256(pack(b"commitment", PROTOCOL, info, secret)).digest()


@dataclass(frozen=True)
class Identity:
    """A party's long-lived Ed25519 signing key (32 private bytes, RFC 8032); never shown by ``repr``."""

    private: bytes = field(repr=False)

    def __post_init__(self) -> None:
        _expect(self.private, KEY_BYTES, "bad_key")

    @classmethod
    def fresh(cls, entropy: Entropy) -> Identity:
        """A new identity."""
        return cls(drawn(entropy, KEY_BYTES))

    @classmethod
    def from_pem(cls, data: bytes) -> Identity:
        """An identity from an unencrypted PKCS#8 file (RFC 8410), as ``to_pem`` and OpenSSL write it.

        Raises:
            SecAggError: ``bad_key``: not such a file, or the key of another algorithm.
        """
        try:
            key = load_pem_private_key(data, password=None)
        except (ValueError, TypeError):  # TypeError: the file is encrypted
            raise SecAggError("bad_key", "not an unencrypted private key in PEM form") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise SecAggError("bad_key", "the private key is not an Ed25519 key")
        return cls(key.private_bytes_raw())

    def to_pem(self) -> bytes:
        """The private key as a PKCS#8 file in PEM form, unencrypted: keep it where only its owner reads."""
        return self._key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @property
    def public(self) -> bytes:
        """The public key, 32 bytes."""
        return self._key().public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        """The signature of ``message``, 64 bytes."""
        return self._key().sign(message)

    def _key(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.private)


def check_identity_public(public: bytes) -> None:
    """Refuse an Ed25519 public key under which a signature proves nothing.

    Raises:
        SecAggError: ``bad_key``: wrong length, non-canonical encoding, or a point of small order.
    """
    _expect(public, KEY_BYTES, "bad_key")
    y = int.from_bytes(public, "little") & _LOW_BITS
    if y >= _FIELD_PRIME:
        raise SecAggError("bad_key", "an identity key is not in canonical form")
    if y in _SMALL_ORDER:
        raise SecAggError("bad_key", "an identity key is a point of small order")


def verify(public: bytes, signature: bytes, message: bytes) -> None:
    """Accept the signature of ``message`` under ``public`` silently.

    Raises:
        SecAggError: ``bad_signature``: it is not one; ``bad_key``: the key cannot be anybody's.
    """
    check_identity_public(public)
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        raise SecAggError("bad_signature", "a signature does not belong to its key and message") from None


def _hkdf(key: bytes, info: bytes) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=KEY_BYTES, salt=_SALT, info=info).derive(key)


def _expect(data: bytes, size: int, code: str) -> None:
    if len(data) != size:
        raise SecAggError(code, f"a key has {len(data)} bytes instead of {size}")
