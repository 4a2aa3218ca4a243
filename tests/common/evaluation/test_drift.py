"""Drift between two tables, against scipy's Procrustes and a loop over neighbour lists."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import orthogonal_procrustes

from common.errors import EvaluationError
from common.evaluation import drift as module
from common.evaluation.drift import aligned_cosine, cross_products, drift, overlaps, residual
from common.table import EmbeddingTable


def table_of(vectors: np.ndarray, keys: tuple[str, ...] | None = None) -> EmbeddingTable:
    return EmbeddingTable(keys or tuple(f"k{i}" for i in range(len(vectors))), vectors.astype(np.float32))


def unit_of(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def turned(vectors: np.ndarray, seed: int, noise: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(rng.normal(size=(vectors.shape[1],) * 2))
    return vectors @ turn + noise * rng.normal(size=vectors.shape)


def slow_residual(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Residual and mean cosine after the rotation that scipy finds."""
    a, b = unit_of(first).astype(np.float64), unit_of(second).astype(np.float64)
    moved = b @ orthogonal_procrustes(b, a)[0]
    return float(np.linalg.norm(a - moved) / np.linalg.norm(a)), float(np.mean(np.sum(a * moved, axis=1)))


def slow_overlap(first: np.ndarray, second: np.ndarray, k: int) -> list[float]:
    lists = []
    for unit in (unit_of(first).astype(float), unit_of(second).astype(float)):
        near = [
            sorted((j for j in range(len(unit)) if j != i), key=lambda j: -unit[i] @ unit[j]) for i in range(len(unit))
        ]
        lists.append([set(one[:k]) for one in near])
    return [len(a & b) / k for a, b in zip(*lists, strict=True)]


@settings(max_examples=12, deadline=None)
@given(st.integers(20, 60), st.integers(2, 7), st.floats(0, 2), st.integers(0, 10**6))
def test_figures_equal_scipy_and_a_loop(n: int, d: int, noise: float, seed: int) -> None:
    first = np.random.default_rng(seed).normal(size=(n, d))
    second = turned(first, seed, noise)
    found = {s.metric: s.value for s in drift(table_of(first), table_of(second)).scores}
    off, cosine = slow_residual(first, second)
    assert found["procrustes_cosine"] == pytest.approx(cosine, abs=1e-6)
    assert found["procrustes_residual"] == pytest.approx(off, abs=2e-3 if off < 0.01 else 1e-5)
    assert found["neighbor_overlap@10"] == pytest.approx(np.mean(slow_overlap(first, second, 10)), abs=0.02)


def test_overlap_of_each_row_equals_a_loop() -> None:
    first = np.random.default_rng(0).normal(size=(80, 5))
    second = turned(first, 1, 0.4)
    found = overlaps(unit_of(first), unit_of(second), np.arange(80), k=7)
    assert found.tolist() == slow_overlap(first, second, 7)
    assert found[[3, 60]].tolist() == overlaps(unit_of(first), unit_of(second), np.array([3, 60]), k=7).tolist()
    assert slow_overlap(first, np.roll(second, 1, axis=0), 7) != found.tolist()


def test_a_turned_table_has_not_moved_and_an_unrelated_one_is_at_the_baseline() -> None:
    first = np.random.default_rng(0).normal(size=(600, 10))
    same = drift(table_of(first), table_of(turned(first, 1)))
    assert same.scores[0].value == pytest.approx(0, abs=2e-3) and same.scores[2].value > 0.999
    other = drift(table_of(first), table_of(np.random.default_rng(9).normal(size=(600, 10))))
    for score in other.scores:
        assert abs(score.value - score.baseline_value) < 0.02
    assert other.scores[2].baseline_value == 10 / 599
    half = drift(table_of(first), table_of(turned(first, 1, 0.5)))
    for score in half.scores:
        assert score.beats_baseline and score.ci_low < score.value < score.ci_high
    assert [s.higher_is_better for s in half.scores] == [False, True, True]
    without_turning = np.mean(np.sum(unit_of(first) * unit_of(turned(first, 1)), axis=1))
    assert abs(without_turning) < 0.5  # what comparing coordinates would say of the same table


def test_keys_are_matched_and_counted() -> None:
    first = np.random.default_rng(0).normal(size=(100, 6))
    before = table_of(first)
    order = np.random.default_rng(1).permutation(np.arange(20, 100))
    vectors = np.concatenate([turned(first, 2)[order], np.random.default_rng(3).normal(size=(30, 6))])
    after = table_of(vectors, tuple(f"k{i}" for i in order) + tuple(f"new{i}" for i in range(30)))
    moved = drift(before, after)
    assert (moved.shared, moved.added, moved.removed) == (80, 30, 20)
    assert moved.scores[1].value == pytest.approx(1, abs=1e-5) and moved.scores[2].value > 0.99
    assert [(s.n, s.coverage) for s in moved.scores] == [(80, 80 / 130)] * 3
    back = drift(after, before)
    assert (back.added, back.removed) == (20, 30)
    assert [s.value for s in back.scores] == pytest.approx([s.value for s in moved.scores], abs=2e-3)


def test_zero_rows_have_no_direction_and_lower_the_coverage() -> None:
    first = np.random.default_rng(0).normal(size=(60, 6))
    second = turned(first, 1)
    first[3], second[5] = 0, 0
    moved = drift(table_of(first), table_of(second))
    assert moved.shared == 60 and moved.scores[0].n == 58 and moved.scores[0].coverage == 58 / 60


def test_tables_of_different_dimension() -> None:
    first = np.random.default_rng(0).normal(size=(300, 6))
    wide = np.concatenate([first, np.zeros((300, 4))], axis=1)
    assert drift(table_of(first), table_of(turned(wide, 1))).scores[1].value == pytest.approx(1, abs=1e-5)
    assert drift(table_of(turned(wide, 1)), table_of(first)).scores[1].value == pytest.approx(1, abs=1e-5)


def test_pieces_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (unit_of(np.random.default_rng(i).normal(size=(300, 6))) for i in range(2))
    whole = cross_products(first, second, 0)
    monkeypatch.setattr(module._rows, "CHUNK_BYTES", 1000)
    assert np.allclose(cross_products(first, second, 0), whole, atol=1e-12)
    assert np.allclose(whole.sum(axis=0), first.astype(float).T @ second.astype(float))


def test_residual_and_cosine_say_the_same() -> None:
    assert residual(1.0) == 0 and residual(1 + 1e-12) == 0 and residual(0.0) == pytest.approx(math.sqrt(2))
    assert aligned_cosine(np.diag([3.0, -2.0]), 5) == 1.0


def test_the_interval_of_the_alignment_covers_the_truth() -> None:
    d, noise = 4, 0.5

    def pair(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        first = rng.normal(size=(n, d))
        return unit_of(first), unit_of(first + noise * rng.normal(size=first.shape))

    first, second = pair(200_000, 100)
    truth = float(np.mean(np.sum(first * second, axis=1, dtype=float)))  # the best rotation of so many is none
    scores = [module._alignment(*pair(400, trial), 1.0, trial)[1] for trial in range(30)]
    assert sum(s.ci_low <= truth <= s.ci_high for s in scores) >= 26
    width = np.mean([(s.ci_high - s.ci_low) / (2 * 1.96) for s in scores])
    assert 0.8 < width / np.std([s.value for s in scores]) < 1.25


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (np.ones((50, 4)), np.random.default_rng(0).normal(size=(50, 4)), "same way"),
        (np.random.default_rng(0).normal(size=(50, 4)), np.ones((50, 4)), "same way"),
        (np.random.default_rng(0).normal(size=(19, 4)), np.random.default_rng(0).normal(size=(50, 4)), "share 19"),
        (
            np.random.default_rng(0).normal(size=(30, 30)),
            np.random.default_rng(1).normal(size=(30, 30)),
            "31 are needed",
        ),
        (np.zeros((50, 4)), np.random.default_rng(0).normal(size=(50, 4)), "share 0"),
        (np.full((50, 4), np.nan), np.random.default_rng(0).normal(size=(50, 4)), "NaN"),
        (np.zeros((0, 4)), np.random.default_rng(0).normal(size=(50, 4)), "share 0"),
    ],
)
def test_degenerate_pairs_are_refused(first: np.ndarray, second: np.ndarray, said: str) -> None:
    with pytest.raises(EvaluationError, match=said):
        drift(table_of(first), table_of(second))


def test_disjoint_keys_are_refused() -> None:
    first = np.random.default_rng(0).normal(size=(50, 4))
    with pytest.raises(EvaluationError, match="share 0 keys"):
        drift(table_of(first), table_of(first, tuple(f"other{i}" for i in range(50))))
