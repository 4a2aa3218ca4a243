"""Counts of neighbour lists against a loop, the three figures against their formulas, and planted hubs."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import EvaluationError
from common.evaluation.quality import _rows, load
from common.evaluation.quality.hubness import occurrences, standard_errors, uneven
from common.table import EmbeddingTable

TASK = load("hubness")


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors from 20 parts of a hundred rows: 40 searches among a thousand take a second."""
    monkeypatch.setattr(_rows.subsample_errors, "__kwdefaults__", {"most": 100})
    monkeypatch.setattr(_rows, "SUBSAMPLES", 20)


def table_of(vectors: np.ndarray) -> EmbeddingTable:
    return EmbeddingTable(tuple(map(str, range(len(vectors)))), vectors.astype(np.float32))


def unit_of(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def slow_occurrences(unit: np.ndarray, k: int) -> list[int]:
    counts = [0] * len(unit)
    for i in range(len(unit)):
        others = [j for j in range(len(unit)) if j != i]
        for j in sorted(others, key=lambda j: -float(unit[i].astype(float) @ unit[j].astype(float)))[:k]:
            counts[j] += 1
    return counts


@pytest.mark.parametrize("k", [1, 10, 39])
def test_occurrences_equal_a_loop(k: int) -> None:
    unit = unit_of(np.random.default_rng(k).normal(size=(40, 6)))
    counts = occurrences(unit, k=k)
    assert counts.tolist() == slow_occurrences(unit, k)
    assert counts.sum() == 40 * k and counts.max() <= 39  # a row that were its own neighbour would have 40


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=2, max_size=40).filter(any))
def test_figures_equal_their_formulas(counts: list[int]) -> None:
    array = np.array(counts)
    skewness, hoover, absent = uneven(array)
    spread = array.std()
    expected = scipy.stats.skew(array) if spread > 0 else 0.0
    assert skewness == pytest.approx(expected, abs=1e-9)
    mean = sum(counts) / len(counts)
    assert hoover == pytest.approx(sum(abs(c - mean) for c in counts) / (2 * sum(counts)))
    assert absent == pytest.approx(counts.count(0) / len(counts))


def test_planted_hubs_are_seen() -> None:
    """Rows about one direction and three rows along it: everybody's neighbours, until they are removed."""
    rng = np.random.default_rng(0)
    rows = unit_of(rng.normal(size=(400, 200)) + 1.0)
    hubs = unit_of(1.0 + 0.01 * rng.normal(size=(3, 200)))
    with_hubs = {s.metric: s for s in TASK.score(table_of(np.concatenate([rows, hubs])), None, seed=0)}
    without = {s.metric: s for s in TASK.score(table_of(rows), None, seed=0)}
    assert with_hubs["skewness@10"].value > 3 * without["skewness@10"].value
    assert with_hubs["robin_hood@10"].value > without["robin_hood@10"].value + 0.05
    assert with_hubs["antihubs@10"].value > without["antihubs@10"].value


def test_score_fields() -> None:
    vectors = np.random.default_rng(3).normal(size=(600, 20)) + 0.4
    vectors[0] = 0
    scores = TASK.score(table_of(vectors), None, seed=0)
    assert [s.metric for s in scores] == ["skewness@10", "robin_hood@10", "antihubs@10"]
    for score in scores:
        assert score.ci_low <= score.value <= score.ci_high and score.ci_low < score.ci_high
        assert (score.n, score.coverage) == (599, 599 / 600) and not score.higher_is_better
        assert score.beats_baseline is False and 0 <= score.baseline_value < score.value
    assert scores == TASK.score(table_of(vectors), None, seed=0)


def test_a_large_table_is_sampled_by_the_public_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = np.random.default_rng(3).normal(size=(900, 8))
    whole = TASK.score(table_of(vectors), None, seed=0)
    with monkeypatch.context() as patch:
        patch.setattr(_rows.public_sample, "__kwdefaults__", {"most": 300})
        sampled = TASK.score(table_of(vectors), None, seed=0)
    assert [(s.n, s.coverage) for s in sampled] == [(300, pytest.approx(1 / 3))] * 3
    kept = np.sort(np.random.default_rng(0).choice(900, 300, replace=False))
    assert [s.value for s in sampled] == [s.value for s in TASK.score(table_of(vectors[kept]), None, seed=0)]
    assert sampled[1].value == pytest.approx(whole[1].value, abs=0.05)


def test_standard_errors_are_as_large_as_tables_of_one_kind_differ() -> None:
    values, errors = [], []
    for trial in range(30):
        unit = unit_of(np.random.default_rng(trial).normal(size=(400, 8)) + 0.3)
        values.append(uneven(occurrences(unit)))
        errors.append(standard_errors(unit, trial))
    ratio = np.mean(errors, axis=0) / np.std(values, axis=0)
    assert np.all((ratio[:2] > 0.75) & (ratio[:2] < 1.4)), ratio  # 2/3 or 3/2 of it would be noticed


@pytest.mark.parametrize(
    ("vectors", "said"),
    [
        (np.ones((50, 4)), "same way"),
        (np.arange(1, 51)[:, None] * np.ones((50, 4)), "same way"),
        (np.zeros((50, 4)), "has 0"),
        (np.random.default_rng(0).normal(size=(39, 4)), "has 39"),
        (np.full((50, 4), np.nan), "NaN"),
    ],
)
def test_degenerate_tables_are_refused(vectors: np.ndarray, said: str) -> None:
    with pytest.raises(EvaluationError, match=said):
        TASK.score(table_of(vectors), None, seed=0)
