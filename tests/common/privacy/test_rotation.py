"""The randomized Hadamard rotation beside the dense matrix."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import hadamard

from common.privacy import rotation
from common.privacy.rotation import rotated, rotation_seed, unrotated

SIZES = [1, 2, 8, 64, 128, 1024]


def oracle(vector: np.ndarray, seed: int) -> np.ndarray:
    """The dense matrix."""
    return hadamard(len(vector)) @ (rotation._signs(len(vector), seed) * vector) / np.sqrt(len(vector))


@pytest.mark.parametrize("size", SIZES)
def test_it_is_the_dense_hadamard_matrix_with_signs(size: int) -> None:
    x = np.random.default_rng(size).normal(size=size)
    assert np.allclose(rotated(x, 5), oracle(x, 5), atol=1e-12)
    if size > 1:
        broken = rotated(x, 5).copy()
        broken[:2] = broken[1::-1]
        assert not np.allclose(broken, oracle(x, 5), atol=1e-12)


@pytest.mark.parametrize("size", SIZES)
def test_the_inverse_undoes_it_and_the_norm_stays(size: int) -> None:
    x = np.random.default_rng(size).normal(size=size)
    turned = rotated(x, 11)
    assert np.allclose(unrotated(turned, 11), x, atol=1e-12)
    assert np.linalg.norm(turned) == pytest.approx(np.linalg.norm(x), rel=1e-12)
    if size >= 64:
        assert not np.allclose(unrotated(turned, 12), x, atol=0.1)


def test_signs_are_balanced_and_follow_the_seed() -> None:
    signs = rotation._signs(2**14, 3)
    assert set(np.unique(signs)) == {-1.0, 1.0} and abs(signs.sum()) < 6 * 2**7
    assert np.array_equal(signs, rotation._signs(2**14, 3))
    assert abs(float(signs @ rotation._signs(2**14, 4))) < 6 * 2**7


def test_one_large_number_is_spread_evenly() -> None:
    x = np.zeros(1024)
    x[77] = 32.0
    assert np.array_equal(np.abs(rotated(x, 1)), np.ones(1024))


def test_every_round_has_a_seed_of_its_own() -> None:
    assert len({rotation_seed(s, r) for s in range(5) for r in range(5)}) == 25
