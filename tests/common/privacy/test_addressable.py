"""Noise by address: the same bits however asked for, unrelated between addresses, and never copied."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from common.errors import PrivacyConfigError
from common.privacy.addressable import AddressableNoise
from common.privacy.rng import NoiseSource, encode_context, hkdf_sha256

Draw = Callable[[np.ndarray, int], np.ndarray]


def noise(seed: int = 0) -> AddressableNoise:
    return AddressableNoise(NoiseSource.seeded_for_tests(seed))


def drawn(rows: list[int] | np.ndarray, width: int = 6, *, table: str = "centre", round: int = 3) -> np.ndarray:
    return noise().normal(np.asarray(rows, dtype=np.int64), width, table=table, round=round)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return abs(float(np.mean(a.astype(np.float64) * b))) * math.sqrt(a.size)


def the_same_in_any_order(draw: Draw) -> None:
    whole = draw(np.arange(1000), 7)
    order = np.random.default_rng(0).permutation(1000)
    assert np.array_equal(draw(order, 7), whole[order])
    for row in (0, 1, 500, 999):
        assert np.array_equal(draw(np.array([row]), 7), whole[row : row + 1])


def no_number_comes_twice(draw: Draw) -> None:
    for width in (2, 5, 6):
        pairs = draw(np.arange(4000), width)[:, : width // 2 * 2].reshape(-1, 2)
        assert len(np.unique(pairs, axis=0)) == len(pairs)


def independent_between_rows(draw: Draw) -> None:
    z = draw(np.arange(20_000), 6)
    for lag in (1, 2, 3):
        for shift in range(6):
            assert correlation(np.roll(z, shift, axis=1)[lag:], z[:-lag]) < 6.5


RULES = (the_same_in_any_order, no_number_comes_twice, independent_between_rows)


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.__name__)
def test_addresses_keep_the_rules(rule: Callable[[Draw], None]) -> None:
    rule(drawn)


def one_block_short(rows: np.ndarray, width: int) -> np.ndarray:
    """The counter grows by one block too few from row to row, so neighbours share one."""
    blocks = (width + 1) // 2
    step = max(1, blocks - 1) if blocks > 1 else 0
    stream = drawn([0], 2 * (blocks + step * (int(rows.max()) + 1)))[0].reshape(-1, 2)
    return np.stack([stream[r * step : r * step + blocks].reshape(-1)[:width] for r in rows])


def by_position(rows: np.ndarray, width: int) -> np.ndarray:
    return drawn(np.arange(len(rows)), width)


def added_to_a_neighbour(rows: np.ndarray, width: int) -> np.ndarray:
    return ((drawn(rows, width) + drawn(rows + 1, width)) / math.sqrt(2)).astype(np.float32)


@pytest.mark.parametrize(
    ("broken", "rule"),
    [
        (one_block_short, no_number_comes_twice),
        (by_position, the_same_in_any_order),
        (added_to_a_neighbour, independent_between_rows),
    ],
    ids=lambda x: x.__name__,
)
def test_broken_addresses_break_a_rule(broken: Draw, rule: Callable[[Draw], None]) -> None:
    with pytest.raises(AssertionError):
        rule(broken)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 2**55), max_size=40), st.integers(1, 9), st.integers(0, 10**9))
def test_any_rows_alone_and_together(rows: list[int], width: int, round: int) -> None:
    together = drawn(rows, width, round=round)
    assert together.shape == (len(rows), width) and together.dtype == np.float32
    for line, row in zip(together, rows, strict=True):
        assert np.array_equal(drawn([row], width, round=round)[0], line)


def test_batches_longer_than_a_chunk_and_rows_longer_than_a_chunk() -> None:
    rows = np.random.default_rng(1).permutation(9000)
    whole = drawn(rows, 8)
    assert np.array_equal(whole[5000:5003], drawn(rows[5000:5003], 8))
    long = drawn([3, 1], 70_001)
    assert np.array_equal(long[1:], drawn([1], 70_001)) and stats.kstest(long[0], "norm").pvalue > 1e-6


@pytest.mark.parametrize("width", [5, 6])
def test_the_numbers_are_box_muller_of_counter_mode(width: int) -> None:
    source = noise()
    key = hkdf_sha256(source._key, salt=b"", info=encode_context(("normal", "centre", 3, width)))
    words = np.frombuffer(Cipher(AES256(key), CTR(bytes(16))).encryptor().update(bytes(16 * 3 * 5)), "<u8")
    expected = []
    for first, second in (words >> np.uint64(11)).reshape(-1, 2).tolist():
        radius, angle = math.sqrt(-2 * math.log((first + 1) * 2.0**-53)), 2 * math.pi * second * 2.0**-53
        expected += [radius * math.cos(angle), radius * math.sin(angle)]
    found = source.normal(np.arange(5), width, table="centre", round=3)
    np.testing.assert_allclose(found, np.array(expected).reshape(5, 6)[:, :width], rtol=1e-6, atol=1e-12)


def test_the_law_is_standard_normal_and_wrong_scales_are_not() -> None:
    z = drawn(np.random.default_rng(0).integers(0, 2**50, 10_000), 5).reshape(-1).astype(np.float64)
    assert stats.kstest(z, "norm").pvalue > 1e-6
    assert stats.kstest(z * 2 / 3, "norm").pvalue < 1e-6 and stats.kstest(z * 3 / 2, "norm").pvalue < 1e-6


def test_table_round_width_and_key_are_part_of_the_address() -> None:
    rows = np.arange(5000)
    base = drawn(rows)
    others = [
        drawn(rows, table="context"),
        drawn(rows, round=4),
        drawn(rows, 7)[:, :6],
        noise(1).normal(rows, 6, table="centre", round=3),
    ]
    assert all(correlation(base, other) < 6.5 for other in others)
    assert np.array_equal(base, drawn(rows))


def test_a_system_source_gives_every_object_a_key_of_its_own() -> None:
    source = NoiseSource.from_os()
    one, two = AddressableNoise(source), AddressableNoise(source)
    a, b = (x.normal(np.arange(3000), 4, table="t", round=0) for x in (one, two))
    assert correlation(a, b) < 6.5 and not np.array_equal(a, b)
    assert not one.test_mode and noise().test_mode and "not private" in repr(noise())
    assert one._key.hex() not in repr(one)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_it_cannot_be_duplicated(duplicate: Callable[[object], object]) -> None:
    with pytest.raises(TypeError, match="repeat its noise"):
        duplicate(noise())


@pytest.mark.parametrize(
    "rows", [np.array([-1]), np.array([2**62]), np.array([[1]]), np.array([1.0]), np.array([True]), np.array(3)]
)
def test_bad_rows_are_refused(rows: np.ndarray) -> None:
    with pytest.raises(PrivacyConfigError, match="row"):
        noise().normal(rows, 6, table="centre", round=0)


@pytest.mark.parametrize("width", [0, -2, True, 2**40])
def test_bad_widths_are_refused(width: int) -> None:
    with pytest.raises(PrivacyConfigError, match="number"):
        noise().normal(np.arange(3), width, table="centre", round=0)


@pytest.mark.parametrize("round", [-1, 1.0, True, None, "1"])
def test_bad_rounds_are_refused(round: object) -> None:
    with pytest.raises(PrivacyConfigError, match="round"):
        noise().normal(np.arange(3), 2, table="centre", round=round)  # type: ignore[arg-type]
