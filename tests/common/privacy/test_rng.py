from __future__ import annotations

import copy
import math
import os
import pickle

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import ECB
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from common.errors import PrivacyConfigError
from common.privacy.rng import NoiseSource, encode_context

PARTS = st.one_of(st.text(max_size=4), st.integers(-300, 300))


class Constant(NoiseSource):
    """A source whose keystream is one repeated byte."""

    __slots__ = ("byte",)

    def _keystream(self, size: int) -> bytes:
        return bytes([self.byte]) * size


def constant(byte: int) -> Constant:
    source = Constant(bytes(32), test_mode=True)
    source.byte = byte
    return source


def ks_accepts(sample: np.ndarray, stddev: float) -> bool:
    return bool(stats.kstest(sample.astype(np.float64), "norm", args=(0, stddev)).pvalue > 1e-6)


def test_keystream_is_aes_256_in_counter_mode_from_zero() -> None:
    key = bytes(range(32))
    block = Cipher(AES256(key), ECB()).encryptor()
    expected = block.update(b"".join(n.to_bytes(16, "big") for n in range(5)))
    assert NoiseSource(key, test_mode=True)._keystream(80) == expected


def test_normals_equal_a_plain_box_muller_on_the_same_words() -> None:
    key = bytes(range(32))
    words = np.frombuffer(NoiseSource(key, test_mode=True)._keystream(8 * 10), "<u8")
    bits = [int(w) >> 11 for w in words]
    radius = [math.sqrt(-2 * math.log((b + 1) * 2.0**-53)) for b in bits[:5]]
    angle = [2 * math.pi * b * 2.0**-53 for b in bits[5:]]
    pairs = list(zip(radius, angle, strict=True))
    expected = [r * math.cos(a) for r, a in pairs] + [r * math.sin(a) for r, a in pairs]
    found = NoiseSource(key, test_mode=True).normal(9, 3.0)
    np.testing.assert_allclose(found, 3.0 * np.array(expected[:9]), rtol=1e-6)


@pytest.mark.parametrize("stddev", [0.1, 1.0, 250.0])
def test_the_declared_scale_is_accepted_and_wrong_ones_are_not(stddev: float) -> None:
    sample = NoiseSource.seeded_for_tests(3).normal(40_000, stddev)
    assert ks_accepts(sample, stddev)
    assert not ks_accepts(sample * (2 / 3), stddev)
    assert not ks_accepts(sample * (3 / 2), stddev)


def test_every_chunk_and_both_halves_of_a_chunk_are_normal() -> None:
    sample = NoiseSource.seeded_for_tests(5).normal(2 * 32_768 + 4_001, 1.0)
    for part in np.split(sample, [16_384, 32_768, 49_152, 65_536]):
        assert ks_accepts(part, 1.0)


def test_moments_up_to_the_fourth() -> None:
    z = NoiseSource.seeded_for_tests(8).normal(400_000, 1.0).astype(np.float64)
    for power, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((z**power).mean() - mean) < 6 * math.sqrt(variance / z.size)


@pytest.mark.parametrize(("byte", "largest"), [(0, math.sqrt(2 * 53 * math.log(2))), (255, 1e-7)])
def test_extreme_bit_patterns_give_finite_values(byte: int, largest: float) -> None:
    values = constant(byte).normal(7, 1.0)
    assert np.isfinite(values).all()
    assert np.abs(values).max() == pytest.approx(largest, rel=1e-6, abs=1e-7)


def test_uniforms_are_53_bit_and_below_one() -> None:
    assert constant(255).uniform(3).max() == 1 - 2.0**-53
    assert constant(0).uniform(3).max() == 0.0
    values = NoiseSource.seeded_for_tests(1).uniform(20_000)
    assert np.all(values * 2**53 == np.floor(values * 2**53)) and np.any(values * 2**40 != np.floor(values * 2**40))
    assert stats.kstest(values, "uniform").pvalue > 1e-6


def test_bernoulli_rate_and_its_ends() -> None:
    source = NoiseSource.seeded_for_tests(2)
    hits = int(source.bernoulli(200_000, 1e-3).sum())
    assert stats.binomtest(hits, 200_000, 1e-3).pvalue > 1e-6
    assert not source.bernoulli(1000, 0.0).any() and source.bernoulli(1000, 1.0).all()
    assert source.bernoulli(0, 0.5).shape == (0,)


def test_integers_are_uniform_without_modulo_bias() -> None:
    source = NoiseSource.seeded_for_tests(4)
    counts = np.bincount(source.integers(70_000, 7), minlength=7)
    assert len(counts) == 7 and stats.chisquare(counts).pvalue > 1e-6
    high = 3 * 2**61  # a modulo of 64 bits would give the lower third 3 of 8 chances instead of 1 of 3
    low_third = int((source.integers(20_000, high) < high // 3).sum())
    assert stats.binomtest(low_third, 20_000, 1 / 3).pvalue > 1e-6
    assert source.integers(5, 1).tolist() == [0] * 5
    assert source.integers(0, 3).shape == (0,)


@settings(max_examples=50, deadline=None)
@given(st.lists(PARTS, min_size=1, max_size=4), st.lists(PARTS, min_size=1, max_size=4))
def test_contexts_are_encoded_injectively(a: list[str | int], b: list[str | int]) -> None:
    same = [(type(x), x) for x in a] == [(type(x), x) for x in b]
    assert (encode_context(a) == encode_context(b)) == same


@pytest.mark.parametrize(
    ("a", "b"),
    [(("ab", "c"), ("a", "bc")), ((1,), ("1",)), ((1, 2), (12,)), (("a", ""), ("a",)), (("round", 1), ("round", "1"))],
)
def test_contexts_that_look_alike_give_unrelated_streams(a: tuple[str | int, ...], b: tuple[str | int, ...]) -> None:
    root = NoiseSource.seeded_for_tests(0)
    x, y = (root.derive(*c).normal(20_000, 1.0).astype(np.float64) for c in (a, b))
    assert abs(np.mean(x * y)) * math.sqrt(x.size) < 6


def test_nested_contexts_are_not_joined() -> None:
    root = NoiseSource.seeded_for_tests(0)
    values = {
        root.derive("a", "b").uniform(2).tobytes(),
        root.derive("a").derive("b").uniform(2).tobytes(),
        root.derive("b").derive("a").uniform(2).tobytes(),
        root.uniform(2).tobytes(),
    }
    assert len(values) == 4


def test_a_seeded_source_repeats_and_says_so() -> None:
    a, b, other = (NoiseSource.seeded_for_tests(s) for s in (7, 7, 8))
    x = a.derive("round", 1).normal(10, 1.0)
    a.normal(99, 1.0)  # deriving depends on the context alone, not on what was drawn before
    np.testing.assert_array_equal(x, b.derive("round", 1).normal(10, 1.0))
    np.testing.assert_array_equal(x, a.derive("round", 1).normal(10, 1.0))
    assert not np.array_equal(x, other.derive("round", 1).normal(10, 1.0))
    assert a.test_mode and a.derive("x").test_mode and "not private" in repr(a)


def test_the_system_source_never_repeats_even_for_a_repeated_context() -> None:
    source = NoiseSource.from_os()
    assert not source.test_mode and not source.derive("x").test_mode
    drawn = {source.derive("round", 1).uniform(4).tobytes() for _ in range(20)}
    assert len(drawn) == 20
    assert NoiseSource.from_os().uniform(4).tobytes() != NoiseSource.from_os().uniform(4).tobytes()


def test_successive_draws_differ() -> None:
    source = NoiseSource.seeded_for_tests(0)
    assert not np.array_equal(source.normal(100, 1.0), source.normal(100, 1.0))


def test_a_forked_process_takes_a_key_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    source = NoiseSource.from_os()
    old = source._key
    monkeypatch.setattr(os, "getpid", lambda: -1)
    source.uniform(1)
    assert source._key != old


def test_no_global_generator_is_read_or_moved() -> None:
    np.random.seed(0)
    torch.manual_seed(0)
    before, torch_before = np.random.get_state()[1].copy(), torch.get_rng_state()
    a = NoiseSource.seeded_for_tests(0).normal(50_000, 1.0)
    assert np.array_equal(before, np.random.get_state()[1]) and torch.equal(torch_before, torch.get_rng_state())
    np.random.seed(1)
    torch.manual_seed(1)
    np.testing.assert_array_equal(a, NoiseSource.seeded_for_tests(0).normal(50_000, 1.0))


@pytest.mark.parametrize("shape", [(), 0, 5, (3, 4), (0, 4), (2, 3, 4)])
def test_shapes(shape: int | tuple[int, ...]) -> None:
    values = NoiseSource.seeded_for_tests(0).normal(shape, 1.0)
    assert values.shape == ((shape,) if isinstance(shape, int) else shape) and values.dtype == np.float32


def test_zero_stddev_gives_zeros() -> None:
    assert not NoiseSource.seeded_for_tests(0).normal(100, 0.0).any()


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_source_cannot_be_duplicated(duplicate) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(TypeError, match="repeat its noise"):
        duplicate(NoiseSource.from_os())


def test_the_key_is_not_shown() -> None:
    source = NoiseSource.from_os()
    assert source._key.hex() not in repr(source) and repr(source._key) not in repr(source)


@pytest.mark.parametrize("stddev", [-1.0, math.nan, math.inf])
def test_bad_stddev_is_refused(stddev: float) -> None:
    with pytest.raises(PrivacyConfigError, match="standard deviation"):
        NoiseSource.seeded_for_tests(0).normal(3, stddev)


@pytest.mark.parametrize("rate", [-0.1, 1.1, math.nan])
def test_bad_rate_is_refused(rate: float) -> None:
    with pytest.raises(PrivacyConfigError, match="rate"):
        NoiseSource.seeded_for_tests(0).bernoulli(3, rate)


@pytest.mark.parametrize("high", [0, -1, 2**63])
def test_bad_range_is_refused(high: int) -> None:
    with pytest.raises(PrivacyConfigError, match="choices"):
        NoiseSource.seeded_for_tests(0).integers(3, high)


@pytest.mark.parametrize("context", [(), (1.5,), (True,), (None,), (b"x",)])
def test_bad_context_is_refused(context: tuple[object, ...]) -> None:
    with pytest.raises(PrivacyConfigError, match="context"):
        NoiseSource.seeded_for_tests(0).derive(*context)  # type: ignore[arg-type]


def test_a_short_key_is_refused() -> None:
    with pytest.raises(PrivacyConfigError, match="32 bytes"):
        NoiseSource(b"short", test_mode=True)
