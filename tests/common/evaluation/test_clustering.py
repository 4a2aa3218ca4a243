"""Agreement of labels and clusters against scikit-learn, and what is no clustering."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score, v_measure_score

from common.errors import EvaluationError
from common.evaluation.quality import clustering as module
from common.evaluation.quality import load as load_task
from common.evaluation.quality.clustering import TASK, agreement, clusters, contingency, intervals, read_labels
from common.table import EmbeddingTable


def slow_purity(classes: np.ndarray, found: np.ndarray) -> float:
    """Share of keys whose label is the most frequent of their cluster."""
    return sum(np.bincount(classes[found == c]).max() for c in set(found.tolist())) / len(classes)


def reference(classes: np.ndarray, found: np.ndarray) -> tuple[float, float, float]:
    return v_measure_score(classes, found), adjusted_rand_score(classes, found), slow_purity(classes, found)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), keys=st.integers(2, 60), labels=st.integers(1, 8), many=st.integers(1, 8))
def test_agreement_is_scikit_learn_s(seed: int, keys: int, labels: int, many: int) -> None:
    rng = np.random.default_rng(seed)
    classes, found = rng.integers(0, labels, keys), rng.integers(0, many, keys)
    assert agreement(contingency(classes, found)) == pytest.approx(reference(classes, found), abs=1e-9)
    nmi = normalized_mutual_info_score(classes, found)  # the same number under another name
    assert agreement(contingency(classes, found))[0] == pytest.approx(nmi, abs=1e-9)


def test_the_reference_sees_a_swapped_table() -> None:
    rng = np.random.default_rng(0)
    classes, found = rng.integers(0, 3, 50), rng.integers(0, 6, 50)
    turned = agreement(contingency(found, classes))
    assert turned[:2] == pytest.approx(reference(classes, found)[:2])  # both are symmetric, purity is not
    assert abs(turned[2] - reference(classes, found)[2]) > 0.05


def test_names_of_labels_and_clusters_do_not_matter() -> None:
    rng = np.random.default_rng(1)
    classes, found = rng.integers(0, 4, 60), rng.integers(0, 5, 60)
    other = agreement(contingency(np.array([9, 2, 5, 0])[classes], np.array([3, 8, 1, 7, 2])[found]))
    assert other == pytest.approx(agreement(contingency(classes, found)))
    assert agreement(contingency(classes, classes)) == pytest.approx((1.0, 1.0, 1.0))


def labels_file(path: Path, labels: list[object]) -> Path:
    path.write_text("".join(f"k{i}\t{label}\n" for i, label in enumerate(labels)), encoding="utf-8")
    return path


def grouped(size: int = 120, noise: float = 0.15) -> tuple[EmbeddingTable, np.ndarray]:
    rng, classes = np.random.default_rng(0), np.arange(size) % 4
    vectors = (np.eye(4)[classes] + noise * rng.normal(size=(size, 4))) * rng.uniform(0.1, 10, (size, 1))
    return EmbeddingTable(tuple(f"k{i}" for i in range(size)), vectors.astype(np.float32)), classes


def test_planted_groups_are_found_and_beat_a_random_table(tmp_path: Path) -> None:
    table, classes = grouped()
    path = labels_file(tmp_path / "groups.tsv", classes.tolist())
    scores = TASK.score(table, path, seed=0)
    assert [score.metric for score in scores] == ["v_measure", "adjusted_rand", "purity"]
    for score in scores:
        assert score.value == pytest.approx(1.0) and score.ci_low <= 1.0 == score.ci_high and score.beats_baseline
        assert (score.task, score.n, score.coverage) == ("clustering:groups", 120, 1.0)
        assert score.baseline_name == "random table"
    mixed = TASK.score(EmbeddingTable(table.keys, np.random.default_rng(1).permutation(table.vectors)), path, seed=0)
    assert not any(score.beats_baseline for score in mixed)
    assert abs(mixed[1].value) < 0.05 and mixed[0].value < 0.1
    assert scores == TASK.score(table, path, seed=0)


def test_intervals_hold_the_value_where_labels_mean_nothing() -> None:
    """Plain percentiles lie above the measured V-measure of unrelated labels: a resample has fewer distinct keys."""
    rng = np.random.default_rng(0)
    table = contingency(rng.integers(0, 10, 200), rng.integers(0, 10, 200))
    value = agreement(table)
    low, high = intervals(table, 0)
    assert all(a < v < b for a, v, b in zip(low, value, high, strict=True))
    resamples = [agreement(table._replace(keys=rng.multinomial(200, table.keys / 200)))[0] for _ in range(300)]
    assert np.quantile(resamples, 0.025) > value[0]


def test_intervals_cover_the_truth_of_a_population(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RESAMPLES", 200)
    rng, shares = np.random.default_rng(3), np.array([[0.3, 0.1, 0.0], [0.05, 0.2, 0.05], [0.0, 0.1, 0.2]])
    label, cluster = np.indices((3, 3)).reshape(2, -1)
    truth = agreement(module.Contingency(label, cluster, (shares.reshape(-1) * 10**6).astype(np.int64)))
    held = []
    for seed in range(25):
        keys = rng.multinomial(300, shares.reshape(-1))
        low, high = intervals(module.Contingency(label, cluster, keys), seed)
        held.append([a <= t <= b for a, t, b in zip(low, truth, high, strict=True)])
    assert np.all(np.mean(held, axis=0) >= 0.8)


def test_many_keys_go_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, classes = grouped(size=400)
    monkeypatch.setattr(module, "EXACT_KEYS", 100)
    monkeypatch.setattr(module, "BATCH", 64)
    scores = TASK.score(table, labels_file(tmp_path / "groups.tsv", classes.tolist()), seed=0)
    assert all(score.value > 0.95 for score in scores)


def test_fewer_distinct_vectors_than_labels_are_scored(tmp_path: Path) -> None:
    vectors = np.repeat(np.eye(2, dtype=np.float32), 6, axis=0)
    table = EmbeddingTable(tuple(f"k{i}" for i in range(12)), vectors)
    path = labels_file(tmp_path / "l.tsv", [0] * 3 + [1] * 3 + [2] * 6)
    scores = {score.metric: score.value for score in TASK.score(table, path, seed=0)}
    assert scores["purity"] == pytest.approx(0.75)
    assert len(set(clusters(vectors, 3, seed=0).tolist())) == 2


def test_missing_keys_lower_the_coverage(tmp_path: Path) -> None:
    table, classes = grouped()
    path = labels_file(tmp_path / "l.tsv", [*classes.tolist(), *range(40)])
    score = TASK.score(table, path, seed=0)[0]
    assert score.value == pytest.approx(1.0) and score.n == 120 and score.coverage == 0.75


@pytest.mark.data
def test_digits_cluster_as_scikit_learn_says(data_file: Callable[[str], Path], tmp_path: Path) -> None:
    """Fashion pictures as they are: the known level of k-means on pixels, and scikit-learn's figures for it."""
    with np.load(data_file("images/fashion_mnist_sprite900.npz"), allow_pickle=False) as file:
        images, labels = file["images"].reshape(900, -1), file["label"]
    table = EmbeddingTable(tuple(f"k{i}" for i in range(900)), images[:, ::4].astype(np.float32))
    scores = TASK.score(table, labels_file(tmp_path / "fashion.tsv", labels.tolist()), seed=0)
    unit = table.unit_vectors
    expected = reference(labels.astype(np.int64), clusters(unit, 10, seed=0))
    assert [score.value for score in scores] == pytest.approx(expected, abs=1e-9)
    assert all(score.beats_baseline for score in scores) and 0.4 < scores[0].value < 0.7


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("a\n", "line 1: expected"),
        ("a b\n", "line 1: expected"),
        ("a\tx\tz\n", "line 1: expected"),
        ("\tx\n", "line 1: expected"),
        ("a\t\n", "line 1: expected"),
        ("a\tx\n\nb\ty\na\tx\n", "line 4: a key is labelled twice"),
        ("\ud800\tx\n", "cannot read"),
    ],
)
def test_malformed_files_are_refused_by_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "bad.tsv"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(EvaluationError, match=said):
        read_labels(path)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["x"] * 5, "5 of 5 keys, of 1 labels"),
        (["a", "b", "c", "d", "e"], "5 of 5 keys, of 5 labels"),
        (["a", "b", "a", "b", "a"], "the vectors of all covered keys are equal"),
    ],
)
def test_what_is_no_clustering_is_refused(tmp_path: Path, labels: list[str], said: str) -> None:
    table = EmbeddingTable(tuple(f"k{i}" for i in range(5)), np.ones((5, 2), dtype=np.float32))
    with pytest.raises(EvaluationError, match=said):
        TASK.score(table, labels_file(tmp_path / "l.tsv", list(labels)), seed=0)


def test_refusals(tmp_path: Path) -> None:
    table, classes = grouped()
    path = labels_file(tmp_path / "l.tsv", classes.tolist())
    with pytest.raises(EvaluationError, match="needs a file"):
        TASK.score(table, None, seed=0)
    other = EmbeddingTable(tuple(f"x{i}" for i in range(120)), table.vectors)
    with pytest.raises(EvaluationError, match="0 of 120 keys"):
        TASK.score(other, path, seed=0)
    with pytest.raises(EvaluationError, match="not finite"):
        TASK.score(EmbeddingTable(table.keys, table.vectors * np.inf), path, seed=0)
    opposite = np.ones((120, 2), dtype=np.float32) * np.arange(1, 121)[:, None]  # lengths differ, directions do not
    with pytest.raises(EvaluationError, match="are equal"):
        TASK.score(EmbeddingTable(table.keys, opposite.astype(np.float32)), path, seed=0)


def test_it_is_found_by_its_name() -> None:
    assert load_task("clustering").name == "clustering"
