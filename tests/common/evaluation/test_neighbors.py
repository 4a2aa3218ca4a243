"""The search in pieces, against sorting all cosines, on tables where rounding and ties would show."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import DependencyError, EvaluationError
from common.evaluation import neighbors
from common.evaluation.neighbors import nearest

FAISS = pytest.mark.skipif(importlib.util.find_spec("faiss") is None, reason="faiss is not installed")
ENGINES = ("numpy", pytest.param("faiss", marks=FAISS))


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def slow(queries: np.ndarray, rows: np.ndarray, k: int, own: np.ndarray | None) -> list[list[int]]:
    """Sort every row by falling cosine, then by number."""
    found = []
    for q, query in enumerate(queries):
        cosines = [float((row.astype(np.float64) * query.astype(np.float64)).sum()) for row in rows]
        order = sorted((-c, i) for i, c in enumerate(cosines) if own is None or i != own[q])
        found.append([i for _, i in order[:k]])
    return found


def hard(kind: str, n: int = 90, d: int = 5) -> np.ndarray:
    rng = np.random.default_rng(n + d)
    if kind == "twins":  # every vector thirty times: more equal cosines than any proposal has room for
        return unit(np.repeat(rng.normal(size=(n // 30, d)), 30, axis=0))[rng.permutation(n)]
    if kind == "bundle":  # cosines that differ by less than float32 can say
        return unit(np.ones((n, d)) + 1e-4 * rng.normal(size=(n, d)))
    return unit(rng.normal(size=(n, d)))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["plain", "twins", "bundle"])
@pytest.mark.parametrize("k", [1, 10, 89])
def test_equals_sorting(kind: str, k: int, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = hard(kind)
    own = np.arange(len(rows))
    found = nearest(rows, rows, k=k, own=own, engine=engine)
    assert found.rows.tolist() == slow(rows, rows, k, own)
    assert np.all(np.diff(found.cosines, axis=1) <= 0)
    monkeypatch.setattr(neighbors, "MAX_SCORE_BYTES", 4000)
    monkeypatch.setattr(neighbors, "MAX_EXACT_BYTES", 4000)
    again = nearest(rows, rows, k=k, own=own, engine=engine)
    assert np.array_equal(again.rows, found.rows) and np.array_equal(again.cosines, found.cosines)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 80), st.integers(1, 6), st.integers(1, 12), st.integers(0, 10**6))
def test_any_shape_equals_sorting(rows: int, d: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = unit(rng.integers(-2, 3, size=(rows, d)) + 0.01 * rng.integers(1, 4, size=(rows, d)))
    queries = unit(rng.normal(size=(7, d)) + 0.1)
    if k <= rows:
        assert nearest(queries, table, k=k, engine="numpy").rows.tolist() == slow(queries, table, k, None)


@pytest.mark.parametrize("kind", ["twins", "bundle"])
def test_without_the_second_search_the_answer_is_wrong(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = hard(kind)
    own = np.arange(len(rows))
    monkeypatch.setattr(neighbors, "_search_again", lambda *_: None)
    assert nearest(rows, rows, k=10, own=own, engine="numpy").rows.tolist() != slow(rows, rows, 10, own)


def test_a_plain_table_needs_no_second_search(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = hard("plain", 2000, 24)
    monkeypatch.setattr(neighbors, "_search_again", lambda *_: pytest.fail("searched again"))
    near = nearest(rows, rows, k=10, own=np.arange(2000), engine="numpy").rows
    assert near[:5].tolist() == slow(rows[:5], rows, 10, np.arange(5))


def test_scores_stay_within_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    held = []
    full = np.full
    monkeypatch.setattr(neighbors.np, "full", lambda *a, **k: held.append(full(*a, **k)) or held[-1])
    monkeypatch.setattr(neighbors, "MAX_SCORE_BYTES", 1 << 16)
    rows = hard("plain", 1000, 4)
    nearest(rows, rows, k=3, own=np.arange(1000), engine="numpy")
    assert held and max(array.nbytes for array in held) <= 1 << 16


@FAISS
def test_faiss_and_numpy_agree_to_the_last_bit() -> None:
    rows = hard("plain", 3000, 32)
    one, other = (nearest(rows, rows, k=10, own=np.arange(3000), engine=engine) for engine in ("numpy", "faiss"))
    assert np.array_equal(one.rows, other.rows) and np.array_equal(one.cosines, other.cosines)


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = hard("plain", 10)
    for k, own in ((11, None), (10, np.arange(10)), (0, None)):
        with pytest.raises(EvaluationError, match="neighbours are asked for"):
            nearest(rows, rows, k=k, own=own)
    with pytest.raises(EvaluationError, match="no engine"):
        nearest(rows, rows, k=1, engine="annoy")
    for bad in (np.nan, np.inf):
        broken = rows.copy()
        broken[3, 1] = bad
        for pair in ((rows, broken), (broken, rows)):
            with pytest.raises(EvaluationError, match="NaN"):
                nearest(*pair, k=1)
    monkeypatch.setattr(neighbors.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(DependencyError, match="not installed"):
        nearest(rows, rows, k=1, engine="faiss")
    assert not neighbors.uses_faiss("auto", 10**6)
