from __future__ import annotations

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import ECB
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from common.secagg import masks
from common.secagg.masks import Masker, dtype_of

from ._tools import refused, stream

SEED = stream("mask")(32)
CHUNK = masks._CHUNK_BYTES
WORDS = {8: 1, 16: 2, 32: 4}


def block(key: bytes, counter: int) -> bytes:
    """One block of AES-256."""
    return Cipher(AES256(key), ECB()).encryptor().update(counter.to_bytes(16, "big"))


def mask_by_definition(seed: bytes, bits: int, length: int) -> list[int]:
    """Counter mode block by block, words byte by byte."""
    width = dtype_of(bits).itemsize
    stream_bytes = b"".join(block(seed, i) for i in range(-(-length * width // 16)))
    return [int.from_bytes(stream_bytes[width * i : width * (i + 1)], "little") % 2**bits for i in range(length)]


def values(bits: int, length: int, seed: str | int = 0) -> np.ndarray:
    raw = np.frombuffer(stream(seed)(4 * length), dtype="<u4")
    return (raw & np.uint32((1 << bits) - 1)).astype(dtype_of(bits))


def test_the_published_blocks() -> None:
    # NIST SP 800-38A, F.1.5 (the oracle's cipher), and the zero block of a zero key (GCM test case 13)
    key = bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
    assert block(key, 0x6BC1BEE22E409F96E93D7E117393172A).hex() == "f3eed1bdb5d2a03c064b5a7e3db181f8"
    assert block(bytes(32), 0).hex() == "dc95c078a2408989ad48a21492842087"
    total = np.zeros(16, dtype=np.uint8)
    Masker(8, 16).add(total, bytes(32))
    assert total.tobytes().hex() == "dc95c078a2408989ad48a21492842087"


def test_counter_mode_is_the_published_one() -> None:
    # NIST SP 800-38A, F.5.5, with the counters of its four blocks
    key = bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
    first = 0xF0F1F2F3F4F5F6F7F8F9FAFBFCFDFEFF
    plain = "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e5130c81c46a35ce411e5fbc1191a0a52ef"
    wanted = "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c52b0930daa23de94ce87017ba2d84988d"
    keystream = b"".join(block(key, first + i) for i in range(3))
    assert bytes(a ^ b for a, b in zip(keystream, bytes.fromhex(plain), strict=True)).hex() == wanted


@pytest.mark.parametrize("bits", range(8, 33))
def test_a_mask_is_counter_mode_over_zeros(bits: int) -> None:
    total = np.zeros(77, dtype=dtype_of(bits))
    Masker(bits, 77).add(total, SEED)
    assert total.tolist() == mask_by_definition(SEED, bits, 77)


@pytest.mark.parametrize("bits", [8, 13, 16, 20, 32])
@pytest.mark.parametrize("extra", [-1, 0, 1, 4099])
def test_pieces_join_without_a_seam(bits: int, extra: int) -> None:
    width = dtype_of(bits).itemsize
    length = CHUNK // width + extra
    total = np.zeros(length, dtype=dtype_of(bits))
    Masker(bits, length).add(total, SEED)
    first_block = CHUNK // 16 - 2
    around = b"".join(block(SEED, first_block + i) for i in range(4))
    start = first_block * 16 // width
    wanted = np.frombuffer(around, dtype=dtype_of(bits))[: length - start] & dtype_of(bits).type(2**bits - 1)
    assert np.array_equal(total[start : start + len(wanted)], wanted)


@settings(max_examples=40, deadline=None)
@given(st.integers(8, 32), st.integers(0, 300), st.integers(0, 3), st.integers(0, 3))
def test_many_masks_in_one_pass_are_the_masks_one_by_one(bits: int, length: int, plus: int, minus: int) -> None:
    seeds = [stream(i)(32) for i in range(plus + minus)]
    start = values(bits, length)
    total = start.copy()
    Masker(bits, length).apply(total, plus=seeds[:plus], minus=seeds[plus:])
    wanted = start.tolist()
    for i, seed in enumerate(seeds):
        sign = 1 if i < plus else -1
        wanted = [(v + sign * m) % 2**bits for v, m in zip(wanted, mask_by_definition(seed, bits, length), strict=True)]
    assert total.tolist() == wanted
    one_by_one = start.copy()
    masker = Masker(bits, length)
    for i, seed in enumerate(seeds):
        (masker.add if i < plus else masker.subtract)(one_by_one, seed)
    assert np.array_equal(one_by_one, total)


@pytest.mark.parametrize("bits", range(8, 33))
@pytest.mark.parametrize("length", [0, 1, 255])
def test_pairwise_masks_cancel(bits: int, length: int) -> None:
    inputs = [values(bits, length, i) for i in range(3)]
    masker = Masker(bits, length)
    masked = [v.copy() for v in inputs]
    for i in range(3):
        for j in range(i):
            seed = stream(f"{j},{i}")(32)
            masker.add(masked[j], seed)
            masker.subtract(masked[i], seed)
    total = sum(v.astype(np.int64) for v in masked) % 2**bits
    assert np.array_equal(total, sum(v.astype(np.int64) for v in inputs) % 2**bits)
    if length > 100:
        assert not any(np.array_equal(m, v) for m, v in zip(masked, inputs, strict=True))


@pytest.mark.parametrize("bits", [8, 12, 16, 24, 32])
def test_a_masked_vector_is_uniform(bits: int) -> None:
    total = np.zeros(60_000, dtype=dtype_of(bits))  # the least random input there is
    Masker(bits, len(total)).add(total, SEED)
    assert int(total.max()) < 2**bits
    for shift in {0, bits - 8}:
        counts = np.bincount((total >> shift & 255).astype(np.int64), minlength=256)
        assert stats.chisquare(counts).pvalue > 1e-4
    ones = [(int((total >> bit & 1).sum()) - 30_000) / np.sqrt(15_000) for bit in range(bits)]
    assert max(abs(z) for z in ones) < 5
    serial = np.corrcoef(total[:-1].astype(float), total[1:].astype(float))[0, 1]
    assert abs(serial) * np.sqrt(len(total)) < 5


def linear_complexity(bits: list[int]) -> int:
    """Length of the shortest linear feedback register that gives these bits (Berlekamp and Massey, 1969)."""
    register, earlier, length, changed, window = 1, 1, 0, -1, 0
    for at, bit in enumerate(bits):
        window = window << 1 | bit
        if (register & window).bit_count() & 1:
            register, previous = register ^ earlier << (at - changed), register
            if 2 * length <= at:
                length, changed, earlier = at + 1 - length, at, previous
    return length


@pytest.mark.parametrize("bits", [8, 12, 16, 32])
def test_low_bits_of_masks_follow_no_linear_rule(bits: int) -> None:
    total = np.zeros(1500, dtype=dtype_of(bits))
    Masker(bits, len(total)).add(total, SEED)
    assert abs(linear_complexity((total & 1).tolist()) - 750) < 20  # chance of more: below 2^-38


def test_a_linear_generator_would_be_seen() -> None:
    state, low_bits = 1, []
    for _ in range(1500):  # a shift register of 64 bits: passes every count of bytes and bits above
        state ^= state << 13 & 2**64 - 1
        state ^= state >> 7
        state ^= state << 17 & 2**64 - 1
        low_bits.append(state & 1)
    assert linear_complexity(low_bits) == 64


def test_masks_of_different_seeds_have_nothing_in_common() -> None:
    vectors = []
    for bit in range(0, 256, 37):
        seed = bytearray(SEED)
        seed[bit // 8] ^= 1 << bit % 8  # neighbours of one seed: a folded or truncated seed would collide
        total = np.zeros(64, dtype=np.uint32)
        Masker(32, 64).add(total, bytes(seed))
        vectors.append(total)
    joined = np.concatenate(vectors)
    assert len(np.unique(joined)) == len(joined)


def test_every_bit_of_a_seed_counts() -> None:
    seen = set()
    for bit in range(256):
        total = np.zeros(8, dtype=np.uint32)
        Masker(32, 8).add(total, (1 << bit).to_bytes(32, "big"))
        seen.add(total.tobytes())
    assert len(seen) == 256


@pytest.mark.parametrize("bits", [-1, 0, 7, 33, 64])
def test_other_widths_are_refused(bits: int) -> None:
    with refused("bad_bits"):
        dtype_of(bits)
    with refused("bad_bits"):
        Masker(bits, 10)


def test_types_are_the_narrowest() -> None:
    assert {bits: dtype_of(bits).itemsize for bits in (8, 9, 16, 17, 24, 32)} == {
        8: 1,
        9: 2,
        16: 2,
        17: 4,
        24: 4,
        32: 4,
    }


def test_vectors_that_do_not_fit_are_refused_and_left_alone() -> None:
    masker = Masker(16, 10)
    frozen = np.zeros(10, dtype=np.uint16)
    frozen.flags.writeable = False
    bad = [
        np.zeros(9, dtype=np.uint16),
        np.zeros(11, dtype=np.uint16),
        np.zeros((1, 10), dtype=np.uint16),
        np.zeros(10, dtype=np.uint32),
        np.zeros(10, dtype=np.int16),
        np.zeros(10, dtype=">u2"),
        np.zeros(20, dtype=np.uint16)[::2],
        frozen,
        [0] * 10,
    ]
    for vector in bad:
        with refused("wrong_length"):
            masker.add(vector, SEED)  # type: ignore[arg-type]
        assert not np.any(vector)
    with refused("wrong_length"):
        Masker(16, -1)


def test_a_bad_seed_is_refused_before_anything_is_added() -> None:
    total = np.zeros(10, dtype=np.uint16)
    for bad in (b"", SEED[:16], SEED + b"\0"):
        with refused("bad_key"):
            Masker(16, 10).apply(total, plus=[SEED, bad])
    assert not total.any()


def test_no_piece_of_a_mask_stays_behind() -> None:
    masker = Masker(16, 1000)
    masker.add(np.zeros(1000, dtype=np.uint16), SEED)
    assert not masker._stream.any()
