import gzip

import numpy as np
import pytest
from scipy.stats import binomtest

from common.errors import EvaluationError
from common.evaluation.quality import analogy, load
from common.evaluation.quality._intervals import wilson_interval
from common.evaluation.quality.analogy import answers, read_questions
from common.table import EmbeddingTable

TASK = load("analogy")
SEMANTIC = [("man", "woman"), ("king", "queen"), ("uncle", "aunt"), ("boy", "girl")]
SYNTACTIC = [("walk", "walked"), ("talk", "talked"), ("jump", "jumped")]


def planted(noise=0.05, seed=0):
    """Both sides of a pair share a random base; the second adds its section's direction."""
    rng = np.random.default_rng(seed)
    keys, rows = [], []
    for section in (SEMANTIC, SYNTACTIC):
        direction = rng.standard_normal(20)
        for pair in section:
            base = rng.standard_normal(20)
            keys += pair
            rows += [base, base + direction]
    vectors = np.array(rows) + noise * rng.standard_normal((len(rows), 20))
    return EmbeddingTable(tuple(keys), vectors.astype(np.float32))


def questions_text():
    lines = []
    for heading, section in ((": family", SEMANTIC), (": gram5-past", SYNTACTIC)):
        lines.append(heading)
        lines += [f"{a} {b} {c} {d}" for a, b in section for c, d in section if a != c]
    return "\n".join(lines) + "\n"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "questions-words.txt"
    path.write_text(questions_text())
    return path


def slow_answer(table, a, b, c):
    """3CosAdd word by word."""
    unit = table.vectors / np.linalg.norm(table.vectors, axis=1, keepdims=True)
    wanted = unit[b] - unit[a] + unit[c]
    best, best_row = -np.inf, -1
    for row in range(len(table)):
        if row not in (a, b, c) and unit[row] @ wanted > best:
            best, best_row = unit[row] @ wanted, row
    return best_row


def test_planted_relations_are_found(file):
    every, semantic, syntactic = TASK.score(planted(), file, seed=0)
    assert [s.metric for s in (every, semantic, syntactic)] == ["accuracy", "accuracy_semantic", "accuracy_syntactic"]
    assert (every.n, semantic.n, syntactic.n) == (18, 12, 6)
    assert every.task == "analogy:questions-words"
    assert every.value > 0.8
    assert every.coverage == 1.0
    assert every.baseline_value < 0.4
    assert every.ci_low < every.value <= every.ci_high


def test_answers_equal_the_slow_search_and_never_a_word_of_the_question(monkeypatch):
    monkeypatch.setattr(analogy, "BATCH", 7)
    table = planted(noise=1.0)
    index = np.array([np.random.default_rng(q).choice(len(table), 4, replace=False) for q in range(50)])
    fast = answers(table.unit_vectors, index)
    assert fast.tolist() == [slow_answer(table, a, b, c) for a, b, c, _ in index]
    assert not (fast[:, None] == index[:, :3]).any()


def test_the_vocabulary_is_capped_in_table_order(file, monkeypatch):
    monkeypatch.setattr(analogy, "VOCABULARY", 2 * len(SEMANTIC))
    scores = TASK.score(planted(), file, seed=0)
    assert [s.metric for s in scores] == ["accuracy", "accuracy_semantic"]
    assert scores[0].coverage == pytest.approx(12 / 18)
    assert scores[1].coverage == 1.0


def test_capitals_of_the_file_match_lower_case_keys(tmp_path):
    path = tmp_path / "q.txt.gz"
    path.write_bytes(gzip.compress(questions_text().title().replace(": Gram", ": gram").encode()))
    assert TASK.score(planted(), path, seed=0)[0].coverage == 1.0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no question"),
        (": family\n", "no question"),
        (": a\nx y z\n", "line 2"),
        ("x y z u\n", "none of 1 questions"),
    ],
)
def test_what_cannot_be_scored_is_refused(tmp_path, text, words):
    path = tmp_path / "q.txt"
    path.write_text(text)
    with pytest.raises(EvaluationError, match=words):
        TASK.score(planted(), path, seed=0)
    with pytest.raises(EvaluationError, match="needs a file"):
        TASK.score(planted(), None, seed=0)


def test_sections_are_told_apart(file):
    questions = read_questions(file)
    assert sum(q.syntactic for q in questions) == 6


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (0, 20), (7, 20), (20, 20), (333, 1000)])
def test_the_wilson_interval_agrees_with_scipy(successes, n):
    expected = binomtest(successes, n).proportion_ci(0.95, method="wilson")
    assert wilson_interval(successes, n) == pytest.approx((expected.low, expected.high), abs=1e-12)
