"""The vote of the nearest, against a plain loop, and what a label file may hold."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from common.errors import EvaluationError
from common.evaluation.quality import knn as module
from common.evaluation.quality.knn import TASK, Labels, labels_of, predicted, read_labels
from common.table import EmbeddingTable


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def slow(support: np.ndarray, classes: np.ndarray, query: np.ndarray, k: int) -> list[int]:
    found = []
    for vector in query:
        order = sorted(range(len(support)), key=lambda i: -float(support[i] @ vector))[:k]
        votes = Counter(int(classes[i]) for i in order)
        most = max(votes.values())
        found.append(next(int(classes[i]) for i in order if votes[int(classes[i])] == most))
    return found


@pytest.mark.parametrize("k", [1, 2, 5, 100])
def test_predictions_equal_a_loop(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(k)
    support, query = unit(rng.normal(size=(40, 3))), unit(rng.normal(size=(25, 3)))
    classes = rng.integers(0, 4, 40)
    found = predicted(support, classes, query, k=k)
    assert found.tolist() == slow(support, classes, query, k)
    assert found.tolist() != slow(support, np.roll(classes, 1), query, k)
    monkeypatch.setattr(module, "_CHUNK_SCORES", 100)
    assert np.array_equal(predicted(support, classes, query, k=k), found)


def test_a_key_does_not_vote_for_itself() -> None:
    """Pairs of one class each: with its own vote every key would be right at k = 1, and here every key is wrong."""
    vectors = unit(np.array([[1, 0], [1, 0.01], [0, 1], [0.01, 1]]))
    table = EmbeddingTable(("a", "b", "c", "d"), vectors)
    labels = Labels(table.keys, ("x", "y", "x", "y"), ("",) * 4)
    assert TASK.score(table, labels, seed=0, k=1)[0].value == 0.0
    assert predicted(vectors, np.array([0, 1, 0, 1]), vectors, k=1).tolist() == [0, 1, 0, 1]


def test_support_and_query_and_coverage() -> None:
    rng = np.random.default_rng(0)
    classes = np.arange(60) % 3
    vectors = np.eye(3)[classes] + 0.2 * rng.normal(size=(60, 3))
    keys, labels = labels_of(classes.tolist(), ["support" if i < 30 else "query" for i in range(60)])
    (score,) = TASK.score(EmbeddingTable(keys, vectors.astype(np.float32)), labels, seed=0)
    assert score.metric == "accuracy@5" and score.n == 30 and score.coverage == 1.0
    assert score.value > 0.9 and score.baseline_value == pytest.approx(1 / 3) and score.beats_baseline
    part = EmbeddingTable(keys[:45], vectors[:45].astype(np.float32))
    assert TASK.score(part, labels, seed=0)[0].coverage == 0.5


def test_label_files(tmp_path: Path) -> None:
    path = tmp_path / "labels.tsv"
    path.write_text("a\tx\tsupport\nb\ty\tquery\n\n", encoding="utf-8")
    assert read_labels(path) == Labels(("a", "b"), ("x", "y"), ("support", "query"))
    table = EmbeddingTable(("a", "b"), np.eye(2, dtype=np.float32))
    assert TASK.score(table, path, seed=0)[0].value == 0.0


@pytest.mark.parametrize(
    "text",
    ["", "a\n", "a\t\n", "\tx\n", "a\tx\ty\n", "a\tx\nb\ty\tquery\n", "a\tx\na\ty\n", "a\tx\tquery\tz\n", "\ud800"],
)
def test_malformed_label_files_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "labels.tsv"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(EvaluationError, match=r"labels\.tsv"):
        read_labels(path)


def test_refusals() -> None:
    table = EmbeddingTable(("a", "b"), np.eye(2, dtype=np.float32))
    with pytest.raises(EvaluationError, match="needs classes"):
        TASK.score(table, None, seed=0)
    for keys, parts in ((("x", "y"), ("", "")), (("a", "y"), ("", "")), (("a", "b"), ("query", "query"))):
        with pytest.raises(EvaluationError, match="too few"):
            TASK.score(table, Labels(keys, ("1", "2"), parts), seed=0)
