"""Correlations of sentences' cosines against scipy, what a sentence's vector is, and what a file may hold."""

from __future__ import annotations

import csv
import gzip
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import EvaluationError
from common.evaluation.quality import _intervals
from common.evaluation.quality import load as load_task
from common.evaluation.quality.sts import (
    TASK,
    pearson,
    read_pairs,
    sentence_vectors,
    spearman,
    tf_idf_cosines,
)
from common.table import EmbeddingTable
from common.text import words

WORDS = [f"{a}{b}" for a in "abcdefgh" for b in "uvwxyz"]


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the value counts and not its interval; the intervals have tests of their own."""
    monkeypatch.setattr(_intervals, "RESAMPLES", 100)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.integers(3, 40), levels=st.integers(2, 30))
def test_correlations_are_scipy_s(seed: int, size: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    left, right = rng.integers(0, levels, size).astype(float), rng.normal(size=size)
    if np.ptp(left) == 0:
        assert math.isnan(spearman(left, right)) and math.isnan(pearson(right, left))
        return
    assert spearman(left, right) == pytest.approx(scipy.stats.spearmanr(left, right).statistic, abs=1e-9)
    assert pearson(left, right) == pytest.approx(scipy.stats.pearsonr(left, right).statistic, abs=1e-9)


def word_table(seed: int = 0) -> EmbeddingTable:
    vectors = np.random.default_rng(seed).normal(size=(len(WORDS), 12))
    return EmbeddingTable(tuple(WORDS), vectors.astype(np.float32))


def written(path: Path, pairs: list[tuple[str, str, object]], header: str = "") -> Path:
    path.write_text(header + "".join(f"{a}\t{b}\t{score}\n" for a, b, score in pairs), encoding="utf-8")
    return path


def planted(path: Path, table: EmbeddingTable, *, size: int = 80) -> Path:
    """People judge exactly as the cosine of means of five words does."""
    rng, pairs = np.random.default_rng(1), []
    for _ in range(size):
        first = [WORDS[i] for i in rng.integers(0, len(WORDS), 5)]
        second = first[: int(rng.integers(0, 5))] + [WORDS[i] for i in rng.integers(0, len(WORDS), 3)]
        a, b = (np.mean([table.vectors[table.row_of[w]] for w in own], axis=0) for own in (first, second))
        cosine = float(a @ b) / float(np.linalg.norm(a) * np.linalg.norm(b))
        pairs.append((" ".join(first).capitalize() + ".", " ".join(second), cosine))
    return written(path, pairs)


def test_judgements_that_are_cosines_of_mean_vectors_score_one(tmp_path: Path) -> None:
    table = word_table()
    path = planted(tmp_path / "sentences.tsv", table)
    scores = TASK.score(table, path, seed=0)
    assert [score.metric for score in scores] == ["spearman", "pearson"]
    for score in scores:
        assert score.value == pytest.approx(1.0, abs=1e-4) and score.ci_low <= score.value <= score.ci_high + 1e-9
        assert (score.task, score.n, score.coverage) == ("sts:sentences", 80, 1.0)
        assert score.baseline_name == "TF-IDF overlap" and 0.2 < score.baseline_value < 0.99 and score.beats_baseline
    other = TASK.score(word_table(seed=5), path, seed=0)
    assert all(score.value < 0.99 for score in other)
    assert scores == TASK.score(table, path, seed=0)


def test_the_figures_are_scipy_s_on_the_same_cosines(tmp_path: Path) -> None:
    path = planted(tmp_path / "sentences.tsv", word_table())
    table = word_table(seed=5)
    pairs = read_pairs(path)
    sides = [[np.mean([table.vectors[table.row_of[w]] for w in words(p[i])], axis=0) for p in pairs] for i in (0, 1)]
    cosines = [float(a @ b) / float(np.linalg.norm(a) * np.linalg.norm(b)) for a, b in zip(*sides, strict=True)]
    judged = [pair[2] for pair in pairs]
    found = {score.metric: score.value for score in TASK.score(table, path, seed=0)}
    assert found["spearman"] == pytest.approx(scipy.stats.spearmanr(cosines, judged).statistic, abs=1e-9)
    assert found["pearson"] == pytest.approx(scipy.stats.pearsonr(cosines, judged).statistic, abs=1e-6)  # float32 means


def test_a_sentence_is_its_own_key_before_it_is_its_words() -> None:
    keys = ("Cold tea.", "cold", "tea", "Tea")
    table = EmbeddingTable(keys, np.array([[9, 9], [1, 0], [0, 1], [5, 5]], dtype=np.float32))
    vectors, held = sentence_vectors(table, ["Cold tea.", "cold tea", "TEA tea cold milk", "milk", "", "12!"])
    np.testing.assert_allclose(vectors, [[9, 9], [0.5, 0.5], [1 / 3, 2 / 3], [0, 0], [0, 0], [0, 0]], rtol=1e-6)
    assert held.tolist() == [True, True, True, False, False, False]


def test_a_table_of_sentences_needs_no_words(tmp_path: Path) -> None:
    angles = np.linspace(0, 3, 30)
    table = EmbeddingTable(
        tuple(f"{i}" for i in range(60)),
        np.concatenate([np.tile([1.0, 0.0], (30, 1)), np.stack([np.cos(angles), np.sin(angles)], axis=1)]).astype(
            np.float32
        ),
    )
    path = written(tmp_path / "ids.tsv", [(f"{i}", f"{30 + i}", -i) for i in range(30)])
    scores = TASK.score(table, path, seed=0)
    assert scores[0].value == pytest.approx(1.0)
    assert scores[0].baseline_name == "" and math.isnan(scores[0].baseline_value)  # numbers have no words
    assert scores[0].beats_baseline is None


def test_tf_idf_weighs_rare_words_more() -> None:
    pairs = [("the owl", "the owl", 5.0), ("the owl", "the cat", 1.0), ("the owl", "an owl", 1.0), ("the", "", 1.0)]
    same, common, rare, nothing = tf_idf_cosines(pairs)
    assert same == pytest.approx(1.0) and 0 < common < rare < 1 and nothing == 0.0
    assert tf_idf_cosines([("1", "2", 0.0)]).tolist() == [0.0]


def test_missing_sentences_lower_the_coverage_and_nothing_else(tmp_path: Path) -> None:
    table = word_table()
    path = planted(tmp_path / "p.tsv", table)
    whole = TASK.score(table, path, seed=0)
    path.write_text("unheard of\tau\t1\n" + path.read_text() + "au\t77\t2\n")
    for score, before in zip(TASK.score(table, path, seed=0), whole, strict=True):
        assert (score.value, score.baseline_value) == pytest.approx((before.value, before.baseline_value), abs=0.01)
        assert score.value == before.value and score.n == 80 and score.coverage == pytest.approx(80 / 82)


def test_a_header_and_packing_change_nothing(tmp_path: Path) -> None:
    pairs: list[tuple[str, str, object]] = [("au av", "aw", 1.5), ("au", "av", -2)]
    plain = written(tmp_path / "a.tsv", pairs)
    headed = written(tmp_path / "b.tsv", pairs, header="first\tsecond\tscore\n")
    packed = tmp_path / "c.tsv.gz"
    packed.write_bytes(gzip.compress(headed.read_bytes()))
    assert read_pairs(plain) == read_pairs(headed) == read_pairs(packed) == pairs


@pytest.mark.data
def test_sick_with_rare_words_longer(data_file: Callable[[str], Path], tmp_path: Path) -> None:
    """Words as random directions, the rarer in the training sentences the longer: means of them are nearly TF-IDF.

    For orientation: the data set's page gives Pearson 0.479 for one kind of TF-IDF overlap on all 4,927 test pairs.
    """

    def sick(part: str) -> list[dict[str, str]]:
        with gzip.open(data_file(f"similarity/sick/{part}.tsv.gz"), "rt", encoding="utf-8") as file:
            return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))

    sentences = sorted({row[name] for row in sick("train") for name in ("sentence_A", "sentence_B")})
    counts = Counter(word for sentence in sentences for word in set(words(sentence)))
    lengths = np.log(len(sentences) / np.array(list(counts.values())))[:, None]
    vectors = lengths * np.random.default_rng(0).standard_normal((len(counts), 100))
    table = EmbeddingTable(tuple(counts), vectors.astype(np.float32))
    rows = sick("test")[:1500]
    path = written(tmp_path / "sick.tsv", [(r["sentence_A"], r["sentence_B"], r["relatedness_score"]) for r in rows])
    for score in TASK.score(table, path, seed=0):
        assert score.coverage > 0.99 and score.ci_low > 0.5
        assert 0.5 < score.baseline_value < 0.7 and score.value == pytest.approx(score.baseline_value, abs=0.07)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no pair"),
        ("a\tb\tscore\n", "holds no pair"),
        ("a\tb\n", "line 1: expected"),
        ("a b 3\n", "line 1: expected"),
        ("a\tb\t1\nc\td\n", "line 2: expected"),
        ("a\tb\t1\nc\td\tx\n", "line 2: expected"),
        ("\n\na\tb\tx\n", "line 3: expected"),
        ("a\tb\tnan\nc\td\tinf\n", "line 2: expected"),
        ("a\t\t1\n", "line 1: expected"),
        ("\tb\t1\n", "line 1: expected"),
        ("a\tb\t1\t2\n", "line 1: expected"),
        ("\ud800\tb\t1\n", "cannot read"),
    ],
)
def test_malformed_files_are_refused_by_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "bad.tsv"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(EvaluationError, match=said):
        read_pairs(path)


def test_refusals(tmp_path: Path) -> None:
    table = word_table()
    path = tmp_path / "p.tsv"
    with pytest.raises(EvaluationError, match="needs a file"):
        TASK.score(table, None, seed=0)
    with pytest.raises(EvaluationError, match="both sentences of 0 of 2 pairs"):
        TASK.score(table, written(path, [("x", "y", 1), ("z", "au", 2)]), seed=0)
    with pytest.raises(EvaluationError, match="both sentences of 1 of 2 pairs"):
        TASK.score(table, written(path, [("au", "av", 1), ("z", "au", 2)]), seed=0)
    with pytest.raises(EvaluationError, match="all equal"):
        TASK.score(table, written(path, [("au", "av", 3), ("aw", "ax", 3)]), seed=0)
    good = planted(path, table)
    for constant in (0.0, 1.7):
        same = EmbeddingTable(table.keys, np.full_like(table.vectors, constant))
        with pytest.raises(EvaluationError, match="all equal"):
            TASK.score(same, good, seed=0)
    with pytest.raises(EvaluationError, match="not finite"):
        TASK.score(EmbeddingTable(table.keys, table.vectors * np.nan), good, seed=0)


def test_it_is_found_by_its_name() -> None:
    assert load_task("sts").name == "sts"
