"""Rankings with ties against every order of them, against scikit-learn and ranx, and what a benchmark file may hold."""

from __future__ import annotations

import gzip
import itertools
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, ndcg_score

from common.errors import EvaluationError
from common.evaluation.quality import _intervals, _ranking
from common.evaluation.quality import load as load_task
from common.evaluation.quality._intervals import bootstrap_interval, median_interval, resampled_interval
from common.evaluation.quality._ranking import Lists, Places, Ranking, asked, lists_of, places, unit_rows
from common.evaluation.quality._ranking_metrics import (
    average_precision,
    first_rank,
    hit,
    measured,
    ndcg,
    recall,
    reciprocal_rank,
)
from common.evaluation.quality.retrieval import METRICS, TASK, read_pairs
from common.table import EmbeddingTable

K = 3


def ranking_of(scores: np.ndarray, relevant: np.ndarray, gains: np.ndarray | None = None) -> Ranking:
    """Scores (Q, N) and a mask of relevant candidates of the same shape."""
    owners, items = np.nonzero(relevant)
    lists = lists_of(owners, items, len(scores), gains=None if gains is None else gains[owners, items])
    return Ranking(*scores.shape, scores=lambda a, b: scores[a:b].astype(np.float64), relevant=lists.part)


def placed(scores: np.ndarray, relevant: np.ndarray, gains: np.ndarray | None = None) -> Places:
    (found,) = places(ranking_of(scores, relevant, gains))
    return found


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the value counts and not its interval; the intervals have tests of their own."""
    monkeypatch.setattr(_intervals, "RESAMPLES", 100)


# One order of the candidates: whether each is relevant, and its gain. Slow and obvious.


def slow_recall(order: list[float]) -> float:
    return sum(g > 0 for g in order[:K]) / sum(g > 0 for g in order)


def slow_hit(order: list[float]) -> float:
    return float(any(order[:K]))


def slow_ndcg(order: list[float]) -> float:
    def dcg(gains: list[float]) -> float:
        return sum(g / math.log2(place + 1) for place, g in enumerate(gains[:K], start=1))

    return dcg(order) / dcg(sorted(order, reverse=True))


def slow_reciprocal(order: list[float]) -> float:
    return 1 / slow_first(order)


def slow_first(order: list[float]) -> float:
    return 1 + next(place for place, g in enumerate(order) if g > 0)


def slow_precision(order: list[float]) -> float:
    found = [place for place, g in enumerate(order, start=1) if g > 0]
    return sum(number / place for number, place in enumerate(found, start=1)) / len(found)


CASES: list[tuple[Callable[[Places], np.ndarray], Callable[[list[float]], float]]] = [
    (partial(recall, k=K), slow_recall),
    (partial(hit, k=K), slow_hit),
    (partial(ndcg, k=K), slow_ndcg),
    (reciprocal_rank, slow_reciprocal),
    (average_precision, slow_precision),
    (first_rank, slow_first),
]


def mean_over_orders(scores: list[int], gains: list[float], metric: Callable[[list[float]], float]) -> float:
    """Mean over every order of the candidates in which no better score comes after a worse one."""
    values = []
    for order in itertools.permutations(range(len(scores))):
        if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order)):
            values.append(metric([gains[i] for i in order]))
    return float(np.mean(values))


@pytest.mark.parametrize(("metric", "slow"), CASES)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_metrics_are_means_over_all_orders_of_ties(
    metric: Callable[[Places], np.ndarray], slow: Callable[[list[float]], float], data: st.DataObject
) -> None:
    size = data.draw(st.integers(2, 6))
    scores = data.draw(st.lists(st.integers(0, 3), min_size=size, max_size=size))
    gains = data.draw(st.lists(st.sampled_from([0.0, 0.0, 1.0, 3.0]), min_size=size, max_size=size).filter(any))
    found = placed(np.array([scores]), np.array([gains]) > 0, np.array([gains]))
    assert metric(found)[0] == pytest.approx(mean_over_orders(scores, gains, slow), abs=1e-12)
    blind = metric(found.in_random_order())[0]
    assert blind == pytest.approx(mean_over_orders([0] * size, gains, slow), abs=1e-12)


@pytest.mark.parametrize(("metric", "slow"), CASES)
def test_the_orders_see_ties_counted_for_one_side(
    metric: Callable[[Places], np.ndarray], slow: Callable[[list[float]], float]
) -> None:
    """What an implementation that takes ties as they come would give is not the mean over orders."""
    scores, gains = [1, 1, 1, 1, 0], [0.0, 0.0, 0.0, 1.0, 1.0]
    neutral = metric(placed(np.array([scores]), np.array([gains]) > 0, np.array([gains])))[0]
    for shift in (1e-6, -1e-6):
        favoured = np.array([scores]) + shift * (np.array([gains]) > 0)
        assert abs(metric(placed(favoured, np.array([gains]) > 0, np.array([gains])))[0] - neutral) > 1e-3
    assert neutral == pytest.approx(mean_over_orders(scores, gains, slow), abs=1e-12)


@pytest.mark.parametrize("levels", [3, 20, 100_000])
def test_ndcg_is_scikit_learn_s_with_and_without_ties(levels: int) -> None:
    rng = np.random.default_rng(levels)
    scores, gains = rng.integers(0, levels, (40, 60)), rng.integers(0, 4, (40, 60)).astype(float)
    for k in (1, 10, 60, 100):
        found = ndcg(placed(scores, gains > 0, gains), k=k)
        assert found.mean() == pytest.approx(ndcg_score(gains, scores, k=k), abs=1e-9)
    assert ndcg(placed(scores, gains > 0), k=10).mean() != pytest.approx(ndcg_score(gains, scores, k=10), abs=1e-3)


def test_average_precision_is_scikit_learn_s() -> None:
    rng = np.random.default_rng(0)
    scores, relevant = rng.permuted(np.tile(np.arange(80.0), (30, 1)), axis=1), rng.random((30, 80)) < 0.2
    expected = [average_precision_score(own, row) for own, row in zip(relevant, scores, strict=True)]
    np.testing.assert_allclose(average_precision(placed(scores, relevant)), expected, atol=1e-9)


def test_many_ties_cost_no_precision() -> None:
    """Half a million candidates of one score: the formulas, against sums over the places."""
    n, better = 500_000, 1_000
    scores = np.concatenate([np.ones(better), np.zeros(n)])[None, :]
    relevant = np.zeros_like(scores, dtype=bool)
    relevant[0, better + 7] = True
    found = placed(scores, relevant)
    expected = float(np.mean(1.0 / (better + np.arange(1, n + 1))))
    assert reciprocal_rank(found)[0] == pytest.approx(expected, rel=1e-9)
    assert average_precision(found)[0] == pytest.approx(expected, rel=1e-9)
    assert (recall(found, k=better + 5)[0], hit(found, k=better + 5)[0]) == pytest.approx((5 / n, 5 / n))


def planted() -> tuple[EmbeddingTable, np.ndarray]:
    rng = np.random.default_rng(7)
    vectors = rng.normal(size=(150, 8)).astype(np.float32)
    labels = rng.integers(0, 12, 150)
    vectors += 0.6 * rng.normal(size=(12, 8)).astype(np.float32)[labels]
    return EmbeddingTable(tuple(f"k{i}" for i in range(150)), vectors), labels


def labels_file(path: Path, keys: list[str], labels: list[object]) -> Path:
    path.write_text("".join(f"{key}\t{label}\n" for key, label in zip(keys, labels, strict=True)), encoding="utf-8")
    return path


def values(table: EmbeddingTable, path: Path) -> dict[str, float]:
    return {score.metric: score.value for score in TASK.score(table, path, seed=0)}


# ranx 0.3.21, evaluate(Qrels, Run, [...]) on the cosines (float64) of the same tables and files.
RANX_LABELS = {
    "recall@10": 0.2293747363747364,
    "ndcg@10": 0.2994066138299701,
    "mrr": 0.5139017083092131,
    "map": 0.28894598570307733,
}
RANX_GRADED = {
    "recall@10": 0.08555555555555557,
    "ndcg@10": 0.05609879582878669,
    "mrr": 0.13839979538670635,
    "map": 0.07457714995919554,
}
RANX_CORA_LABELS = {
    "recall@10": 0.0360588142652271,
    "ndcg@10": 0.31508887023640725,
    "mrr": 0.5620517509683458,
    "map": 0.23297769864264095,
}
RANX_CORA_GRAPH = {
    "recall@10": 0.05720337301587301,
    "ndcg@10": 0.05996967711466068,
    "mrr": 0.11907100562774722,
    "map": 0.04588026212641937,
}


def test_labelled_keys_equal_ranx(tmp_path: Path) -> None:
    table, labels = planted()
    path = labels_file(tmp_path / "labels.tsv", list(table.keys), labels.tolist())
    assert values(table, path) == pytest.approx(RANX_LABELS, abs=1e-9)
    swapped = labels_file(tmp_path / "swapped.tsv", list(table.keys), np.roll(labels, 1).tolist())
    assert values(table, swapped) != pytest.approx(RANX_LABELS, abs=1e-3)


def graded_file(path: Path, missing: str = "") -> Path:
    rng, lines = np.random.default_rng(8), []
    for query in range(30):
        documents, gains = rng.choice(np.arange(30, 150), 6, replace=False), rng.integers(0, 4, 6)
        lines += [f"k{query}\tk{document}\t{gain}\n" for document, gain in zip(documents, gains, strict=True)]
    path.write_text("".join(lines) + missing, encoding="utf-8")
    return path


def test_graded_judgements_equal_ranx(tmp_path: Path) -> None:
    """k0 .. k29 are named as queries only, so 120 keys are ranked."""
    table, _ = planted()
    path = graded_file(tmp_path / "graded.tsv")
    assert values(table, path) == pytest.approx(RANX_GRADED, abs=1e-9)
    queries_too = path.with_name("both.tsv")
    queries_too.write_text(path.read_text() + "".join(f"k30\tk{i}\t0\n" for i in range(30)))
    assert values(table, queries_too)["mrr"] < RANX_GRADED["mrr"]  # now the 30 are candidates as well


@pytest.fixture(scope="module")
def cora(data_file: Callable[[str], Path]) -> tuple[EmbeddingTable, dict[str, np.ndarray]]:
    """Papers of distinct words, as a random projection of their bags of words to 64 numbers."""
    with np.load(data_file("graphs/cora.npz"), allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    words = np.zeros(arrays["x_shape"], np.float32)
    owner = np.repeat(np.arange(len(words)), np.diff(arrays["x_indptr"]))
    words[owner, arrays["x_indices"]] = arrays["x_data"]
    vectors = (words @ np.random.default_rng(0).standard_normal((words.shape[1], 64))).astype(np.float32)
    kept = np.sort(np.unique(words, axis=0, return_index=True)[1])
    return EmbeddingTable(tuple(str(node) for node in kept), vectors[kept]), arrays


@pytest.mark.data
def test_citation_labels_equal_ranx(cora: tuple[EmbeddingTable, dict[str, np.ndarray]], tmp_path: Path) -> None:
    table, arrays = cora
    nodes = arrays["val_idx"]
    path = labels_file(tmp_path / "cora.tsv", [str(n) for n in nodes], arrays["y"][nodes].tolist())
    scores = TASK.score(table, path, seed=0)
    assert {score.metric: score.value for score in scores} == pytest.approx(RANX_CORA_LABELS, abs=1e-9)
    assert scores[0].n == 499 and scores[0].coverage == pytest.approx(499 / 500)
    assert all(score.beats_baseline and score.task == "retrieval:cora" for score in scores)


@pytest.mark.data
def test_cited_papers_equal_ranx(cora: tuple[EmbeddingTable, dict[str, np.ndarray]], tmp_path: Path) -> None:
    """Citations, gain 2 within a class and 1 beyond it."""
    table, arrays = cora
    joined: dict[int, list[int]] = {}
    for a, b in arrays["edges"].tolist():
        if str(a) in table.row_of and str(b) in table.row_of:
            joined.setdefault(a, []).append(b)
            joined.setdefault(b, []).append(a)
    queries = [node for node in arrays["test_idx"].tolist() if node in joined][:200]
    same = arrays["y"]
    lines = [f"{q}\t{other}\t{1 + (same[q] == same[other])}\n" for q in queries for other in joined[q]]
    path = tmp_path / "cited.tsv"
    path.write_text("".join(lines))
    assert values(table, path) == pytest.approx(RANX_CORA_GRAPH, abs=1e-9)


def test_a_table_that_knows_the_labels_beats_chance_and_a_random_one_does_not(tmp_path: Path) -> None:
    rng, labels = np.random.default_rng(0), np.arange(90) % 3
    keys = [f"k{i}" for i in range(90)]
    path = labels_file(tmp_path / "labels.tsv", keys, labels.tolist())
    knows = (np.eye(3)[labels] + 0.1 * rng.normal(size=(90, 3))).astype(np.float32)
    for score in TASK.score(EmbeddingTable(tuple(keys), knows), path, seed=0):
        assert score.beats_baseline and score.ci_low <= score.value <= score.ci_high and score.n == 90
    blind = [
        TASK.score(EmbeddingTable(tuple(keys), rng.normal(size=(90, 40)).astype(np.float32)), path, seed=0)
        for _ in range(10)
    ]
    for metric, of_metric in enumerate(zip(*blind, strict=True)):
        assert of_metric[0].baseline_name == "random order", metric
        assert np.mean([score.value for score in of_metric]) == pytest.approx(of_metric[0].baseline_value, rel=0.06)


def test_chunks_and_places_in_the_table_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, labels = planted()
    table = EmbeddingTable(table.keys, np.round(table.vectors))  # many ties
    path = labels_file(tmp_path / "labels.tsv", list(table.keys), labels.tolist())
    whole = values(table, path)
    order = np.random.default_rng(0).permutation(150)
    turned = EmbeddingTable(tuple(table.keys[i] for i in order), table.vectors[order])
    assert values(turned, path) == pytest.approx(whole, abs=1e-12)
    monkeypatch.setattr(_ranking, "CHUNK_SCORES", 7 * 150)
    assert values(table, path) == pytest.approx(whole, abs=1e-12)
    assert values(table, graded_file(tmp_path / "graded.tsv"))


def test_a_file_may_be_packed_and_have_a_mark_and_other_line_ends(tmp_path: Path) -> None:
    table, labels = planted()
    plain = labels_file(tmp_path / "labels.tsv", list(table.keys), labels.tolist())
    packed = tmp_path / "labels.tsv.gz"
    packed.write_bytes(gzip.compress(b"\xef\xbb\xbf" + plain.read_bytes().replace(b"\n", b"\r\n\r\n")))
    assert read_pairs(packed) == read_pairs(plain)
    assert TASK.score(table, packed, seed=0)[0].task == "retrieval:labels"


def test_missing_keys_lower_the_coverage_and_nothing_else(tmp_path: Path) -> None:
    table, labels = planted()
    keys, own = [*table.keys, "absent", "gone"], [*labels.tolist(), 3, "new"]
    path = labels_file(tmp_path / "labels.tsv", keys, own)
    assert values(table, path) == pytest.approx(RANX_LABELS, abs=1e-9)
    assert TASK.score(table, path, seed=0)[0].coverage == pytest.approx(150 / 152)
    path = graded_file(tmp_path / "graded.tsv", "k1\tabsent\t2\nabsent\tk1\t2\nabsent\tgone\t0\n")
    scores = TASK.score(table, path, seed=0)
    asked_for = sum(pair.gain > 0 for pair in read_pairs(path))
    assert scores[0].coverage == pytest.approx(1 - 2 / asked_for) and scores[0].n == 30


def test_a_label_of_one_key_asks_for_nothing_and_is_ranked(tmp_path: Path) -> None:
    table = EmbeddingTable(("a", "b", "c"), np.array([[1, 0], [0, 1], [1, 0.1]], dtype=np.float32))
    path = labels_file(tmp_path / "labels.tsv", ["a", "b", "c"], ["x", "x", "y"])
    scores = {score.metric: score for score in TASK.score(table, path, seed=0)}
    assert scores["mrr"].n == 2
    assert scores["mrr"].value == pytest.approx(0.5)  # c stands before b for a, and before a for b
    assert scores["mrr"].baseline_value == pytest.approx(0.75)


def test_too_large_a_benchmark_is_asked_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, labels = planted()
    path = labels_file(tmp_path / "labels.tsv", list(table.keys), labels.tolist())
    monkeypatch.setattr(_ranking, "MAX_SCORES", 50 * 150)
    score = TASK.score(table, path, seed=0)[1]
    assert score.n == 50 and score.coverage == 1.0
    assert score.value == pytest.approx(RANX_LABELS["ndcg@10"], abs=0.1)
    assert score == TASK.score(table, path, seed=0)[1] != TASK.score(table, path, seed=1)[1]
    graded = TASK.score(table, graded_file(tmp_path / "graded.tsv"), seed=0)[0]
    assert graded.n == 30
    monkeypatch.setattr(_ranking, "MAX_SCORES", 20 * 150)
    assert TASK.score(table, graded_file(tmp_path / "graded.tsv"), seed=0)[0].n == 20
    assert asked(3, 10**12, 0).shape == (1,)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("\n  \n", "is empty"),
        ("a\n", "line 1: expected"),
        ("a\tx\nb\n", "line 2: expected"),
        ("a\t\n", "line 1: expected"),
        ("\tx\n", "line 1: expected"),
        ("a\t \n", "line 1: expected"),
        ("a\tb\t1\tz\n", "line 1: expected"),
        ("a\tb\tc\n", "line 1: the gain"),
        ("a\tb\t-1\n", "line 1: the gain"),
        ("a\tb\tnan\n", "line 1: the gain"),
        ("a\tb\tinf\n", "line 1: the gain"),
        ("a\tb\t1\nb\ta\n", "line 2: labels and gains"),
        ("a\tx\nb\ta\t1\n", "line 2: labels and gains"),
        ("a\tx\nb\ty\na\tz\n", "line 3: a key is labelled twice"),
        ("a\tb\t1\n\na\tb\t0\n", "line 3: a pair occurs twice"),
        ("a\ta\t1\n", "line 1: a query that asks for itself"),
        ("a\t" + "x" * 100_001, "line 1: more than"),
        ("\ud800\tx\n", "cannot read"),
    ],
)
def test_malformed_files_are_refused_by_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "bad.tsv"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(EvaluationError, match=r"bad\.tsv.*" + said if said != "cannot read" else said):
        read_pairs(path)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="needs a file"):
        TASK.score(planted()[0], None, seed=0)
    broken = tmp_path / "broken.gz"
    broken.write_bytes(b"\x1f\x8b broken")
    for path in (tmp_path, tmp_path / "absent.tsv", broken):
        with pytest.raises(EvaluationError, match="cannot read"):
            read_pairs(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x\tl\ny\tl\n", "holds 0 of 2 labelled keys"),
        ("a\tl\ny\tl\n", "holds 1 of 2 labelled keys"),
        ("a\tl\nb\tm\n", "no two of one label"),
        ("a\tx\t1\nx\tb\t1\n", "both keys of none of 2 pairs"),
        ("a\tb\t0\n", "both keys of none of 0 pairs"),
    ],
)
def test_nothing_covered_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "labels.tsv"
    path.write_text(text)
    with pytest.raises(EvaluationError, match=said):
        TASK.score(EmbeddingTable(("a", "b"), np.eye(2, dtype=np.float32)), path, seed=0)


@pytest.mark.parametrize("vector", [[0.0, 0.0], [1.0, 2.0], [-3e30, 1e-30]])
def test_a_table_that_tells_no_keys_apart_is_refused(tmp_path: Path, vector: list[float]) -> None:
    table = EmbeddingTable(tuple("abcd"), np.tile(np.array(vector, np.float32), (4, 1)))
    for name, text in (("labels", "a\tx\nb\tx\nc\ty\nd\ty\n"), ("judged", "a\tb\t1\nc\td\t2\n")):
        path = tmp_path / name
        path.write_text(text)
        with pytest.raises(EvaluationError, match="every candidate scores the same"):
            TASK.score(table, path, seed=0)


def test_parallel_vectors_tie(tmp_path: Path) -> None:
    """Multiples of one vector have one direction, whatever their rounding."""
    lengths = np.random.default_rng(0).uniform(0.1, 100, 40)[:, None]
    vectors = (lengths * np.array([[0.1, 0.7, -0.3]])).astype(np.float64)
    table = EmbeddingTable(tuple(f"k{i}" for i in range(40)), vectors)  # type: ignore[arg-type]
    path = labels_file(tmp_path / "labels.tsv", list(table.keys), (np.arange(40) % 2).tolist())
    with pytest.raises(EvaluationError, match="every candidate scores the same"):
        TASK.score(table, path, seed=0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    table, labels = planted()
    vectors = table.vectors.copy()
    vectors[3, 2] = value
    path = labels_file(tmp_path / "labels.tsv", list(table.keys), labels.tolist())
    with pytest.raises(EvaluationError, match="not finite"):
        TASK.score(EmbeddingTable(table.keys, vectors), path, seed=0)
    scores = np.array([[1.0, value, 0.0]])
    for relevant in ([[True, False, False]], [[False, True, False]]):
        if value != -math.inf or relevant[0][1]:
            with pytest.raises(EvaluationError, match="not finite"):
                list(places(ranking_of(scores, np.array(relevant))))


def test_one_candidate_is_no_ranking() -> None:
    with pytest.raises(EvaluationError, match="every candidate scores the same"):
        measured(ranking_of(np.array([[1.0], [2.0]]), np.ones((2, 1), bool)), METRICS)


def test_who_is_left_out_counts_neither_above_nor_below() -> None:
    scores = np.array([[5.0, 4.0, 3.0, 2.0, 1.0]])
    ranking = Ranking(
        queries=1,
        candidates=5,
        scores=lambda a, b: scores[a:b].copy(),
        relevant=Lists(np.array([0, 1]), np.array([3])).part,
        left_out=Lists(np.array([0, 2]), np.array([1, 4])).part,
        left_out_of_all=np.array([0]),
    )
    (found,) = places(ranking)
    assert (found.better[0], found.tied[0], found.candidates[0]) == (1, 1, 2)
    assert scores[0, 0] == 5.0


def test_unit_rows_are_exact_and_keep_zeros() -> None:
    found = unit_rows(np.array([[3.0, 4.0], [0.0, 0.0], [1e30, 0.0]], dtype=np.float32))
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, [[0.6, 0.8], [0, 0], [1, 0]], atol=1e-15)


def test_intervals_cover_the_truth_about_95_times_in_100() -> None:
    rng = np.random.default_rng(0)
    medians = [median_interval(rng.exponential(size=41)) for _ in range(2000)]
    assert 0.95 <= np.mean([low <= math.log(2) <= high for low, high in medians]) < 0.985
    assert [median_interval(np.arange(n, dtype=float)) for n in (1, 3)] == [(0.0, 0.0), (0.0, 2.0)]
    values = rng.exponential(size=60)
    assert bootstrap_interval(values, 3) == resampled_interval(lambda drawn: values[drawn].mean(), 60, seed=3)
    missing = resampled_interval(lambda drawn: math.nan if drawn[0] < 30 else values[drawn].mean(), 60, seed=3)
    assert missing == pytest.approx(bootstrap_interval(values, 3), rel=0.1)


def test_it_is_found_by_its_name() -> None:
    task = load_task("retrieval")
    assert (task.name, task.needs, task.reads_training_data) == ("retrieval", "table", False)
