"""Ranking, its intervals and its refusals, against a plain loop over items."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import EvaluationError
from common.evaluation.quality import recommendation as module
from common.evaluation.quality._intervals import wilson_interval
from common.evaluation.quality.recommendation import (
    TASK,
    RecommendationBenchmark,
    bootstrap_interval,
    gains,
    hits,
    ranks,
    read_benchmark,
)
from common.table import EmbeddingTable

ROWS = 30


def benchmark(users: int = 12, seed: int = 0) -> RecommendationBenchmark:
    rng = np.random.default_rng(seed)
    lists = [rng.permutation(ROWS)[: int(rng.integers(1, 9))] for _ in range(users)]
    items = [np.sort(own[1:]) for own in lists]
    offsets = np.cumsum([0, *map(len, items)]).astype(np.int64)
    return RecommendationBenchmark(
        offsets, np.concatenate(items).astype(np.int64), np.array([own[0] for own in lists]), rows=ROWS
    )


def slow_rank(scores: np.ndarray, own: set[int], held: int) -> float:
    """How many candidates are better, and half of those that are equal; what is not a number is better than all."""
    rank = 0.0
    for item, score in enumerate(scores):
        if item == held or item in own or score < scores[held]:
            continue
        rank += 0.5 if score == scores[held] else 1.0
    return rank


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), levels=st.integers(1, 50))
def test_ranks_equal_a_loop_over_the_items(seed: int, levels: int) -> None:
    split = benchmark(seed=seed)
    scores = np.random.default_rng(seed).integers(0, levels, (len(split), ROWS)).astype(float)
    found = ranks(split, lambda a, b: scores[a:b])
    expected = [
        slow_rank(scores[u], set(split.items[split.offsets[u] : split.offsets[u + 1]].tolist()), split.held_out[u])
        for u in range(len(split))
    ]
    assert found.tolist() == expected


def test_the_loop_sees_training_items_that_were_left_in() -> None:
    split = benchmark()
    everything = RecommendationBenchmark(np.zeros(len(split) + 1, np.int64), split.items[:0], split.held_out, rows=ROWS)
    scores = np.random.default_rng(0).random((len(split), ROWS))
    assert ranks(everything, lambda a, b: scores[a:b]).sum() > ranks(split, lambda a, b: scores[a:b]).sum()


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    split, scores = benchmark(users=40), np.random.default_rng(0).random((40, ROWS))
    whole = ranks(split, lambda a, b: scores[a:b])
    monkeypatch.setattr(module, "_CHUNK_SCORES", 7 * ROWS)
    assert np.array_equal(ranks(split, lambda a, b: scores[a:b]), whole)


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_a_table_that_says_nothing_ranks_in_the_middle_or_last(value: float) -> None:
    split = benchmark()
    found = ranks(split, lambda a, b: np.full((b - a, ROWS), value))
    candidates = ROWS - 1 - np.diff(split.offsets)
    assert np.all(found >= candidates / 2)


def test_hits_and_gains_by_hand() -> None:
    rank = np.array([0.0, 1.0, 9.0, 9.5, 10.0, 500.0])
    assert hits(rank).tolist() == [1, 1, 1, 1, 0, 0]
    expected = [1.0, 1 / math.log2(3), 1 / math.log2(11), 1 / math.log2(11.5), 0.0, 0.0]
    np.testing.assert_allclose(gains(rank), expected)


def test_intervals_cover_the_truth_about_95_times_in_100() -> None:
    rng = np.random.default_rng(0)
    wilson = [wilson_interval(int(rng.binomial(200, 0.07)), 200) for _ in range(2000)]
    assert 0.93 < np.mean([low <= 0.07 <= high for low, high in wilson]) < 0.985
    boot = [bootstrap_interval(rng.binomial(1, 0.3, 150).astype(float), seed) for seed in range(25)]
    assert 0.8 <= np.mean([low <= 0.3 <= high for low, high in boot]) <= 1.0
    assert wilson_interval(0, 10)[0] == 0.0 and wilson_interval(10, 10)[1] == pytest.approx(1.0)


def planted(users: int = 200) -> tuple[EmbeddingTable, RecommendationBenchmark]:
    """Three groups of ten items; a user has six of a group and one more of it held out."""
    rng = np.random.default_rng(0)
    vectors = np.repeat(np.eye(3), 10, axis=0) + 0.1 * rng.normal(size=(ROWS, 3))
    lists = [rng.permutation(10)[:7] + 10 * rng.integers(3) for _ in range(users)]
    items = np.concatenate([np.sort(own[:6]) for own in lists])
    split = RecommendationBenchmark(np.arange(users + 1) * 6, items, np.array([own[6] for own in lists]), rows=ROWS)
    return EmbeddingTable(tuple(f"i{i}" for i in range(ROWS)), vectors.astype(np.float32)), split


def test_a_table_that_knows_the_groups_beats_popularity() -> None:
    table, split = planted()
    by_metric = {score.metric: score for score in TASK.score(table, split, seed=0)}
    assert set(by_metric) == {"hit_rate@10", "ndcg@10"}
    for score in by_metric.values():
        assert score.beats_baseline and score.n == 200 and score.ci_low <= score.value <= score.ci_high
    assert by_metric["hit_rate@10"].value == 1.0  # four of the group are left
    shuffled = EmbeddingTable(table.keys, np.random.default_rng(1).permutation(table.vectors))
    assert not TASK.score(shuffled, split, seed=0)[0].beats_baseline


def test_given_user_vectors_are_used() -> None:
    table, split = planted()
    users = np.eye(3, dtype=np.float32)[split.held_out // 10]
    assert TASK.score(table, split, seed=0, users=users)[0].value == 1.0
    assert TASK.score(table, split, seed=0, users=-users)[0].value < 0.2
    with pytest.raises(EvaluationError, match="do not fit"):
        TASK.score(table, split, seed=0, users=users[:-1])


def test_a_sampled_ranking_warns_and_is_named_so() -> None:
    table, split = planted()
    with pytest.warns(UserWarning, match="do not compare with full ranking"):
        scores = TASK.score(table, split, seed=0, negatives=5)
    assert {score.task for score in scores} == {"recommendation:sampled-5"}
    with pytest.warns(UserWarning):
        again = ranks(split, lambda a, b: np.tile(np.arange(ROWS), (b - a, 1)), negatives=5)
    assert again.max() <= 5


def test_a_file_round_trip(tmp_path: Path) -> None:
    split = benchmark()
    path = tmp_path / "holdout.npz"
    np.savez(path, offsets=split.offsets, items=split.items, held_out=split.held_out, rows=np.array(ROWS))
    found = read_benchmark(path)
    assert np.array_equal(found.items, split.items) and found.rows == ROWS
    table, _ = planted()
    assert len(TASK.score(table, path, seed=0)) == 2


GOOD = {"offsets": [0, 1, 2], "items": [3, 4], "held_out": [1, 2], "rows": 9}


@pytest.mark.parametrize(
    "change",
    [
        {"offsets": [0, 1]},
        {"offsets": [0, 2, 1]},
        {"offsets": [1, 1, 2]},
        {"items": [3, 9]},
        {"items": [-1, 4]},
        {"items": [1, 4]},  # the held-out item is among the training items
        {"held_out": [1.5, 2.0]},
        {"held_out": []},
        {"rows": [9]},
        {"rows": None},
    ],
)
def test_a_file_that_contradicts_itself_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "bad.npz"
    np.savez(path, **{n: np.array(v) for n, v in (GOOD | change).items() if v is not None})
    with pytest.raises(EvaluationError):
        read_benchmark(path)


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04broken"])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.npz"
    path.write_bytes(content)
    with pytest.raises(EvaluationError, match=r"bad\.npz"):
        read_benchmark(path)


def test_refusals() -> None:
    table, split = planted()
    with pytest.raises(EvaluationError, match="needs a split"):
        TASK.score(table, None, seed=0)
    small = EmbeddingTable(table.keys[:-1], table.vectors[:-1])
    with pytest.raises(EvaluationError, match="30 items and the table 29"):
        TASK.score(small, split, seed=0)
    with pytest.raises(EvaluationError):
        read_benchmark(Path("absent.npz"))


def several_each() -> tuple[RecommendationBenchmark, np.ndarray, np.ndarray]:
    """25 users with five items and one to four held out, of 60; vectors of users and items."""
    rng = np.random.default_rng(10)
    items, users = rng.normal(size=(60, 5)).astype(np.float32), rng.normal(size=(25, 5)).astype(np.float32)
    had, held = [], []
    for _ in range(25):
        own = rng.permutation(60)[:9]
        had.append(np.sort(own[:5]))
        held.append(own[5 : 5 + int(rng.integers(1, 5))])
    offsets = np.cumsum([0, *map(len, held)])
    split = RecommendationBenchmark(
        np.arange(26) * 5, np.concatenate(had), np.concatenate(held), rows=60, held_out_offsets=offsets
    )
    return split, items, users


# ranx 0.3.21 on the same scores: hit_rate@10, ndcg@10, recall@10, mrr of Qrels and Run without the training items.
RANX = {"hit_rate@10": 0.36, "ndcg@10": 0.10364077487387605, "recall@10": 0.17, "mrr": 0.14916189404965807}


def test_several_held_out_items_equal_ranx(tmp_path: Path) -> None:
    split, items, users = several_each()
    table = EmbeddingTable(tuple(f"i{i}" for i in range(60)), items)
    scores = TASK.score(table, split, seed=0, users=users)
    assert {score.metric: score.value for score in scores} == pytest.approx(RANX, abs=1e-9)
    for score in scores:
        assert (score.n, score.coverage, score.baseline_name) == (25, 1.0, "popularity")
        assert score.ci_low <= score.value <= score.ci_high
    fields = {"offsets": split.offsets, "items": split.items, "held_out": split.held_out, "rows": np.array(60)}
    np.savez(tmp_path / "several.npz", **fields, held_out_offsets=split.held_out_lists.offsets)
    assert TASK.score(table, tmp_path / "several.npz", seed=0, users=users) == scores
    leaky = RecommendationBenchmark(  # a user's own training items as rivals: a ranking that forgot to leave them out
        np.zeros(26, np.int64), split.items[:0], split.held_out, rows=60, held_out_offsets=split.held_out_offsets
    )
    assert TASK.score(table, leaky, seed=0, users=users)[3].value < RANX["mrr"] - 1e-4


def test_one_each_given_as_lists_is_what_one_each_gives() -> None:
    table, split = planted()
    lists = RecommendationBenchmark(
        split.offsets, split.items, split.held_out, rows=ROWS, held_out_offsets=np.arange(len(split) + 1)
    )
    plain = {score.metric: score.value for score in TASK.score(table, split, seed=0)}
    found = {score.metric: score.value for score in TASK.score(table, lists, seed=0)}
    assert found["recall@10"] == found["hit_rate@10"] == pytest.approx(plain["hit_rate@10"])
    assert found["ndcg@10"] == pytest.approx(plain["ndcg@10"])
    assert len(lists.first(7)) == 7 and lists.first(7).held_out.tolist() == split.held_out[:7].tolist()


@pytest.mark.parametrize(
    "change",
    [
        {"held_out_offsets": [0, 1]},
        {"held_out_offsets": [0, 1, 2]},
        {"held_out_offsets": [0, 0, 3]},
        {"held_out_offsets": [0, 2, 1]},
        {"held_out_offsets": [1, 2, 3]},
        {"held_out_offsets": [0.0, 1.0, 3.0]},
        {"held_out_offsets": 3},
        {"held_out": [1, 5, 5]},  # twice held out
        {"held_out": [1, 4, 2]},  # in training
        {"held_out": [1, 9, 2]},
    ],
)
def test_lists_that_contradict_themselves_are_refused(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "bad.npz"
    good = GOOD | {"held_out": [1, 2, 5], "held_out_offsets": [0, 1, 3]}
    np.savez(path, **{name: np.array(value) for name, value in good.items()})
    assert len(read_benchmark(path)) == 2
    np.savez(path, **{name: np.array(value) for name, value in (good | change).items()})
    with pytest.raises(EvaluationError):
        read_benchmark(path)


def test_several_held_out_items_have_no_one_rank_and_no_sampled_ranking() -> None:
    split, items, users = several_each()
    table = EmbeddingTable(tuple(f"i{i}" for i in range(60)), items)
    with pytest.raises(EvaluationError, match="no one rank"):
        ranks(split, lambda a, b: np.zeros((b - a, 60)))
    with pytest.raises(EvaluationError, match="no one rank"):
        TASK.score(table, split, seed=0, users=users, negatives=5)
    for value, said in ((0.0, "scores the same"), (np.nan, "not finite"), (np.inf, "not finite")):
        with pytest.raises(EvaluationError, match=said), np.errstate(invalid="ignore"):
            TASK.score(EmbeddingTable(table.keys, np.full_like(items, value)), split, seed=0, users=users)
