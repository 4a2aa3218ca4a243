"""Figures of the spectrum and TwoNN, against their formulas, frozen values, and tables of known dimension."""

from __future__ import annotations

import math

import numpy as np
import pytest

from common.errors import EvaluationError
from common.evaluation.quality import _rows, load
from common.evaluation.quality.dimension import (
    distance_ratios,
    effective_rank,
    intrinsic_dimension,
    intrinsic_error,
    metrics,
    noise_median,
    signal_share,
    spectrum_figures,
)
from common.evaluation.quality.isotropy import participation_ratio
from common.table import EmbeddingTable

TASK = load("dimension")


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors from 20 parts of a hundred rows: 40 searches among a thousand take a second."""
    monkeypatch.setattr(_rows.subsample_errors, "__kwdefaults__", {"most": 100})
    monkeypatch.setattr(_rows, "SUBSAMPLES", 20)


def table_of(vectors: np.ndarray) -> EmbeddingTable:
    return EmbeddingTable(tuple(map(str, range(len(vectors)))), vectors.astype(np.float32))


def formula_vectors(rows: int = 400, columns: int = 12) -> np.ndarray:
    i, j = np.arange(1, rows + 1)[:, None], np.arange(1, columns + 1)[None, :]
    vectors = np.cos(0.37 * i * (j + 1) + 0.1 * j * j) / np.sqrt(j) + 0.15 * np.sin(i * 1.7) + 0.2
    return vectors.astype(np.float32)


def figures(table: EmbeddingTable) -> dict[str, float]:
    return {score.metric: score.value for score in TASK.score(table, None, seed=0)}


def test_spectrum_equals_the_singular_values_of_the_centred_table() -> None:
    vectors = formula_vectors().astype(np.float64)
    found = figures(table_of(vectors))
    singular = np.linalg.svd(vectors - vectors.mean(axis=0), compute_uv=False)
    share = singular / singular.sum()
    assert found["effective_rank"] == pytest.approx(math.exp(-sum(p * math.log(p) for p in share)), rel=1e-6)
    power = singular**2
    assert found["participation_ratio"] == pytest.approx(power.sum() ** 2 / (power**2).sum(), rel=1e-6)
    for k in (1, 2, 4, 8):
        assert found[f"explained_variance@{k}"] == pytest.approx(power[:k].sum() / power.sum(), rel=1e-6)
    with_mean = np.linalg.svd(vectors, compute_uv=False)  # a mean that is left in counts as a dimension
    assert abs(found["explained_variance@1"] - with_mean[0] ** 2 / (with_mean**2).sum()) > 0.01
    assert metrics(400, 12)[-2:] == ["explained_variance@8", "signal_share"] and len(found) == 8
    assert "signal_share" not in figures(table_of(vectors[:40]))


def test_a_mean_far_from_the_origin_costs_no_digits() -> None:
    vectors = np.round(formula_vectors() * 64) / 64  # so that adding the mean is exact in float32
    assert figures(table_of(vectors + 4096.0))["participation_ratio"] == pytest.approx(
        figures(table_of(vectors))["participation_ratio"], rel=1e-9
    )


def test_twonn_equals_the_reference_and_a_loop() -> None:
    """scikit-dimension 0.5.0: TwoNN().fit(formula_vectors(), rows scaled to 1, in double precision).dimension_."""
    vectors = formula_vectors()
    assert figures(table_of(vectors))["intrinsic_dimension"] == pytest.approx(2.3467967705496773, rel=1e-5)
    unit = vectors.astype(np.float64) / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    near = [sorted(float(np.linalg.norm(a - b)) for b in unit)[1:3] for a in unit]
    ratios = sorted(second / first for first, second in near)
    used = int(0.9 * len(ratios))
    x = [math.log(ratio) for ratio in ratios[:used]]
    y = [-math.log(1 - (i + 1) / len(ratios)) for i in range(used)]
    slope = sum(a * b for a, b in zip(x, y, strict=True)) / sum(a * a for a in x)
    assert intrinsic_dimension(distance_ratios(vectors)) == pytest.approx(slope, rel=1e-5)


@pytest.mark.parametrize("used", [2, 5])
def test_known_dimension_is_found(used: int) -> None:
    """Directions of Gaussian rows in ``used`` + 1 columns of 30 turned ones lie on a sphere of ``used`` dimensions."""
    rng = np.random.default_rng(used)
    turn, _ = np.linalg.qr(rng.normal(size=(30, 30)))
    table = table_of(rng.normal(size=(3000, used + 1)) @ turn[: used + 1] + 1e-6 * rng.normal(size=(3000, 30)))
    scores = {s.metric: s for s in TASK.score(table, None, seed=0)}
    assert scores["intrinsic_dimension"].value == pytest.approx(used, rel=0.08)
    assert scores["participation_ratio"].value == pytest.approx(used + 1, rel=0.02)
    assert scores["intrinsic_dimension"].baseline_value > 12
    twice = np.concatenate([table.vectors, table.vectors[:1000]])
    assert np.array_equal(distance_ratios(twice), distance_ratios(table.vectors))


def test_signal_among_noise_is_counted() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(2000, 40))
    for strength, expected in ((0.0, 0.0), (2.0, 7 / 40)):
        signal = strength * rng.normal(size=(2000, 7)) @ np.linalg.qr(rng.normal(size=(40, 7)))[0].T
        assert figures(table_of(noise + signal))["signal_share"] == pytest.approx(expected)


def test_pure_noise_passes_its_edge_once_in_a_hundred_and_a_lower_edge_is_passed_often() -> None:
    rng = np.random.default_rng(1)
    passed = lower = 0
    for _ in range(200):
        values = np.linalg.eigvalsh(np.cov(rng.normal(size=(160, 40)).T))
        noise = np.median(values) / noise_median(40 / 159)
        passed += signal_share(values, 160) > 0
        lower += values.max() / noise > (1 + math.sqrt(40 / 159)) ** 2
    assert passed <= 8 and lower > 14


@pytest.mark.parametrize("ratio", [0.01, 0.3, 1.0])
def test_median_of_pure_noise(ratio: float) -> None:
    d = 400
    values = np.linalg.eigvalsh(np.cov(np.random.default_rng(0).normal(size=(int(d / ratio) + 1, d)).T))
    assert noise_median(ratio) == pytest.approx(np.median(values), rel=0.02)


def test_effective_rank_of_equal_and_single_values() -> None:
    assert effective_rank(np.ones(6)) == pytest.approx(6)
    assert effective_rank(np.array([4.0, 0, 0])) == pytest.approx(1)
    assert effective_rank(np.array([4.0, 1.0])) == pytest.approx(
        math.exp(-(2 / 3 * math.log(2 / 3) + math.log(1 / 3) / 3))
    )
    assert np.isnan(spectrum_figures(np.zeros((4, 4)), 50)).all()


def test_score_fields_and_directions() -> None:
    rng = np.random.default_rng(2)
    vectors = rng.normal(size=(1500, 12)) * np.linspace(0.3, 1, 12)
    vectors[:150] = 0
    scores = TASK.score(table_of(vectors), None, seed=0)
    for score in scores:
        assert score.ci_low <= score.value <= score.ci_high and score.n == 1350 and score.coverage == 0.9
        assert score.higher_is_better == (not score.metric.startswith("explained")) and not math.isnan(score.ci_high)
    assert scores == TASK.score(table_of(vectors), None, seed=0)


def test_interval_of_the_participation_ratio_covers_the_truth() -> None:
    scale = np.array([1.0, 1.0, 2.0, 0.5])
    truth = (scale**2).sum() ** 2 / (scale**4).sum()
    values, errors = [], []
    for trial in range(40):
        vectors = np.random.default_rng(trial).normal(size=(500, 4)) * scale
        rows = _rows.table_rows(table_of(vectors), np.arange(500))
        found = _rows.moments(rows, trial)
        values.append(participation_ratio(found.covariance(_rows.all_groups(rows))))
        halves = _rows.half_sample_errors(lambda half, m=found: participation_ratio(m.covariance(half)), 50, trial)
        errors.append(float(halves))
    assert np.sum(np.abs(np.array(values) - truth) <= 1.96 * np.array(errors)) >= 35
    assert 0.8 < np.mean(errors) / np.std(values) < 1.25


def test_error_of_twonn_is_as_large_as_tables_of_one_kind_differ() -> None:
    values, errors = [], []
    for trial in range(30):
        vectors = np.random.default_rng(trial).normal(size=(400, 5)).astype(np.float32)
        values.append(intrinsic_dimension(distance_ratios(vectors)))
        errors.append(intrinsic_error(vectors, trial))
    assert 0.75 < np.mean(errors) / np.std(values) < 1.4  # 2/3 or 3/2 of it would be noticed


@pytest.mark.parametrize(
    ("vectors", "said"),
    [
        (np.ones((50, 4)), "same way"),
        (np.zeros((50, 4)), "has 0"),
        (np.random.default_rng(0).normal(size=(19, 4)), "has 19"),
        (np.repeat(np.eye(4), 20, axis=0), "4 of 80 rows are different"),
        (np.concatenate([np.eye(15), -np.eye(15)]), "too few distances"),
        (np.full((50, 4), np.inf), "NaN"),
    ],
)
def test_degenerate_tables_are_refused(vectors: np.ndarray, said: str) -> None:
    with pytest.raises(EvaluationError, match=said):
        TASK.score(table_of(vectors), None, seed=0)
