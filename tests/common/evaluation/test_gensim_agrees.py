"""Similarity and analogies beside gensim, on a real table: the standard library's own documentation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gensim.models import KeyedVectors

from common.evaluation.quality import load
from common.table import EmbeddingTable
from simulations.federation import enrolled_work
from simulations.runs import find_scenario

WITHIN = 1e-6


@pytest.fixture(scope="module")
def table() -> EmbeddingTable:
    """The table that the default scenario starts from: public text, 1,000 words."""
    work = enrolled_work(find_scenario(None, ["privacy.mode=central", "federation.secure_aggregation=none",
                                              "privacy.mechanism="]))  # fmt: skip
    start = work.family.initial(work.options, work.specs, work.domain, 0)
    found: EmbeddingTable = next(iter(work.family.export(start, work.domain, work.options).values()))
    return found


@pytest.fixture(scope="module")
def keyed(table: EmbeddingTable) -> KeyedVectors:
    vectors = KeyedVectors(table.dimensions)
    vectors.add_vectors(list(table.keys), table.vectors)
    return vectors


def agrees_on_pairs(table: EmbeddingTable, keyed: KeyedVectors, path: Path) -> None:
    (score,) = load("similarity").score(table, path, seed=0)
    _, spearman, missing = keyed.evaluate_word_pairs(str(path), delimiter="\t")
    assert score.value == pytest.approx(spearman[0], abs=WITHIN)
    assert score.coverage == pytest.approx(1 - missing / 100, abs=WITHIN)


def agrees_on_questions(table: EmbeddingTable, keyed: KeyedVectors, path: Path) -> None:
    scores = load("analogy").score(table, path, seed=0)
    expected, _ = keyed.evaluate_word_analogies(str(path))
    assert scores[0].value == pytest.approx(expected, abs=WITHIN)


def test_pairs_of_its_own_words(table: EmbeddingTable, keyed: KeyedVectors, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pairs = [rng.choice(len(table), 2, replace=False) for _ in range(300)]
    lines = [f"{table.keys[a]}\t{table.keys[b]}\t{rng.integers(0, 10)}\n" for a, b in pairs]  # many judgements tie
    path = tmp_path / "pairs.tsv"
    path.write_text("".join([*lines, "nowhere\tfound\t3\n"]))
    agrees_on_pairs(table, keyed, path)


def test_questions_of_its_own_words(table: EmbeddingTable, keyed: KeyedVectors, tmp_path: Path) -> None:
    path, rng = tmp_path / "questions.txt", np.random.default_rng(1)
    lines = []
    for _ in range(200):  # half of them with the answer that the table gives
        a, b, c = (int(i) for i in rng.choice(len(table), 3, replace=False))
        near = keyed.most_similar(positive=[table.keys[b], table.keys[c]], negative=[table.keys[a]], topn=2)
        lines.append(" ".join([table.keys[a], table.keys[b], table.keys[c], near[int(rng.integers(2))][0]]))
    path.write_text(": section\n" + "\n".join(lines) + "\n")
    agrees_on_questions(table, keyed, path)


@pytest.mark.data
@pytest.mark.parametrize("name", ["EN-WS-353-ALL", "EN-SIMLEX-999", "EN-MTurk-287"])
def test_published_benchmarks(table: EmbeddingTable, keyed: KeyedVectors, data_file: Any, name: str) -> None:
    agrees_on_pairs(table, keyed, data_file(f"similarity/{name}.tsv"))
