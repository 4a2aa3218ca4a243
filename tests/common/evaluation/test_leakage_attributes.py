"""The attribute probe: a planted attribute is found, nothing is found where nothing is, and no label is looked at."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import StandardScaler

from common.errors import EvaluationError
from common.evaluation.leak import Leak
from common.evaluation.leakage import attributes as module
from common.evaluation.leakage.attributes import ATTACK, FOLDS, folds_of, labelled, probe, standardised
from common.evaluation.view import Truth, View
from common.table import EmbeddingTable

ROWS, COLUMNS = 150, 12


def table(vectors: np.ndarray) -> EmbeddingTable:
    return EmbeddingTable(tuple(map(str, range(len(vectors)))), vectors.astype(np.float32))


def measured(vectors: np.ndarray, labels: dict[int, int], seed: int = 0) -> Leak:
    (found,) = ATTACK.run(View(5, np.ones(len(vectors)), table=table(vectors)), Truth(labels=labels), seed=seed)
    return found


def planted(strength: float, seed: int = 0) -> tuple[np.ndarray, dict[int, int]]:
    rng = np.random.default_rng(seed)
    labels = {row: row % 3 for row in range(0, ROWS, 2)}
    vectors = rng.normal(size=(ROWS, COLUMNS))
    vectors += strength * rng.normal(size=(3, COLUMNS))[np.arange(ROWS) % 3]
    return vectors, labels


def test_a_planted_attribute_is_found() -> None:
    found = measured(*planted(3.0))
    assert found.value > 0.95 and found.above_chance and found.n == 75
    assert found.chance_name == "most frequent label" and found.chance_value == pytest.approx(1 / 3)
    assert (found.attack, found.sees, found.metric, found.promised) == ("attributes", "table", "accuracy", False)


@pytest.mark.parametrize("vectors", [planted(0.0)[0], np.zeros((ROWS, COLUMNS)), np.full((ROWS, COLUMNS), 0.1)])
def test_nothing_is_found_where_nothing_is(vectors: np.ndarray) -> None:
    found = measured(vectors, planted(0.0)[1])
    assert not found.above_chance and found.ci_low <= found.chance_value <= found.ci_high


def test_no_row_is_guessed_by_a_probe_that_saw_its_label() -> None:
    """With more columns than rows a probe that peeks is always right, on vectors that hold nothing."""
    vectors, labels = np.random.default_rng(1).normal(size=(60, 200)), {row: row % 2 for row in range(60)}
    known = np.arange(60) % 2
    peeking = probe(vectors, known).predict(standardised(vectors, vectors))
    assert np.mean(peeking == known) == 1.0
    found = measured(vectors, labels)
    assert found.ci_low < 0.5 < found.ci_high


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), sizes=st.lists(st.integers(1, 23), min_size=1, max_size=5))
def test_labels_are_dealt_out_evenly(seed: int, sizes: list[int]) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    fold = folds_of(labels, seed=seed)
    assert set(fold.tolist()) <= set(range(FOLDS))
    for label, size in enumerate(sizes):
        counts = np.bincount(fold[labels == label], minlength=FOLDS)
        assert counts.sum() == size and counts.max() - counts.min() <= 1


def test_columns_are_standardised_as_scikit_learn_does() -> None:
    rng = np.random.default_rng(2)
    known, asked = (rng.normal(3.0, 5.0, size=(n, 4)).astype(np.float32) for n in (30, 7))
    known[:, 2] = asked[:, 2] = 1.0
    expected = StandardScaler().fit(known.astype(np.float64)).transform(asked.astype(np.float64))
    assert np.allclose(standardised(known, asked), expected, atol=1e-6)


def test_numbers_of_labels_mean_nothing_and_a_seed_repeats() -> None:
    vectors, labels = planted(1.0)
    renumbered = {row: [70, -4, 12][label] for row, label in labels.items()}
    first, again = measured(vectors, labels), measured(vectors, labels)
    assert first == again
    assert measured(vectors, renumbered).value == pytest.approx(first.value, abs=0.1)


def test_too_many_labels_are_drawn_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_ROWS", 40)
    rows, numbers = labelled({row: row % 3 for row in range(100)}, 100, seed=0)
    assert len(rows) == len(numbers) == 40 and np.all(np.diff(rows) > 0)
    assert np.array_equal(numbers, rows % 3)


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ({}, "labels of rows"),
        ({row: row % 2 for row in range(ROWS - 10, ROWS + 10)}, "does not have"),
        ({row: row % 2 for row in range(-1, 30)}, "does not have"),
        ({row: row % 2 for row in range(19)}, "19 labelled rows"),
        (dict.fromkeys(range(30), 0), "two labels"),
        ({row: int(row == 3) for row in range(30)}, "two labels"),
    ],
)
def test_what_cannot_be_judged_is_refused(labels: dict[int, int], told: str) -> None:
    with pytest.raises(EvaluationError, match=told):
        measured(np.zeros((ROWS, COLUMNS)), labels)


def test_without_a_table_the_attack_does_not_run() -> None:
    with pytest.raises(EvaluationError, match="released table"):
        ATTACK.run(View(5, np.ones(3)), Truth(labels={0: 1}), seed=0)
