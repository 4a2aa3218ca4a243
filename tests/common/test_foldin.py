"""Folding in, against the full weighted least-squares problem."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.foldin import fold_in

ROWS, DIMENSION = 23, 4


def table(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(ROWS, DIMENSION)).astype(np.float32)


def packed(lists: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.cumsum([0, *map(len, lists)]).astype(np.int64)
    return offsets, np.array([i for items in lists for i in items], dtype=np.int64)


def oracle(y: np.ndarray, items: list[int], *, alpha: float, ridge: float) -> np.ndarray:
    """Every item of the table is a row of the problem, with its confidence: nothing is taken apart."""
    y = y.astype(np.float64)
    had = np.isin(np.arange(len(y)), items).astype(np.float64)
    confidence = np.diag(1.0 + alpha * had)
    penalty = ridge * np.trace(y.T @ y) / y.shape[1] * np.eye(y.shape[1])
    return np.linalg.solve(y.T @ confidence @ y + penalty, y.T @ confidence @ had)


lists_of_items = st.lists(st.lists(st.integers(0, ROWS - 1), unique=True, max_size=12), min_size=1, max_size=9)


@settings(max_examples=40, deadline=None)
@given(lists=lists_of_items, alpha=st.floats(0, 20), ridge=st.floats(0.01, 5))
def test_equals_the_full_problem(lists: list[list[int]], alpha: float, ridge: float) -> None:
    offsets, items = packed(lists)
    found = fold_in(table(), offsets, items, alpha=alpha, ridge=ridge)
    expected = [oracle(table(), own, alpha=alpha, ridge=ridge) for own in lists]
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-4)


def test_the_oracle_sees_a_wrong_confidence() -> None:
    offsets, items = packed([[1, 5, 7]])
    found = fold_in(table(), offsets, items, alpha=3.0, ridge=0.1)
    assert not np.allclose(found[0], oracle(table(), [1, 5, 7], alpha=2.0, ridge=0.1), atol=1e-3)


def test_a_user_does_not_depend_on_the_others_bit_for_bit() -> None:
    rng = np.random.default_rng(0)
    lists = [sorted(rng.choice(ROWS, int(n), replace=False).tolist()) for n in rng.integers(0, ROWS, 40)]
    together = fold_in(table(), *packed(lists), alpha=1.0, ridge=0.1)
    for number, own in enumerate(lists):
        assert np.array_equal(fold_in(table(), *packed([own]), alpha=1.0, ridge=0.1)[0], together[number])


@pytest.mark.parametrize("scale", [1e-6, 1e4])
def test_ranking_does_not_depend_on_the_scale_of_the_table(scale: float) -> None:
    y = table().astype(np.float64)
    offsets, items = packed([[0, 3, 9]])
    plain = fold_in(y.astype(np.float32), offsets, items, alpha=1.0, ridge=0.1)
    scaled = fold_in((y * scale).astype(np.float32), offsets, items, alpha=1.0, ridge=0.1)
    np.testing.assert_allclose(scaled * scale, plain, rtol=1e-3)


def test_nothing_to_solve_gives_zeros() -> None:
    offsets, items = packed([[], [1]])
    assert not fold_in(table(), offsets, items, alpha=1.0, ridge=0.1)[0].any()
    assert not fold_in(np.zeros((ROWS, DIMENSION), np.float32), offsets, items, alpha=1.0, ridge=0.1).any()
    assert fold_in(table(), *packed([]), alpha=1.0, ridge=0.1).shape == (0, DIMENSION)
