from __future__ import annotations

import hashlib
import hmac
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

import common.secagg
from common.secagg import keys
from common.secagg.keys import (
    AgreementKey,
    Identity,
    agree,
    agreement_keypair,
    agreement_public,
    commitment,
    derive,
    verify,
)

from ._tools import refused, stream

P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P
SALT = hashlib.sha256(b"fedembed-secagg/1").digest()

# RFC 7748, section 6.1
ALICE = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
ALICE_PUBLIC = bytes.fromhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
BOB = bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
BOB_PUBLIC = bytes.fromhex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f")
SHARED = bytes.fromhex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")

# RFC 8032, section 7.1, tests 1 to 3: private, public, message, signature
SIGNATURES = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
        "d25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c"
        "387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc659"
        "4a7c15e9716ed28dc027beceea1ec40a",
    ),
]


def hkdf(key: bytes, salt: bytes, info: bytes, size: int) -> bytes:
    """RFC 5869, section 2, word by word."""
    secret = hmac.digest(salt, key, "sha256")
    out, last, count = b"", b"", 0
    while len(out) < size:
        count += 1
        last = hmac.digest(secret, last + info + bytes([count]), "sha256")
        out += last
    return out[:size]


def add_points(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    """Addition on edwards25519 in affine coordinates (RFC 8032, section 5.1.4)."""
    (x1, y1), (x2, y2) = one, other
    cross = D * x1 * x2 * y1 * y2 % P
    return (x1 * y2 + x2 * y1) * pow(1 + cross, -1, P) % P, (y1 * y2 + x1 * x2) * pow(1 - cross, -1, P) % P


def point(y: int) -> tuple[int, int] | None:
    """A point of edwards25519 with this y-coordinate (RFC 8032, section 5.1.3)."""
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    return (x, y) if x * x % P == square else None


def test_agreement_gives_the_published_keys() -> None:
    assert agreement_public(ALICE) == ALICE_PUBLIC
    assert agreement_public(BOB) == BOB_PUBLIC
    wanted = hkdf(SHARED, SALT, b"info", 32)
    assert agree(ALICE, BOB_PUBLIC, b"info") == agree(BOB, ALICE_PUBLIC, b"info") == wanted
    ready = AgreementKey(ALICE)
    assert [ready.agree(BOB_PUBLIC, info) for info in (b"info", b"more")] == [wanted, hkdf(SHARED, SALT, b"more", 32)]
    assert ALICE.hex() not in repr(ready)


def test_the_oracle_of_hkdf_gives_the_published_key() -> None:
    okm = hkdf(b"\x0b" * 22, bytes(range(13)), bytes(range(0xF0, 0xFA)), 42)  # RFC 5869, A.1
    assert okm.hex() == ("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865")


def test_derived_keys_follow_the_rfc_and_differ_by_purpose() -> None:
    secret = stream("derive")(32)
    assert derive(secret, b"mask") == hkdf(secret, SALT, b"mask", 32)
    told = {derive(secret, b"a"), derive(secret, b"b"), commitment(secret, b"a"), commitment(secret, b"b"), secret}
    assert len(told) == 5
    assert agree(ALICE, BOB_PUBLIC, b"a") != agree(ALICE, BOB_PUBLIC, b"b")


def test_key_pairs_come_from_the_given_randomness_alone() -> None:
    assert agreement_keypair(stream(1)) == agreement_keypair(stream(1)) != agreement_keypair(stream(2))
    assert agreement_keypair(lambda size: ALICE[:size]) == (ALICE, ALICE_PUBLIC)
    assert agreement_keypair(os.urandom) != agreement_keypair(os.urandom)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_source_that_gives_another_number_of_bytes_is_refused(size: int) -> None:
    with refused("bad_entropy"):
        agreement_keypair(lambda _: bytes(size))
    with refused("bad_entropy"):
        Identity.fresh(lambda _: bytes(size))


# Every u-coordinate of small order on the curve and its twist: 0, 1, p - 1 and the two of order 8.
LOW_ORDER = [
    0,
    1,
    P - 1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
]


@pytest.mark.parametrize("u", LOW_ORDER)
def test_public_keys_of_small_order_are_refused(u: int) -> None:
    with refused("bad_key"):
        agree(ALICE, u.to_bytes(32, "little"), b"")
    with refused("bad_key"):
        keys.check_agreement_public(u.to_bytes(32, "little"))


def test_a_key_passes_the_check_where_the_library_agrees() -> None:
    for public in (ALICE_PUBLIC, BOB_PUBLIC, (P - 2).to_bytes(32, "little"), (2).to_bytes(32, "little")):
        keys.check_agreement_public(public)
        assert agree(ALICE, public, b"")


def test_each_point_has_one_accepted_encoding() -> None:
    high_bit = BOB_PUBLIC[:31] + bytes([BOB_PUBLIC[31] | 0x80])
    raw = X25519PrivateKey.from_private_bytes(ALICE)
    library_accepts = raw.exchange(X25519PublicKey.from_public_bytes(high_bit))
    assert library_accepts == SHARED  # which is why it is refused here
    for public in (high_bit, (P + 9).to_bytes(32, "little"), b"\xff" * 32):
        with refused("bad_key"):
            agree(ALICE, public, b"")
        with refused("bad_key"):
            keys.check_agreement_public(public)


@pytest.mark.parametrize("bad", [b"", b"x" * 31, b"x" * 33])
def test_keys_of_another_length_are_refused(bad: bytes) -> None:
    calls = [
        lambda: agree(bad, BOB_PUBLIC, b""),
        lambda: agree(ALICE, bad, b""),
        lambda: agreement_public(bad),
        lambda: derive(bad, b""),
        lambda: commitment(bad, b""),
        lambda: Identity(bad),
        lambda: verify(bad, b"", b""),
    ]
    for call in calls:
        with refused("bad_key"):
            call()


@pytest.mark.parametrize(("private", "public", "message", "signature"), SIGNATURES)
def test_signatures_are_the_published_ones(private: str, public: str, message: str, signature: str) -> None:
    identity = Identity(bytes.fromhex(private))
    assert identity.public.hex() == public
    assert identity.sign(bytes.fromhex(message)).hex() == signature
    verify(identity.public, bytes.fromhex(signature), bytes.fromhex(message))


def test_any_changed_bit_of_a_signature_its_key_or_message_is_refused() -> None:
    identity = Identity(stream("identity")(32))
    message, signature = b"context|message", identity.sign(b"context|message")
    for place in range(8 * len(signature)):
        with refused("bad_signature"):
            verify(identity.public, _flipped(signature, place), message)
    for place in range(8 * len(message)):
        with refused("bad_signature"):
            verify(identity.public, signature, _flipped(message, place))
    for place in range(8 * len(identity.public)):
        with refused("bad_signature", "bad_key"):
            verify(_flipped(identity.public, place), signature, message)
    for bad in (b"", signature[:-1], signature + b"\0"):
        with refused("bad_signature"):
            verify(identity.public, bad, message)


def test_a_key_under_which_every_message_is_signed_is_nobodys() -> None:
    neutral, signature = (1).to_bytes(32, "little"), (1).to_bytes(32, "little") + bytes(32)
    Ed25519PublicKey.from_public_bytes(neutral).verify(signature, b"whatever it is")  # the library accepts it
    with refused("bad_key"):
        verify(neutral, signature, b"whatever it is")


def test_the_refused_identity_keys_are_exactly_the_points_of_small_order() -> None:
    found = {y for y in keys._SMALL_ORDER if point(y) is not None}
    assert found == keys._SMALL_ORDER and len(found) == 5
    start = point(keys._ORDER_8)
    assert start is not None
    multiple, ys = start, set()
    for _ in range(8):
        ys.add(multiple[1])
        multiple = add_points(multiple, start)
    assert multiple == start and ys == found  # one point of order 8 generates all of them
    for y in found:
        for sign in (0, 1):
            with refused("bad_key"):
                keys.check_identity_public((y | sign << 255).to_bytes(32, "little"))
    for y in (P, P + 1, P + 5):  # other encodings of small numbers
        with refused("bad_key"):
            keys.check_identity_public(y.to_bytes(32, "little"))


def test_an_identity_survives_its_file_and_hides_in_words() -> None:
    identity = Identity(stream("pem")(32))
    assert Identity.from_pem(identity.to_pem()) == identity
    assert identity.private.hex() not in repr(identity) and repr(identity.private) not in repr(identity)


def test_other_key_files_are_refused() -> None:
    identity = Identity(stream("pem")(32))
    other = X25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    locked = identity._key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password"))
    for data in (b"", b"no key", other, locked, identity.to_pem()[:60]):
        with refused("bad_key"):
            Identity.from_pem(data)


def test_no_module_here_draws_from_a_generator_that_can_be_guessed() -> None:
    for file in sorted(Path(common.secagg.__file__).parent.glob("*.py")):
        text = file.read_text(encoding="utf-8")
        for word in ("numpy.random", "np.random", "import random", "from random", "import secrets", "urandom("):
            assert word not in text, f"{file.name} has {word}"


def _flipped(data: bytes, place: int) -> bytes:
    return bytes(byte ^ (1 << place % 8 if i == place // 8 else 0) for i, byte in enumerate(data))
