"""Held-out edges: against scikit-learn, against a plain filtered ranking, and what negatives may never be."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from common.errors import EvaluationError
from common.evaluation.quality import _edges, _intervals, _ranking, _two_classes
from common.evaluation.quality import load as load_task
from common.evaluation.quality._edges import Edges, read_edges, with_negatives
from common.evaluation.quality._two_classes import by_chance, separation
from common.evaluation.quality.link_prediction import TASK, filtered_ranks
from common.evaluation.score import Score
from common.table import EmbeddingTable

Pair = tuple[int, int]


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the value counts and not its interval; the intervals have tests of their own."""
    for module in (_intervals, _two_classes):
        monkeypatch.setattr(module, "RESAMPLES", 100)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), levels=st.sampled_from([2, 5, 10_000]), size=st.integers(2, 60))
def test_area_and_precision_are_scikit_learn_s_with_ties_and_weights(seed: int, levels: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    positive, negative = rng.integers(0, levels, size) / 7, rng.integers(0, levels, 1 + size // 2) / 7
    scores = np.concatenate([positive, negative])
    truth = np.arange(len(scores)) < size
    weights = rng.integers(0, 4, len(scores))
    weights[[0, -1]] += 1
    parted = separation(positive, negative)
    for own in (None, weights):
        expected = (
            roc_auc_score(truth, scores, sample_weight=own),
            average_precision_score(truth, scores, sample_weight=own),
        )
        assert parted.metrics(own) == pytest.approx(expected, abs=1e-9)
    swapped = separation(negative, positive).metrics()[0]
    assert swapped == pytest.approx(1 - parted.metrics()[0], abs=1e-9)


def test_intervals_cover_the_true_area() -> None:
    """Two normal scores a standard deviation apart: the area is 0.7602."""
    rng = np.random.default_rng(0)
    held = 0
    for seed in range(40):
        parted = separation(rng.normal(1, 1, 80), rng.normal(0, 1, 80))
        (low, high), (below, above) = parted.intervals(seed)
        held += low <= 0.7602 <= high
        assert low < parted.metrics()[0] < high and below < parted.metrics()[1] < above
    assert held >= 32


def test_chance_is_the_mean_over_all_orders() -> None:
    orders = list(itertools.permutations([1, 1, 0, 0, 0]))
    precision = np.mean([average_precision_score(order, [5, 4, 3, 2, 1]) for order in orders])
    assert by_chance(2, 3) == pytest.approx((0.5, precision), abs=1e-12)


def file_of(path: Path, **roles: list[Pair]) -> Path:
    lines = [f"n{a}\tn{b}\t{role}\n" for role, pairs in roles.items() for a, b in pairs]
    path.write_text("".join(lines), encoding="utf-8")
    return path


def keys_of(count: int) -> tuple[str, ...]:
    return tuple(f"n{i}" for i in range(count))


def planted(nodes: int = 60) -> tuple[EmbeddingTable, list[Pair], list[Pair]]:
    """Three communities; edges within them, a quarter held out."""
    rng, group = np.random.default_rng(0), np.arange(nodes) % 3
    vectors = (np.eye(3)[group] + 0.25 * rng.normal(size=(nodes, 3))) * rng.uniform(0.1, 5, (nodes, 1))
    inside = [(a, b) for a, b in itertools.combinations(range(nodes), 2) if group[a] == group[b]]
    chosen = [inside[i] for i in rng.permutation(len(inside))[:160]]
    return EmbeddingTable(keys_of(nodes), vectors.astype(np.float32)), chosen[:40], chosen[40:]


def by_metric(scores: list[Score]) -> dict[str, Score]:
    return {score.metric: score for score in scores}


def slow_ranks(scores: np.ndarray, test: list[Pair], train: list[Pair]) -> dict[tuple[int, int], float]:
    """Rank of b as seen from a among all nodes but a and a's known neighbours; half of the ties stand before."""
    known = {pair for a, b in [*test, *train] for pair in ((a, b), (b, a))}
    ranks = {}
    for a, b in [*test, *((b, a) for a, b in test)]:
        others = [c for c in range(len(scores)) if c != a and c != b and (a, c) not in known]
        above = sum(scores[a, c] > scores[a, b] for c in others)
        ranks[a, b] = 1 + above + sum(scores[a, c] == scores[a, b] for c in others) / 2
    return ranks


def edges_of(rows: int, test: list[Pair], train: list[Pair]) -> Edges:
    shaped = [np.sort(np.array(pairs, dtype=np.int64).reshape(-1, 2), axis=1) for pairs in (test, train, [])]
    return Edges(rows, *shaped, asked=len(test))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), levels=st.sampled_from([1, 3, 10_000]))
def test_filtered_ranks_equal_a_loop(seed: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    pairs = list(itertools.combinations(range(12), 2))
    chosen = [pairs[i] for i in rng.permutation(len(pairs))[:30]]
    test, train = chosen[:9], chosen[9:]
    scores = rng.integers(0, levels, (12, 12)).astype(float)
    edges = edges_of(12, test, train)
    found, candidates = filtered_ranks(edges, np.arange(9), lambda rows: scores[rows])
    expected = slow_ranks(scores, test, train)
    order = sorted(test)
    assert found.tolist() == [[expected[a, b], expected[b, a]] for a, b in order]
    unfiltered, _ = filtered_ranks(edges_of(12, test, []), np.arange(9), lambda rows: scores[rows])
    assert unfiltered.sum() >= found.sum()
    blank, _ = filtered_ranks(edges, np.arange(9), lambda rows: np.zeros((len(rows), 12)))
    assert blank.tolist() == ((candidates + 1) / 2).tolist()
    part, _ = filtered_ranks(edges, np.array([0, 4]), lambda rows: scores[rows])
    picked = sorted(test[i] for i in (0, 4))
    assert part.tolist() == [[expected[a, b], expected[b, a]] for a, b in picked]


def test_a_table_that_knows_the_communities_beats_preferential_attachment(tmp_path: Path) -> None:
    table, test, train = planted()
    path = file_of(tmp_path / "graph.tsv", test=test, train=train)
    scores = by_metric(TASK.score(table, path, seed=0))
    assert list(scores) == ["auc", "average_precision", "hits@1", "hits@3", "hits@10", "mrr"]
    for score in scores.values():
        assert score.baseline_name == "preferential attachment" and score.ci_low <= score.value <= score.ci_high
        assert (score.task, score.coverage) == ("link_prediction:graph", 1.0)
    assert (scores["auc"].n, scores["mrr"].n) == (80, 40)
    assert scores["auc"].beats_baseline and scores["mrr"].beats_baseline and scores["auc"].value > 0.8
    mixed = EmbeddingTable(table.keys, np.random.default_rng(3).permutation(table.vectors))
    assert abs(by_metric(TASK.score(mixed, path, seed=0))["auc"].value - 0.5) < 0.15
    assert scores == by_metric(TASK.score(table, path, seed=0))


def test_every_figure_equals_the_plain_one(tmp_path: Path) -> None:
    """Cosines, scikit-learn's area and precision, and the ranks of the loop."""
    table, test, train = planted()
    negative = [(a, b) for a, b in itertools.combinations(range(60), 2) if a % 3 != b % 3][:55]
    found = by_metric(TASK.score(table, file_of(tmp_path / "g.tsv", test=test, train=train, negative=negative), seed=0))
    rows = table.vectors.astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    cosines, degrees = rows @ rows.T, np.bincount(np.array(train).reshape(-1), minlength=60)
    truth = [1] * len(test) + [0] * len(negative)
    for scores, values in (
        ([cosines[a, b] for a, b in test + negative], "value"),
        ([degrees[a] * degrees[b] for a, b in test + negative], "baseline_value"),
    ):
        assert getattr(found["auc"], values) == pytest.approx(roc_auc_score(truth, scores), abs=1e-9)
        expected = average_precision_score(truth, scores)
        assert getattr(found["average_precision"], values) == pytest.approx(expected, abs=1e-9)
    for scores, values in ((cosines, "value"), (np.tile(degrees, (60, 1)), "baseline_value")):
        ranks = np.array(list(slow_ranks(scores, test, train).values()))
        assert getattr(found["mrr"], values) == pytest.approx(np.mean(1 / ranks), abs=1e-9)
        for k in (1, 3, 10):
            assert getattr(found[f"hits@{k}"], values) == pytest.approx(np.mean(ranks <= k), abs=1e-9)


def test_without_training_edges_the_baseline_is_a_random_order(tmp_path: Path) -> None:
    table, test, _ = planted()
    path = file_of(tmp_path / "g.tsv", test=test)
    found = by_metric(TASK.score(table, path, seed=0))
    assert {score.baseline_name for score in found.values()} == {"random order"}
    blind = [
        by_metric(TASK.score(EmbeddingTable(table.keys, rng.normal(size=(60, 30)).astype(np.float32)), path, seed=0))
        for rng in map(np.random.default_rng, range(8))
    ]
    for metric, slack in (("auc", 0.05), ("average_precision", 0.06), ("hits@10", 0.04), ("mrr", 0.02)):
        mean = np.mean([own[metric].value for own in blind])
        assert mean == pytest.approx(found[metric].baseline_value, abs=slack), metric


@pytest.mark.parametrize("listed", [1 << 22, 0])
def test_drawn_negatives_are_never_known_edges(monkeypatch: pytest.MonkeyPatch, listed: int) -> None:
    monkeypatch.setattr(_edges, "_LISTED_PAIRS", listed)
    _, test, train = planted()
    edges = edges_of(60, test, train)
    known = {*map(tuple, edges.test.tolist()), *map(tuple, edges.train.tolist())}
    seen: set[tuple[int, ...]] = set()
    for seed in range(20):
        drawn = with_negatives(edges, seed).negative
        pairs = set(map(tuple, drawn.tolist()))
        assert len(drawn) == len(pairs) == len(test) and not pairs & known
        assert np.all(drawn[:, 0] < drawn[:, 1])
        seen |= pairs
    assert np.array_equal(with_negatives(edges, 3).negative, with_negatives(edges, 3).negative)
    assert len(seen) > 500  # of 1,610 that are free, 800 draws: they are not the same few
    uniform = np.bincount(np.array(list(seen)).reshape(-1), minlength=60)
    assert uniform.min() > 0


def test_the_last_free_pairs_are_found_and_too_few_are_refused() -> None:
    pairs = list(itertools.combinations(range(6), 2))
    edges = edges_of(6, pairs[:3], pairs[3:12])
    assert sorted(map(tuple, with_negatives(edges, 0).negative.tolist())) == pairs[12:]
    with pytest.raises(EvaluationError, match="2 pairs of keys are no known edge, and 3 negatives"):
        with_negatives(edges_of(6, pairs[:3], pairs[3:13]), 0)


def test_given_negatives_are_taken_as_they_are(tmp_path: Path) -> None:
    table, test, train = planted()
    apart = [(a, b) for a, b in itertools.combinations(range(60), 2) if a % 3 != b % 3][:7]
    path = file_of(tmp_path / "g.tsv", test=test, train=train, negative=[(b, a) for a, b in apart])
    edges = with_negatives(read_edges(path, table), 0)
    assert sorted(map(tuple, edges.negative.tolist())) == sorted(apart)
    assert by_metric(TASK.score(table, path, seed=0))["auc"].n == 47


def test_a_role_may_be_left_out_and_the_order_of_ends_does_not_matter(tmp_path: Path) -> None:
    table, test, train = planted()
    plain = file_of(tmp_path / "g.tsv", test=test, train=train)
    turned = tmp_path / "t" / "g.tsv"
    turned.parent.mkdir()
    lines = [f"n{b}\tn{a}\n" for a, b in test] + [f"n{b}\tn{a}\ttrain\n" for a, b in train]
    turned.write_text("".join(lines))
    assert TASK.score(table, turned, seed=0) == TASK.score(table, plain, seed=0)


def test_chunks_change_nothing_and_a_part_may_be_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, test, train = planted()
    path = file_of(tmp_path / "g.tsv", test=test, train=train)
    whole = TASK.score(table, path, seed=0)
    monkeypatch.setattr(_ranking, "CHUNK_SCORES", 7 * 60)
    assert TASK.score(table, path, seed=0) == whole
    monkeypatch.setattr(_ranking, "MAX_SCORES", 2 * 60 * 15)
    assert [score.n for score in TASK.score(table, path, seed=0)] == [80, 80, 15, 15, 15, 15]


def test_missing_keys_lower_the_coverage(tmp_path: Path) -> None:
    table, test, train = planted()
    path = file_of(tmp_path / "g.tsv", test=[*test, (1, 99), (98, 99)], train=[*train, (2, 97)])
    scores = TASK.score(table, path, seed=0)
    assert all(score.coverage == pytest.approx(40 / 42) for score in scores)
    whole = TASK.score(table, file_of(path, test=test, train=train), seed=0)
    assert [score.value for score in scores] == [score.value for score in whole]


@pytest.mark.data
def test_cora_by_its_words(data_file: Callable[[str], Path], tmp_path: Path) -> None:
    """A tenth of the citations held out; the table is the papers' words, which know nothing of the graph."""
    with np.load(data_file("graphs/cora.npz"), allow_pickle=False) as file:
        edges, shape = file["edges"].astype(np.int64), tuple(file["x_shape"])
        owner = np.repeat(np.arange(shape[0]), np.diff(file["x_indptr"]))
        bags = np.zeros(shape, dtype=np.float32)
        bags[owner, file["x_indices"]] = file["x_data"]
    order = np.random.default_rng(0).permutation(len(edges))
    cut = len(edges) // 10
    path = file_of(
        tmp_path / "cora.tsv",
        test=[(a, b) for a, b in edges[order[:cut]].tolist()],
        train=[(a, b) for a, b in edges[order[cut:]].tolist()],
    )
    projected = (bags @ np.random.default_rng(1).standard_normal((shape[1], 64))).astype(np.float32)
    found = by_metric(TASK.score(EmbeddingTable(keys_of(shape[0]), projected), path, seed=0))
    assert found["auc"].n == 2 * cut and found["mrr"].n == cut
    assert 0.6 < found["auc"].value < 0.9
    assert found["auc"].ci_high - found["auc"].ci_low < 0.08
    assert found["mrr"].beats_baseline


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("n1\n", "line 1: expected"),
        ("n1 n2\n", "line 1: expected"),
        ("n1\tn2\tmaybe\n", "line 1: expected"),
        ("n1\tn2\t1\n", "line 1: expected"),
        ("n1\tn2\ttest\tx\n", "line 1: expected"),
        ("n1\t\ttest\n", "line 1: expected"),
        ("\tn1\tn2\n", "line 1: expected"),
        ("n1\tn2\nn3\tn3\n", "line 2: a key joined to itself"),
        ("x\tx\n", "line 1: a key joined to itself"),
        ("n1\tn2\nn1\tn2\n", "line 2: a pair occurs twice"),
        ("n1\tn2\n\nn2\tn1\n", "line 3: a pair occurs twice"),
        ("n1\tn2\nn3\tn4\nn2\tn1\ttrain\n", "line 3: a pair occurs twice"),
        ("n1\tn2\ttrain\nn1\tn2\tnegative\nn1\tn3\n", "line 2: a pair occurs twice"),
        ("n5\tn2\tnegative\nn5\tn2\n", "line 2: a pair occurs twice"),
        ("", "none of 0 held-out edges"),
        ("n1\tn2\ttrain\n", "none of 0 held-out edges"),
        ("x\ty\nn1\ty\nn1\tn2\ttrain\n", "none of 2 held-out edges"),
        ("\ud800\tn2\n", "cannot read"),
    ],
)
def test_malformed_files_are_refused_by_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "bad.tsv"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(EvaluationError, match=said):
        read_edges(path, planted()[0])


@pytest.mark.parametrize("constant", [0.0, 1.5])
def test_a_table_that_tells_no_pairs_apart_is_refused(tmp_path: Path, constant: float) -> None:
    table, test, train = planted()
    path = file_of(tmp_path / "g.tsv", test=test, train=train)
    same = EmbeddingTable(table.keys, np.full_like(table.vectors, constant))
    with pytest.raises(EvaluationError, match="the same cosine"):
        TASK.score(same, path, seed=0)
    with pytest.raises(EvaluationError, match="not finite"):
        TASK.score(EmbeddingTable(table.keys, table.vectors + np.inf), path, seed=0)
    with pytest.raises(EvaluationError, match="needs a file"):
        TASK.score(table, None, seed=0)


def test_it_is_found_by_its_name_and_kept_out_of_private_releases() -> None:
    task = load_task("link_prediction")
    assert task.name == "link_prediction" and task.reads_training_data
