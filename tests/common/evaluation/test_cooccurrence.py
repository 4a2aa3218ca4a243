"""The co-occurrence task against slow counting, and on tables whose worth is known."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from common.errors import EvaluationError
from common.evaluation.quality import cooccurrence, load
from common.evaluation.quality.cooccurrence import (
    MIN_LETTERS,
    MIN_PMI_NATS,
    MIN_TOGETHER,
    MIN_WINDOWS,
    WINDOW_WORDS,
    area_under_curve,
    public_text,
)
from common.table import EmbeddingTable
from common.text import words
from simulations import corpora

TASK = load("cooccurrence")
# Pairs as specific as the task asks for: 40 groups of four words, 60 texts each.
GROUPS = [[f"w{chr(97 + g // 26)}{chr(97 + g % 26)}{tail}" for tail in ("one", "two", "six", "ten")] for g in range(40)]


def texts() -> list[str]:
    rng = np.random.default_rng(5)
    return [" ".join(rng.permutation(group)) + " with the rest" for group in GROUPS for _ in range(60)]


def table_of(quality: float, seed: int = 0) -> EmbeddingTable:
    rng = np.random.default_rng(seed)
    keys = tuple(word for group in GROUPS for word in group)
    centre = np.repeat(rng.standard_normal((len(GROUPS), 16)), 4, axis=0)
    noise = rng.standard_normal((len(keys), 16))
    return EmbeddingTable(keys, (quality * centre + (1 - quality) * noise).astype(np.float32))


@pytest.fixture
def benchmark(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(texts()))
    return path


def test_pairs_equal_slow_counting() -> None:
    corpus = [r.value for r in corpora.load("planted")][:400] + texts()[:200]
    windows = []
    for text in corpus:
        found = words(text)
        windows += [set(found[i : i + WINDOW_WORDS]) for i in range(0, len(found), WINDOW_WORDS)]
    every = sorted({w for window in windows for w in window if len(w) >= MIN_LETTERS})
    count = {w: sum(w in window for window in windows) for w in every}
    frequent = [w for w in every if count[w] >= MIN_WINDOWS]
    expected = set()
    for a, b in itertools.combinations(frequent, 2):
        both = sum(a in window and b in window for window in windows)
        if both >= MIN_TOGETHER and np.log(both * len(windows) / (count[a] * count[b])) >= MIN_PMI_NATS:
            expected.add((a, b))
    got = public_text(corpus)
    assert got.words == tuple(frequent)
    assert {(got.words[a], got.words[b]) for a, b in got.pairs} == expected
    assert expected


@pytest.mark.parametrize("seed", range(3))
def test_area_equals_counting_all_comparisons(seed: int) -> None:
    rng = np.random.default_rng(seed)
    similarity = rng.integers(0, 8, 60).astype(float)
    label = rng.random(60) < 0.4
    wins = [(a > b) + 0.5 * (a == b) for a in similarity[label] for b in similarity[~label]]
    assert area_under_curve(similarity, label) == pytest.approx(np.mean(wins))


def test_good_table_scores_high_and_random_table_at_chance(benchmark: Path) -> None:
    good, half, bad = (TASK.score(table_of(q), benchmark, seed=1)[0] for q in (1.0, 0.5, 0.0))
    assert good.value > 0.99
    assert bad.ci_low < 0.5 < bad.ci_high
    assert good.value > half.value > 0.75
    assert half.ci_low < half.value < half.ci_high
    assert half.beats_baseline
    assert bad.coverage == good.coverage == 1.0
    assert good.task == "cooccurrence:texts.txt"


def test_spelling_is_named_as_the_baseline_where_it_explains_the_pairs(benchmark: Path) -> None:
    score = TASK.score(table_of(0.2), benchmark, seed=1)[0]
    assert score.baseline_name == "similar spelling"
    assert score.baseline_value > 0.9
    assert not score.beats_baseline


def test_coverage_is_the_share_of_pairs_in_the_table(benchmark: Path) -> None:
    whole = table_of(1.0)
    kept = 4 * 10
    part = EmbeddingTable(whole.keys[:kept], whole.vectors[:kept])
    assert TASK.score(part, benchmark, seed=1)[0].coverage == pytest.approx(0.25)


def test_same_seed_same_score(benchmark: Path) -> None:
    assert TASK.score(table_of(0.4), benchmark, seed=3) == TASK.score(table_of(0.4), benchmark, seed=3)


def test_too_few_pairs_and_unreadable_files_are_refused(benchmark: Path, tmp_path: Path) -> None:
    strange = EmbeddingTable(("xx", "yy"), np.eye(2, dtype=np.float32))
    with pytest.raises(EvaluationError, match="0 of"):
        TASK.score(strange, benchmark, seed=0)
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(EvaluationError, match="0 of 0"):
        TASK.score(strange, tmp_path / "empty.txt", seed=0)
    with pytest.raises(EvaluationError, match="cannot read"):
        TASK.score(strange, tmp_path / "absent.txt", seed=0)


def test_own_text_needs_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cooccurrence, "stdlib_documentation", lambda: (("module.py", text) for text in texts()))
    score = TASK.score(table_of(1.0), None, seed=0)[0]
    assert score.task == "cooccurrence"
    assert score.value > 0.99
