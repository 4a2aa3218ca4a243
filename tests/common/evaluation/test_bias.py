"""WEAT against its definition spelt out, against WEFE's frozen values, and what it refuses."""

from __future__ import annotations

import itertools
import json
import lzma
import math
import re
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import permutation_test

from common.errors import EvaluationError
from common.evaluation.quality import bias as module
from common.evaluation.quality import load
from common.evaluation.quality._word_sets import read_word_sets
from common.evaluation.quality.bias import association, associations, effect_size, p_value
from common.table import EmbeddingTable

TASK = load("bias")


def words(begin: int, end: int) -> list[str]:
    return [f"w{i}" for i in range(begin, end)]


def formula_table(rows: int = 400, columns: int = 12) -> EmbeddingTable:
    i, j = np.arange(1, rows + 1)[:, None], np.arange(1, columns + 1)[None, :]
    vectors = np.cos(0.37 * i * (j + 1) + 0.1 * j * j) / np.sqrt(j) + 0.15 * np.sin(i * 1.7) + 0.2
    return EmbeddingTable(tuple(words(0, rows)), vectors.astype(np.float32))


def sets_file(path: Path, x: list[str], y: list[str], a: list[str], b: list[str]) -> Path:
    path.write_text(json.dumps({"targets": {"x": x, "y": y}, "attributes": {"a": a, "b": b}}))
    return path


def slow_s(table: EmbeddingTable, word: str, a: list[str], b: list[str]) -> float:
    def cosine(u: str, v: str) -> float:
        p, q = (table.vectors[table.row_of[w]].astype(float) for w in (u, v))
        return float(p @ q / math.sqrt(p @ p) / math.sqrt(q @ q))

    return sum(cosine(word, v) for v in a) / len(a) - sum(cosine(word, v) for v in b) / len(b)


def slow_p(s: list[float], first: int) -> float:
    """Every way to deal the words, one by one; sums are rounded so that equal ones are equal."""
    bar, total, hits = round(sum(s[:first]), 10), 0, 0
    for chosen in itertools.combinations(range(len(s)), first):
        total, hits = total + 1, hits + (round(sum(s[i] for i in chosen), 10) >= bar)
    return hits / total


# WEFE 1.0.1 (numpy 1.26.4, gensim 4.4.0): WEAT().run_query(query, model) on formula_table() as KeyedVectors.
WEFE_FORMULA = [
    (((0, 8), (8, 16), (16, 24), (24, 32)), -0.08082536747679114, -0.15911079710955395),
    (((40, 53), (60, 70), (80, 85), (90, 99)), 0.5913639455205865, 0.41204945342863264),
]


@pytest.mark.parametrize(("ranges", "statistic", "effect"), WEFE_FORMULA)
def test_equals_wefe_and_the_definition(ranges: tuple, statistic: float, effect: float, tmp_path: Path) -> None:
    table = formula_table()
    x, y, a, b = (words(*ends) for ends in ranges)
    scores = {s.metric: s for s in TASK.score(table, sets_file(tmp_path / "s.json", x, y, a, b), seed=0)}
    assert scores["statistic"].value == pytest.approx(statistic, abs=1e-6)
    assert scores["effect_size"].value == pytest.approx(effect, abs=1e-6)
    sx, sy = ([slow_s(table, word, a, b) for word in side] for side in (x, y))
    assert scores["statistic"].value == pytest.approx(sum(sx) - sum(sy), abs=1e-6)
    spread = np.std(sx + sy)
    assert scores["effect_size"].value == pytest.approx((np.mean(sx) - np.mean(sy)) / spread, abs=1e-6)
    other = (np.mean(sx) - np.mean(sy)) / np.std(sx + sy, ddof=1)  # the other convention would be noticed
    assert abs(scores["effect_size"].value - other) > 1e-3
    for score in scores.values():
        assert score.ci_low <= score.value <= score.ci_high
        assert score.n == len(x) + len(y) and score.coverage == 1.0 and score.task == "bias:s"
    assert scores["effect_size"].baseline_value == 0.0 and not scores["effect_size"].higher_is_better


def novel_table(file: Path, *, books: int = 8, contexts: int = 300, dimensions: int = 50) -> EmbeddingTable:
    """Factors of the positive pointwise mutual information of words within 5 words, in the first novels."""
    with lzma.open(file, "rt", encoding="utf-8") as lines:
        texts = [re.findall(r"[a-z]+", json.loads(line)["text"].lower()) for line in islice(lines, books)]
    count = Counter(word for text in texts for word in text)
    known = sorted((word for word, c in count.items() if c >= 5), key=lambda word: (-count[word], word))
    number = {word: i for i, word in enumerate(known)}
    seen = np.zeros(len(known) * contexts)
    for text in texts:
        ids = np.array([number.get(word, -1) for word in text])
        for step in range(1, 6):
            for a, b in ((ids[:-step], ids[step:]), (ids[step:], ids[:-step])):
                kept = (a >= 0) & (b >= 0) & (b < contexts)
                seen += np.bincount(a[kept] * contexts + b[kept], minlength=len(seen))
    seen = seen.reshape(-1, contexts)
    expected = seen.sum(axis=1, keepdims=True) * seen.sum(axis=0) / seen.sum()
    ppmi = np.log(np.maximum(seen / np.maximum(expected, 1e-12), 1.0))
    _, axes = np.linalg.eigh(ppmi.T @ ppmi)
    return EmbeddingTable(tuple(known), (ppmi @ axes[:, -dimensions:]).astype(np.float32))


# WEFE 1.0.1 on novel_table() as KeyedVectors: run_query(query, model, preprocessors=[{}, {"lowercase": True}]).
WEFE_NOVELS = [
    (("male_terms", "female_terms", "pleasant_9", "unpleasant_9"), -0.1623948346823454, -0.5948333489865425),
    (("pleasant_9", "unpleasant_9", "male_terms_2", "female_terms_2"), -0.1286685597151518, -0.2933606600729013),
    (("male_terms_2", "female_terms_2", "permanent", "mental_disease"), 0.14694959794481582, 0.6280929365926105),
]


@pytest.mark.data
def test_equals_wefe_on_a_trained_table(data_file: Callable[[str], Path], tmp_path: Path) -> None:
    """Takes three seconds: the table is counted from eight novels."""
    table = novel_table(data_file("text/novels94.jsonl.xz"))
    lists = json.loads(data_file("lexicons/WEAT.json").read_text())
    for names, statistic, effect in WEFE_NOVELS:
        sets = sets_file(tmp_path / "sets.json", *(lists[name] for name in names))
        scores = {score.metric: score for score in TASK.score(table, sets, seed=0)}
        assert scores["statistic"].value == pytest.approx(statistic, abs=1e-6)
        assert scores["effect_size"].value == pytest.approx(effect, abs=1e-6)
        assert (scores["p_value"].coverage < 1) == ("permanent" in names)
    career = ("male_terms_2", "female_terms_2", "career", "family")  # 6 of 8 words of career: WEFE answers NaN
    with pytest.raises(EvaluationError, match="6 of the 8 words of a"):
        TASK.score(table, sets_file(tmp_path / "sets.json", *(lists[name] for name in career)), seed=0)


@pytest.mark.parametrize(("first", "second", "seed"), [(2, 2, 0), (4, 4, 1), (3, 6, 2), (5, 5, 3)])
def test_exact_p_values_equal_counting(first: int, second: int, seed: int) -> None:
    s = np.random.default_rng(seed).normal(size=first + second) + np.repeat([0.5, 0.0], [first, second])
    found, ends = p_value(s, first, seed=0)
    assert found == pytest.approx(slow_p(s.tolist(), first), abs=1e-12) and ends == (found, found)
    reference = permutation_test(
        (s[:first], s[first:]), lambda a, b: a.mean() - b.mean(), alternative="greater", vectorized=False
    )
    assert found == pytest.approx(reference.pvalue, abs=1e-12)


def test_equal_statistics_count_as_reached_whatever_the_order_of_adding() -> None:
    s = np.array([0.1, 0.2, 0.3, 0.1, 0.2, 0.3])
    assert p_value(s, 3, seed=0)[0] == pytest.approx(slow_p(s.tolist(), 3))
    assert p_value(np.zeros(6), 3, seed=0)[0] == 1.0


def test_drawn_p_values_come_near_the_exact_one_and_are_never_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    s = np.random.default_rng(5).normal(size=16) + np.repeat([0.8, 0.0], 8)
    exact, _ = p_value(s, 8, seed=0)
    monkeypatch.setattr(module, "EXACT", 1)
    monkeypatch.setattr(module, "DRAWN", 20_000)
    found, (low, high) = p_value(s, 8, seed=0)
    assert 0 < exact < 0.3 and low < exact < high and high - low < 0.02
    assert p_value(s, 8, seed=0)[0] == found != p_value(s, 8, seed=1)[0]
    apart = np.concatenate([np.linspace(1, 2, 20), np.linspace(-2, -1, 20)])
    assert p_value(apart, 20, seed=0)[0] == 1 / 20_001
    assert p_value(-apart, 20, seed=0)[0] == 1.0


def test_p_values_of_no_association_are_uniform_and_with_replacement_they_are_not() -> None:
    """What deals words with replacement (as WEFE 1.0.1 does) is no permutation test: its tail is too thin or fat."""
    rng = np.random.default_rng(0)
    samples = rng.normal(size=(400, 8))
    ours = np.array([p_value(s, 4, seed=0)[0] for s in samples])
    for level in (0.1, 0.5, 0.9):
        assert abs(np.mean(ours <= level + 1e-9) - math.floor(level * 70) / 70) < 0.07
    s = np.array([1.0, 0, 0, 0, 0, 0, 0, 0])
    drawn = rng.choice(s, size=(20_000, 8))
    broken = np.mean(drawn[:, :4].sum(axis=1) - drawn[:, 4:].sum(axis=1) >= 1)
    assert p_value(s, 4, seed=0)[0] == 0.5 and broken < 0.4


def test_planted_bias_is_found_and_its_sign_follows_the_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    centre = np.array([[1.0, 0.2, 0], [0.2, 1.0, 0]])
    vectors = np.concatenate([centre[i] + 0.1 * rng.normal(size=(8, 3)) for i in (0, 1, 0, 1)])
    table = EmbeddingTable(tuple(words(0, 32)), vectors.astype(np.float32))
    x, y, a, b = words(0, 8), words(8, 16), words(16, 24), words(24, 32)
    statistic, effect, p = TASK.score(table, sets_file(tmp_path / "s.json", x, y, a, b), seed=0)
    assert effect.value > 1.9 and statistic.ci_low > 0 and effect.beats_baseline is False
    assert p.value == 1 / math.comb(16, 8) and p.beats_baseline is None
    turned = TASK.score(table, sets_file(tmp_path / "s.json", y, x, a, b), seed=0)
    assert turned[1].value == pytest.approx(-effect.value) and turned[2].value == 1.0 and turned[1].beats_baseline
    cosines = module._cosines(table, list(range(16)), list(range(16, 32)))
    assert association(cosines, 8, 8, seed=0).effect_size == pytest.approx(effect.value)
    assert association(cosines[:, ::-1], 8, 8, seed=0).effect_size == pytest.approx(-effect.value)
    assert math.isnan(effect_size(np.full(6, 0.3), 3))
    assert associations(np.array([[1.0, 0.0, 0.5]]), 2) == pytest.approx([0.0])


def test_toml_with_several_tests_and_words_in_lower_case(tmp_path: Path) -> None:
    file = tmp_path / "sets.toml"
    test = "targets = {x = ['W0', 'w1'], y = ['w2', 'w3']}\nattributes = {a = ['w4', 'w5'], b = ['w6', 'w7']}\n"
    file.write_text(f"[one]\n{test}[two]\n{test}")
    assert [s.name for s in read_word_sets(file)] == ["one", "two"]
    scores = TASK.score(formula_table(), file, seed=0)
    assert [s.task for s in scores] == ["bias:sets:one"] * 3 + ["bias:sets:two"] * 3
    assert scores[0].value == scores[3].value and scores[0].coverage == 1.0
    file.write_text(test)
    assert [(s.name, s.targets, s.attributes) for s in read_word_sets(file)] == [("", ("x", "y"), ("a", "b"))]


def test_the_file_that_the_documentation_shows_is_read(root: Path, tmp_path: Path) -> None:
    page = (root / "docs" / "quality-tasks.md").read_text(encoding="utf-8")
    block = re.search(r"^```\n(\[science-arts\]\n.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert block is not None
    file = tmp_path / "sets.toml"
    file.write_text(block.group(1))
    (test,) = read_word_sets(file)
    assert (test.name, test.targets, test.attributes) == ("science-arts", ("science", "arts"), ("male", "female"))


GOOD = {"targets": {"x": ["a", "b"], "y": ["c", "d"]}, "attributes": {"a": ["e", "f"], "b": ["g", "h"]}}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([], "no test"),
        ({}, "no test"),
        ({"targets": GOOD["targets"]}, "exactly targets and attributes"),
        (GOOD | {"more": 1}, "exactly targets and attributes"),
        ({"one": 3}, "exactly targets and attributes"),
        (GOOD | {"targets": {"x": ["a", "b"]}}, "two named lists"),
        (GOOD | {"targets": [["a", "b"], ["c", "d"]]}, "two named lists"),
        (GOOD | {"targets": {"x": ["a"], "y": ["c", "d"]}}, "2 or more different"),
        (GOOD | {"targets": {"x": ["a", "a"], "y": ["c", "d"]}}, "2 or more different"),
        (GOOD | {"targets": {"x": ["a", 3], "y": ["c", "d"]}}, "list of words"),
        (GOOD | {"targets": {"x": "ab", "y": ["c", "d"]}}, "list of words"),
        (GOOD | {"targets": {"x": ["a", "b"], "y": ["b", "d"]}}, "both sides"),
    ],
)
def test_malformed_word_sets_are_refused(data: object, said: str, tmp_path: Path) -> None:
    file = tmp_path / "sets.json"
    file.write_text(json.dumps(data))
    with pytest.raises(EvaluationError, match=said):
        read_word_sets(file)


@pytest.mark.parametrize("name", ["sets.json", "sets.toml"])
@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"{", b"[" * 100_000, b" " * (2 << 20)])
def test_unreadable_files_are_refused(name: str, content: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(EvaluationError):
        read_word_sets(file)
    with pytest.raises(EvaluationError, match="needs word sets"):
        TASK.score(formula_table(), None, seed=0)


def test_too_many_missing_words_and_degenerate_vectors_are_refused(tmp_path: Path) -> None:
    table = formula_table()
    y, a, b = words(5, 10), words(10, 15), words(15, 20)
    for missing, fails in ((1, False), (2, True)):
        x = words(0, 5 - missing) + [f"absent{i}" for i in range(missing)]
        file = sets_file(tmp_path / "s.json", x, y, a, b)
        if not fails:
            assert TASK.score(table, file, seed=0)[0].coverage == 0.95
            continue
        with pytest.raises(EvaluationError, match="3 of the 5 words of x"):
            TASK.score(table, file, seed=0)
    file = sets_file(tmp_path / "s.json", words(0, 5), y, a, b)
    for bad, said in ((0.0, "no direction"), (np.nan, "no direction"), (np.inf, "no direction")):
        vectors = table.vectors.copy()
        vectors[7] = bad
        with pytest.raises(EvaluationError, match=said):
            TASK.score(EmbeddingTable(table.keys, vectors), file, seed=0)
    with pytest.raises(EvaluationError, match="associated alike"):
        TASK.score(EmbeddingTable(table.keys, np.ones((400, 3), np.float32)), file, seed=0)
