from __future__ import annotations

import pytest

from common.secagg.sealing import TAG_BYTES, open_sealed, seal

from ._tools import refused, stream

KEY = stream("sealing")(32)


def test_the_published_vectors() -> None:
    # The GCM specification of McGrew and Viega (2005), appendix B, test cases 13 and 14: AES-256, zero key and nonce
    assert seal(bytes(32), b"", b"").hex() == "530f8afbc74536b9a963b4f1c4cb738b"
    sealed = seal(bytes(32), b"", bytes(16)).hex()
    assert sealed == "cea7403d4d606b6e074ec5d3baf39d18" + "d0d1c8a799996bf0265b98b5d48ab919"


@pytest.mark.parametrize("size", [0, 1, 33, 132, 5000])
def test_what_is_sealed_opens_under_the_same_key_and_place(size: int) -> None:
    plaintext = stream(size)(size)
    sealed = seal(KEY, b"place", plaintext)
    assert len(sealed) == size + TAG_BYTES
    assert open_sealed(KEY, b"place", sealed) == plaintext


def test_any_changed_bit_is_refused() -> None:
    sealed = seal(KEY, b"run|round|from|to", b"a share")
    for place in range(8 * len(sealed)):
        changed = bytearray(sealed)
        changed[place // 8] ^= 1 << place % 8
        with refused("bad_seal"):
            open_sealed(KEY, b"run|round|from|to", bytes(changed))


@pytest.mark.parametrize("place", [b"", b"run|round|to|from", b"run|round|from|to|"])
def test_another_place_is_refused(place: bytes) -> None:
    sealed = seal(KEY, b"run|round|from|to", b"a share")
    with refused("bad_seal"):
        open_sealed(KEY, place, sealed)


def test_another_key_or_a_cut_message_is_refused() -> None:
    sealed = seal(KEY, b"", b"a share")
    with refused("bad_seal"):
        open_sealed(bytes(32), b"", sealed)
    for size in range(len(sealed)):
        with refused("bad_seal"):
            open_sealed(KEY, b"", sealed[:size])
    with refused("bad_seal"):
        open_sealed(KEY, b"", sealed + b"\0")


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_keys_of_another_length_are_refused(size: int) -> None:
    with refused("bad_key"):
        seal(bytes(size), b"", b"")
    with refused("bad_key"):
        open_sealed(bytes(size), b"", bytes(16))
