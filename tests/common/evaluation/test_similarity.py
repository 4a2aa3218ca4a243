import gzip
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import EvaluationError
from common.evaluation.quality import load
from common.evaluation.quality.similarity import bootstrap_interval, read_pairs, spearman
from common.table import EmbeddingTable

TASK = load("similarity")


def planted(n=40, seed=0):
    """Words w0 .. w(n-1) on a half circle: the cosine of two falls with the distance of their numbers."""
    angles = np.linspace(0, np.pi, n)
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    return EmbeddingTable(tuple(f"w{i}" for i in range(n)), vectors)


def pairs_file(path, separator="\t", header="", n=40):
    rng = np.random.default_rng(1)
    chosen = [rng.choice(n, 2, replace=False) for _ in range(60)]
    path.write_text(header + "".join(f"w{a}{separator}w{b}{separator}{-abs(a - b)}\n" for a, b in chosen))
    return path


def test_perfect_order_scores_one(tmp_path):
    (score,) = TASK.score(planted(), pairs_file(tmp_path / "distances.tsv"), seed=0)
    assert score.value == pytest.approx(1.0, abs=0.005)  # equal distances have cosines that differ by rounding
    assert (score.task, score.metric, score.n, score.coverage) == ("similarity:distances", "spearman", 60, 1.0)
    assert score.ci_low <= score.value <= score.ci_high + 1e-12
    assert abs(score.baseline_value) < 0.5
    assert score.beats_baseline


@pytest.mark.parametrize("separator", ["\t", ",", " ", ", "])
@pytest.mark.parametrize("header", ["", "# comment\n", "word1\tword2\tscore\n"])
def test_every_separator_reads_the_same(tmp_path, separator, header):
    header = header.replace("\t", separator)
    pairs = read_pairs(pairs_file(tmp_path / "pairs.txt", separator, header))
    assert pairs == read_pairs(pairs_file(tmp_path / "plain.tsv"))


def test_compressed_file(tmp_path):
    plain = pairs_file(tmp_path / "p.tsv")
    packed = tmp_path / "p.tsv.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert read_pairs(packed) == read_pairs(plain)
    assert TASK.score(planted(), packed, seed=0)[0].task == "similarity:p"


def test_missing_words_lower_the_coverage_and_nothing_else(tmp_path):
    file = pairs_file(tmp_path / "p.tsv")
    file.write_text(file.read_text() + "unknown\tw1\t3\nw1\tabsent\t3\n")
    (score,) = TASK.score(planted(), file, seed=0)
    assert score.n == 60
    assert score.coverage == pytest.approx(60 / 62)
    assert score.value == pytest.approx(1.0, abs=0.005)


def test_words_are_found_as_spelt_before_they_are_found_in_lower_case(tmp_path):
    vectors = np.array([[1, 0], [0, 1], [1, 0.1], [0.5, 1]], dtype=np.float32)
    table = EmbeddingTable(("polish", "Polish", "shine", "warsaw"), vectors)
    file = tmp_path / "p.tsv"
    file.write_text("polish\tshine\t9\nPolish\tWarsaw\t8\npolish\tWARSAW\t1\nPolish\tshine\t0\n")
    (score,) = TASK.score(table, file, seed=0)
    assert score.n == 4
    assert score.value == pytest.approx(1.0, abs=0.005)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("absent\tunknown\t1\n", "0 of 1 pairs"),
        ("w1\tw2\t5\nw3\tw4\t5\nw5\tw6\t5\n", "all equal"),
        ("", "no pair"),
        ("w1\tw2\t1\nw1\tw2\n", "line 2"),
        ("w1\tw2\t1\nw1\tw2\tnan\n", "line 2"),
        ("w1\n", "line 1"),
        ("w" * 2000, "characters"),
    ],
)
def test_what_cannot_be_scored_is_refused(tmp_path, text, words):
    file = tmp_path / "p.tsv"
    file.write_text(text)
    with pytest.raises(EvaluationError, match=words):
        TASK.score(planted(), file, seed=0)


def test_constant_table_is_refused(tmp_path):
    table = EmbeddingTable(planted().keys, np.zeros((40, 3), np.float32))
    with pytest.raises(EvaluationError, match="all equal"):
        TASK.score(table, pairs_file(tmp_path / "p.tsv"), seed=0)


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00bad"])
def test_unreadable_files_are_refused(tmp_path, content):
    file = tmp_path / "p.tsv"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(EvaluationError, match="cannot read"):
        TASK.score(planted(), file, seed=0)


def test_damaged_gzip_and_missing_argument_are_refused(tmp_path):
    file = tmp_path / "p.tsv.gz"
    file.write_bytes(gzip.compress(b"w1\tw2\t1\n" * 50)[:-12])
    with pytest.raises(EvaluationError, match="cannot read"):
        TASK.score(planted(), file, seed=0)
    with pytest.raises(EvaluationError, match="needs a file"):
        TASK.score(planted(), None, seed=0)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=30))
def test_spearman_agrees_with_scipy(values):
    left, right = (np.array(side, dtype=float) for side in zip(*values, strict=True))
    ours = spearman(left, right)
    if len(set(left)) < 2 or len(set(right)) < 2:
        assert math.isnan(ours)
    else:
        assert ours == pytest.approx(scipy.stats.spearmanr(left, right).statistic, abs=1e-12)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rho = 0.5
    truth = 6 / np.pi * np.arcsin(rho / 2)  # Spearman's rho of a bivariate normal
    hits = 0
    for trial in range(60):
        x, noise = np.random.default_rng(trial).standard_normal((2, 120))
        low, high = bootstrap_interval(x, rho * x + np.sqrt(1 - rho**2) * noise, seed=trial, resamples=100)
        hits += low <= truth <= high
    assert 51 <= hits <= 60  # 95 % of 60 is 57; a 2/3 as wide interval would cover 81 %, or 49


def test_the_interval_narrows_with_more_pairs_and_follows_the_seed():
    x, noise = np.random.default_rng(0).standard_normal((2, 400))
    y = x + noise
    few = bootstrap_interval(x[:40], y[:40], seed=1, resamples=200)
    many = bootstrap_interval(x, y, seed=1, resamples=200)
    assert many[1] - many[0] < 0.6 * (few[1] - few[0])
    assert many == bootstrap_interval(x, y, seed=1, resamples=200)
    assert many != bootstrap_interval(x, y, seed=2, resamples=200)
