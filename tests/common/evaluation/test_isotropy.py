"""Isotropy in one pass, against each paper's formula on the whole matrix, and rows of a known spread."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import EvaluationError
from common.evaluation.quality import _rows, load
from common.evaluation.quality.isotropy import isoscore, mean_cosine, measured, participation_ratio, partition_error
from common.table import EmbeddingTable

TASK = load("isotropy")


def table_of(vectors: np.ndarray) -> EmbeddingTable:
    return EmbeddingTable(tuple(map(str, range(len(vectors)))), vectors.astype(np.float32))


def formula_vectors(rows: int = 400, columns: int = 12) -> np.ndarray:
    i, j = np.arange(1, rows + 1)[:, None], np.arange(1, columns + 1)[None, :]
    vectors = np.cos(0.37 * i * (j + 1) + 0.1 * j * j) / np.sqrt(j) + 0.15 * np.sin(i * 1.7) + 0.2
    return vectors.astype(np.float32)


def slow_isoscore(vectors: np.ndarray) -> float:
    """Rudman et al. 2022, algorithm 1, step by step."""
    n = vectors.shape[1]
    _, axes = np.linalg.eigh(np.cov(vectors.T))
    variance = np.diag(np.cov((vectors @ axes).T))
    normed = math.sqrt(n) * variance / np.linalg.norm(variance)
    defect = np.linalg.norm(normed - 1) / math.sqrt(2 * (n - math.sqrt(n)))
    used = (n - defect**2 * (n - math.sqrt(n))) ** 2 / n**2
    return float((n * used - 1) / (n - 1))


def slow_partition(vectors: np.ndarray) -> float:
    """Mu and Viswanath 2018: one eigenvector and one row at a time."""
    unit = [row / np.linalg.norm(row) for row in vectors.astype(np.float64)]
    _, axes = np.linalg.eigh(sum(np.outer(row, row) for row in unit))
    sums = [sum(math.exp(float(sign * axis @ row)) for row in unit) for axis in axes.T for sign in (1, -1)]
    return min(sums) / max(sums)


def slow_cosine(vectors: np.ndarray) -> float:
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = unit @ unit.T
    return float(np.mean(cosines[~np.eye(len(unit), dtype=bool)]))


def figures(table: EmbeddingTable, seed: int = 0) -> dict[str, float]:
    return {score.metric: score.value for score in TASK.score(table, None, seed=seed)}


@settings(max_examples=12, deadline=None)
@given(st.integers(10, 70), st.integers(2, 9), st.integers(0, 10**6), st.floats(0, 3))
def test_equals_the_papers(rows: int, d: int, seed: int, shift: float) -> None:
    rng = np.random.default_rng(seed)
    vectors = (rng.normal(size=(rows, d)) * rng.uniform(0.1, 2, d) + shift).astype(np.float32)
    found = figures(table_of(vectors))
    wide = vectors.astype(np.float64)
    assert found["isoscore"] == pytest.approx(slow_isoscore(wide), abs=1e-6)
    assert found["partition_isotropy"] == pytest.approx(slow_partition(wide), rel=1e-5)
    assert found["mean_cosine"] == pytest.approx(slow_cosine(wide), abs=1e-6)


def test_equals_the_authors_isoscore() -> None:
    """IsoScore 2.0.1 (the authors' package, torch 2.13): IsoScore(formula_vectors() in double precision)."""
    assert figures(table_of(formula_vectors()))["isoscore"] == pytest.approx(0.47101119021434834, abs=1e-6)


def test_pieces_groups_and_scale_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = formula_vectors()
    whole = figures(table_of(vectors))
    assert figures(table_of(64 * vectors)) == pytest.approx(whole, rel=1e-5)
    monkeypatch.setattr(_rows, "CHUNK_BYTES", 2000)
    monkeypatch.setattr(_rows, "GROUPS", 7 * 2)
    assert figures(table_of(vectors)) == pytest.approx(whole, rel=1e-9)
    assert figures(table_of(vectors[::-1]), seed=5) == pytest.approx(whole, rel=1e-9)


def test_one_sign_of_the_eigenvectors_would_miss_half_of_a_common_direction() -> None:
    vectors = np.random.default_rng(0).normal(size=(2000, 8)) + np.array([2.0] + [0.0] * 7)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    _, axes = np.linalg.eigh(unit.T @ unit)
    sums = np.exp(unit @ axes).sum(axis=0)
    found = figures(table_of(vectors))["partition_isotropy"]
    assert found == pytest.approx((sums.min() / sums.max()) ** 2, rel=0.15)
    assert found < 0.8 * sums.min() / sums.max()


def test_known_spreads() -> None:
    rng = np.random.default_rng(0)
    for used in (1, 3, 10):
        scale = np.where(np.arange(10) < used, 1.0, 1e-4)
        found = figures(table_of(rng.normal(size=(20_000, 10)) * scale))
        assert found["isoscore"] == pytest.approx((used - 1) / 9, abs=0.01)
    assert participation_ratio(np.diag([1.0, 1.0, 0.0])) == pytest.approx(2)
    assert isoscore(np.eye(5)) == pytest.approx(1)
    assert math.isnan(participation_ratio(np.zeros((3, 3))))
    assert mean_cosine(np.array([0.0, 0.0]), 2) == -1


def test_score_fields_and_baseline() -> None:
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(3000, 16)) * np.linspace(0.2, 1, 16) + 0.3
    vectors[:300] = 0
    scores = TASK.score(table_of(vectors), None, seed=0)
    assert [s.metric for s in scores] == ["partition_isotropy", "isoscore", "mean_cosine"]
    assert [s.higher_is_better for s in scores] == [True, True, False]
    for score in scores:
        assert score.ci_low < score.value < score.ci_high and score.n == 2700 and score.coverage == 0.9
        assert score.baseline_name == "random table" and score.beats_baseline is False
    best = {s.metric: s.baseline_value for s in scores}
    assert best["partition_isotropy"] > 0.9 and best["isoscore"] > 0.97 and abs(best["mean_cosine"]) < 0.01
    assert scores == TASK.score(table_of(vectors), None, seed=0)


def test_intervals_cover_the_truth_and_are_as_wide_as_they_should_be() -> None:
    """IsoScore and mean cosine of Gaussian rows are known; of all three, tables of one kind differ as is said."""
    scale = np.array([1.0, 1.0, 2.0, 0.5])
    many = np.random.default_rng(100).normal(size=(400_000, 4)) * scale + 0.5
    unit = many / np.linalg.norm(many, axis=1, keepdims=True)
    truth = np.array([isoscore(np.diag(scale**2)), mean_cosine(unit.sum(axis=0), len(unit))])
    values, errors = [], []
    for trial in range(40):
        table = table_of(np.random.default_rng(trial).normal(size=(500, 4)) * scale + 0.5)
        value, error = measured(_rows.table_rows(table, np.arange(500)), trial, errors=True)
        error[0] = partition_error(table, np.arange(500), trial)
        values.append(value)
        errors.append(error)
    hits = np.sum(np.abs(np.array(values)[:, 1:] - truth) <= 1.96 * np.array(errors)[:, 1:], axis=0)
    assert np.all(hits >= 35), hits
    ratio = np.mean(errors, axis=0) / np.std(values, axis=0)
    assert np.all((ratio > 0.8) & (ratio < 1.25)), ratio


@pytest.mark.parametrize(
    ("vectors", "said"),
    [
        (np.ones((50, 4)), "same way"),
        (np.arange(1, 51)[:, None] * np.ones((50, 4)), "same way"),
        (np.zeros((50, 4)), "has 0"),
        (np.eye(9), "has 9"),
        (np.zeros((0, 4)), "has 0"),
        (np.random.default_rng(0).normal(size=(50, 1)), "2 columns"),
        (np.full((50, 4), np.nan), "NaN"),
        (np.where(np.arange(200).reshape(50, 4) == 77, np.inf, 1.0), "NaN"),
    ],
)
def test_degenerate_tables_are_refused(vectors: np.ndarray, said: str) -> None:
    with pytest.raises(EvaluationError, match=said):
        TASK.score(table_of(vectors), None, seed=0)
