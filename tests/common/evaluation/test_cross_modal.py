"""Recall from left to right and back, against a plain loop and ranx, and what a file of pairs may hold."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from common.errors import EvaluationError
from common.evaluation.quality import _intervals, _ranking
from common.evaluation.quality import load as load_task
from common.evaluation.quality.cross_modal import TASK, read_pairs
from common.evaluation.score import Score
from common.table import EmbeddingTable

SIZE = 80


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the value counts and not its interval; the intervals have tests of their own."""
    monkeypatch.setattr(_intervals, "RESAMPLES", 100)


def two_sides() -> tuple[EmbeddingTable, EmbeddingTable]:
    """Right vectors are left ones with as much noise as signal."""
    rng = np.random.default_rng(9)
    left = rng.normal(size=(SIZE, 6)).astype(np.float32)
    right = (left + rng.normal(size=(SIZE, 6))).astype(np.float32)
    return (
        EmbeddingTable(tuple(f"image{i}" for i in range(SIZE)), left),
        EmbeddingTable(tuple(f"caption{i}" for i in range(SIZE)), right),
    )


def joined(left: EmbeddingTable, right: EmbeddingTable) -> EmbeddingTable:
    return EmbeddingTable((*right.keys, *left.keys), np.concatenate([right.vectors, left.vectors]))


def pairs_file(path: Path, pairs: list[tuple[str, str]]) -> Path:
    path.write_text("".join(f"{a}\t{b}\n" for a, b in pairs), encoding="utf-8")
    return path


def one_to_one(path: Path) -> Path:
    return pairs_file(path, [(f"image{i}", f"caption{i}") for i in range(SIZE)])


def by_metric(scores: list[Score]) -> dict[str, Score]:
    return {score.metric: score for score in scores}


def slow_ranks(queries: np.ndarray, candidates: np.ndarray, partners: list[set[int]]) -> list[int]:
    """Rank of the best partner of each query; no ties."""
    ranks = []
    for query, own in zip(queries, partners, strict=True):
        cosines = [float(query @ c) / float(np.linalg.norm(query) * np.linalg.norm(c)) for c in candidates]
        order = sorted(range(len(cosines)), key=lambda i: -cosines[i])
        ranks.append(1 + min(order.index(i) for i in own))
    return ranks


# ranx 0.3.21, recall@1, @5 and @10 of the same cosines (float64); the medians are counted.
RANX = {
    "left_to_right_recall@1": 0.3125,
    "left_to_right_recall@5": 0.7,
    "left_to_right_recall@10": 0.8125,
    "left_to_right_median_rank": 2.5,
    "right_to_left_recall@1": 0.3125,
    "right_to_left_recall@5": 0.6875,
    "right_to_left_recall@10": 0.85,
    "right_to_left_median_rank": 2.5,
}


def test_both_directions_equal_ranx_in_one_table_and_in_two(tmp_path: Path) -> None:
    left, right = two_sides()
    path = one_to_one(tmp_path / "pairs.tsv")
    together = by_metric(TASK.score(joined(left, right), path, seed=0))
    assert {name: score.value for name, score in together.items()} == pytest.approx(RANX, abs=1e-9)
    assert by_metric(TASK.score(left, path, seed=0, other=right)) == together
    shifted = EmbeddingTable(right.keys, np.roll(right.vectors, 1, axis=0))
    assert TASK.score(left, path, seed=0, other=shifted)[0].value < 0.1
    for name, score in together.items():
        assert score.ci_low <= score.value <= score.ci_high and score.beats_baseline, name
        assert score.higher_is_better == ("median" not in name) and score.task == "cross_modal:pairs"
    assert together["left_to_right_recall@5"].baseline_value == pytest.approx(5 / SIZE)
    assert together["left_to_right_median_rank"].baseline_value == pytest.approx((SIZE + 1) / 2)


def test_of_several_partners_the_best_placed_counts(tmp_path: Path) -> None:
    left, right = two_sides()
    rng = np.random.default_rng(0)
    partners = [{int(i) for i in rng.choice(SIZE, int(rng.integers(1, 4)), replace=False)} for _ in range(20)]
    pairs = [(f"image{i}", f"caption{j}") for i, own in enumerate(partners) for j in sorted(own)]
    path = pairs_file(tmp_path / "several.tsv", pairs)
    found = by_metric(TASK.score(left, path, seed=0, other=right))
    asked = sorted({j for own in partners for j in own})
    candidates = {j: place for place, j in enumerate(asked)}
    forth = slow_ranks(left.vectors[:20], right.vectors[asked], [{candidates[j] for j in own} for own in partners])
    back = slow_ranks(
        right.vectors[asked], left.vectors[:20], [{i for i, own in enumerate(partners) if j in own} for j in asked]
    )
    for direction, ranks in (("left_to_right", forth), ("right_to_left", back)):
        assert found[f"{direction}_median_rank"].value == np.median(ranks)
        assert found[f"{direction}_recall@1"].n == len(ranks)
        for k in (1, 5, 10):
            assert found[f"{direction}_recall@{k}"].value == pytest.approx(np.mean(np.array(ranks) <= k))


def test_copies_of_the_right_answer_share_its_place(tmp_path: Path) -> None:
    """Four identical captions, one of them right: first in one of four orders, and of mean rank 2.5."""
    left = EmbeddingTable(("a", "b"), np.array([[1, 0], [0, 1]], dtype=np.float32))
    right = EmbeddingTable(tuple("uvwx"), np.array([[1, 0]] * 4, dtype=np.float32))
    path = pairs_file(tmp_path / "p.tsv", [("a", "u"), ("b", "v"), ("b", "w"), ("b", "x")])
    table = EmbeddingTable((*left.keys, *right.keys), np.concatenate([left.vectors, right.vectors]))
    with pytest.raises(EvaluationError, match="every candidate scores the same"):
        TASK.score(table, path, seed=0)
    right = EmbeddingTable(tuple("uvwxy"), np.concatenate([right.vectors, [[0, 1]]]).astype(np.float32))
    path = pairs_file(tmp_path / "p.tsv", [("a", "u"), ("b", "v"), ("b", "w"), ("b", "x"), ("b", "y")])
    found = by_metric(TASK.score(left, path, seed=0, other=right))
    assert found["left_to_right_recall@1"].value == pytest.approx((1 / 4 + 1) / 2)
    assert found["left_to_right_median_rank"].value == pytest.approx((2.5 + 1) / 2)
    path = pairs_file(tmp_path / "p.tsv", [("a", "u"), ("a", "v"), ("b", "w"), ("b", "x"), ("b", "y")])
    found = by_metric(TASK.score(left, path, seed=0, other=right))
    assert found["left_to_right_recall@1"].value == pytest.approx((2 / 4 + 1) / 2)
    assert found["left_to_right_median_rank"].value == pytest.approx((5 / 3 + 1) / 2)
    assert found["left_to_right_recall@1"].baseline_value == pytest.approx((2 / 5 + 3 / 5) / 2)


def test_chunks_change_nothing_and_a_part_may_be_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left, right = two_sides()
    path = one_to_one(tmp_path / "pairs.tsv")
    whole = TASK.score(left, path, seed=0, other=right)
    monkeypatch.setattr(_ranking, "CHUNK_SCORES", 7 * SIZE)
    assert TASK.score(left, path, seed=0, other=right) == whole
    monkeypatch.setattr(_ranking, "MAX_SCORES", 30 * SIZE)
    assert [score.n for score in TASK.score(left, path, seed=0, other=right)] == [30] * 8


def test_missing_keys_lower_the_coverage_and_nothing_else(tmp_path: Path) -> None:
    left, right = two_sides()
    pairs = [(f"image{i}", f"caption{i}") for i in range(SIZE)]
    path = pairs_file(tmp_path / "pairs.tsv", [*pairs, ("image0", "none"), ("none", "caption0"), ("x", "y")])
    for score in TASK.score(left, path, seed=0, other=right):
        assert score.value == pytest.approx(RANX[score.metric], abs=1e-9)
        assert score.coverage == pytest.approx(80 / 83)


@pytest.mark.data
def test_captions_as_bags_of_letters_find_their_neighbours(data_file: Callable[[str], Path], tmp_path: Path) -> None:
    """Icons' captions beside the same captions with their words turned round: bags of letter pairs mostly agree."""
    with np.load(data_file("image_text/game_icons.npz"), allow_pickle=False) as file:
        captions = sorted({str(c) for c in file["caption"] if " " in str(c)})[:1500]
    turned = [" ".join(reversed(c.split())) for c in captions]

    def bag(text: str) -> np.ndarray:
        counts = np.zeros(26 * 26, dtype=np.float32)
        for a, b in re.findall(r"(?=([a-z])([a-z]))", text):
            counts[(ord(a) - 97) * 26 + ord(b) - 97] += 1
        return counts

    keys = [f"{side}{i}" for side in "lr" for i in range(len(captions))]
    table = EmbeddingTable(tuple(keys), np.array([bag(c) for c in captions + turned]))
    path = pairs_file(tmp_path / "icons.tsv", [(f"l{i}", f"r{i}") for i in range(len(captions))])
    found = by_metric(TASK.score(table, path, seed=0))
    assert found["left_to_right_recall@1"].value > 0.8 and found["right_to_left_median_rank"].value == 1.0
    assert all(score.beats_baseline for score in found.values())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("a\n", "line 1: expected"),
        ("a\tb\tc\n", "line 1: expected"),
        ("a\t\n", "line 1: expected"),
        ("\tb\n", "line 1: expected"),
        ("a\tb\na\tb\n", "line 2: a pair occurs twice"),
        ("a\ta\n", "line 1: a key stands on both sides"),
        ("a\tb\n\nb\tc\n", "line 3: a key stands on both sides"),
        ("a\tb\nc\ta\n", "line 2: a key stands on both sides"),
    ],
)
def test_malformed_files_are_refused_by_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "bad.tsv"
    path.write_text(text)
    with pytest.raises(EvaluationError, match=said):
        read_pairs(path)


def test_two_tables_may_share_their_keys(tmp_path: Path) -> None:
    left, right = two_sides()
    path = pairs_file(tmp_path / "ids.tsv", [(f"{i}", f"{i}") for i in range(SIZE)])
    ids = tuple(f"{i}" for i in range(SIZE))
    scores = TASK.score(EmbeddingTable(ids, left.vectors), path, seed=0, other=EmbeddingTable(ids, right.vectors))
    assert {score.metric: score.value for score in scores} == pytest.approx(RANX, abs=1e-9)
    with pytest.raises(EvaluationError, match="both sides"):
        TASK.score(EmbeddingTable(ids, left.vectors), path, seed=0)


def test_refusals(tmp_path: Path) -> None:
    left, right = two_sides()
    path = one_to_one(tmp_path / "pairs.tsv")
    with pytest.raises(EvaluationError, match="needs a file"):
        TASK.score(left, None, seed=0)
    with pytest.raises(EvaluationError, match="both keys of none of 80"):
        TASK.score(left, path, seed=0)
    with pytest.raises(EvaluationError, match="6 and 4 numbers do not compare"):
        TASK.score(left, path, seed=0, other=EmbeddingTable(right.keys, right.vectors[:, :4]))
    with pytest.raises(EvaluationError, match="not finite"):
        TASK.score(left, path, seed=0, other=EmbeddingTable(right.keys, right.vectors * np.nan))
    same = EmbeddingTable(right.keys, np.ones_like(right.vectors))
    with pytest.raises(EvaluationError, match="every candidate scores the same"):
        TASK.score(left, path, seed=0, other=same)
    alone = pairs_file(tmp_path / "alone.tsv", [("image0", "caption0")])
    with pytest.raises(EvaluationError, match="every candidate scores the same"):
        TASK.score(left, alone, seed=0, other=right)


def test_it_is_found_by_its_name() -> None:
    assert load_task("cross_modal").name == "cross_modal"
