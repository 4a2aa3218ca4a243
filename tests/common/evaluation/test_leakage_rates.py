"""Rates and their intervals, against loops over pairs and against scikit-learn; ties are where rankings go wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from common.errors import EvaluationError
from common.evaluation.leakage._rates import (
    auc,
    average_precision,
    clopper_pearson,
    detection_leaks,
    mean_interval,
    ranked,
    ranked_intervals,
    tpr_at,
    tpr_by_chance,
)
from common.evaluation.leakage.membership import ATTACK


def slow_auc(scores: np.ndarray, positive: np.ndarray) -> float:
    pairs = [(a, b) for a in scores[positive] for b in scores[~positive]]
    return sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs) / len(pairs)


def slow_tpr(scores: np.ndarray, positive: np.ndarray, fpr: float, *, ties: bool = False) -> float:
    """Best TPR over all thresholds whose FPR is small enough; broken where ties with the threshold count as hits."""
    negatives, best = scores[~positive], 0.0
    for threshold in np.unique(scores):
        if np.mean(negatives >= threshold) <= fpr or (ties and np.mean(negatives > threshold) <= fpr):
            best = max(best, float(np.mean(scores[positive] >= threshold)))
    return best


def drawn(seed: int, levels: int, n: int = 40) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < 0.4
    positive[:2] = True, False
    return rng.integers(0, levels, n) + 0.5 * positive * rng.integers(0, 3, n), positive


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), levels=st.integers(1, 60), fpr=st.sampled_from([0.0, 0.05, 0.1, 0.5]))
def test_figures_equal_loops(seed: int, levels: int, fpr: float) -> None:
    scores, positive = drawn(seed, levels)
    assert ranked(auc, scores, positive) == pytest.approx(slow_auc(scores, positive), abs=1e-12)
    assert ranked(auc, scores, positive) == pytest.approx(roc_auc_score(positive, scores), abs=1e-12)
    assert ranked(average_precision, scores, positive) == pytest.approx(average_precision_score(positive, scores))
    assert ranked(tpr_at(fpr), scores, positive) == pytest.approx(slow_tpr(scores, positive, fpr))


def test_equal_scores_are_no_hits() -> None:
    """Half of the candidates share the threshold's score: naming all of them would break the false-positive rate."""
    positive = np.arange(200) % 2 == 0
    scores = (np.arange(200) < 100).astype(float)
    assert ranked(tpr_at(0.01), scores, positive) == 0.0 == slow_tpr(scores, positive, 0.01)
    assert slow_tpr(scores, positive, 0.01, ties=True) == 0.5
    assert ranked(auc, np.zeros(200), positive) == 0.5
    assert ranked(auc, np.full(200, -np.inf), positive) == 0.5


def test_infinite_scores_are_ranked_and_numbers_that_are_none_refused() -> None:
    positive = np.array([True, False, True, False])
    assert ranked(auc, np.array([np.inf, 0.0, 1.0, -np.inf]), positive) == 1.0
    with pytest.raises(EvaluationError, match="not a number"):
        ranked(auc, np.array([np.nan, 0.0, 1.0, 2.0]), positive)
    assert math.isnan(ranked(auc, np.arange(4.0), np.ones(4, bool)))


def test_intervals_are_the_percentiles_of_resamples() -> None:
    scores, positive = drawn(3, 30, n=120)
    low, high = ranked_intervals([auc], scores, positive, seed=0)[0]
    rng, slow = np.random.default_rng(9), []
    own, others = scores[positive], scores[~positive]
    for _ in range(300):
        left, right = rng.choice(own, len(own))[:, None], rng.choice(others, len(others))
        slow.append(np.mean((left > right) + 0.5 * (left == right)))
    assert (low, high) == pytest.approx(tuple(np.quantile(slow, [0.025, 0.975])), abs=0.015)
    assert ranked_intervals([auc], scores, positive, seed=0)[0] == (low, high)
    assert ranked_intervals([auc], scores, positive, seed=1)[0] != (low, high)


def test_intervals_cover_what_they_should() -> None:
    """AUC of two normals one stddev apart is Phi(1 / sqrt 2); 95 % intervals hold it in most of 60 samples."""
    true, held = 0.5 * (1 + math.erf(0.5)), 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        positive = np.arange(160) < 80
        low, high = ranked_intervals([auc], rng.normal(size=160) + positive, positive, seed=seed)[0]
        held += low <= true <= high
    assert 51 <= held <= 60  # 57 expected; below 51 with probability 0.003


def test_clopper_pearson_inverts_the_binomial() -> None:
    from scipy.stats import binom

    for successes, n in ((0, 10), (3, 10), (10, 10), (50, 1000)):
        low, high = clopper_pearson(successes, n)
        assert low == 0 if successes == 0 else binom.sf(successes - 1, n, low) == pytest.approx(0.025, abs=1e-9)
        assert high == 1 if successes == n else binom.cdf(successes, n, high) == pytest.approx(0.025, abs=1e-9)


def test_expected_tpr_of_scores_that_say_nothing() -> None:
    rng = np.random.default_rng(0)
    positive = np.arange(400) < 200
    found = [ranked(tpr_at(0.01), rng.random(400), positive) for _ in range(3000)]
    assert np.mean(found) == pytest.approx(tpr_by_chance(0.01, 200), abs=0.0012)
    assert np.mean(found) > 0.01 + 0.003  # what the rate itself as chance would have called a leak


@pytest.mark.parametrize(
    ("negatives", "rates"), [(99, []), (100, ["0.01"]), (999, ["0.01"]), (1000, ["0.01", "0.001"])]
)
def test_a_rate_without_enough_negatives_is_left_out(negatives: int, rates: list[str]) -> None:
    member = np.arange(negatives + 50) < 50
    leaks = detection_leaks(ATTACK, {"x": np.arange(len(member), dtype=float)}, member, seed=0)
    assert [leak.metric for leak in leaks] == ["auc:x", *(f"tpr@{rate}:x" for rate in rates)]
    assert all(leak.value == 0 for leak in leaks)


@pytest.mark.parametrize(("members", "others"), [(100, 400), (400, 100), (40, 1000)])
def test_an_interval_of_a_rate_is_the_wider_of_two(members: int, others: int) -> None:
    rng, member = np.random.default_rng(0), np.arange(members + others) < members
    scores = rng.normal(size=len(member)) + 2 * member
    leak = detection_leaks(ATTACK, {"x": scores}, member, seed=0)[1]
    exact = clopper_pearson(round(leak.value * members), members)
    metrics = [auc, *(tpr_at(fpr) for fpr in (0.01, 0.001)[: 1 + (others >= 1000)])]
    drawn = ranked_intervals(metrics, scores, member, seed=0)[1]
    assert (leak.ci_low, leak.ci_high) == (min(exact[0], drawn[0]), max(exact[1], drawn[1]))
    assert exact != drawn


def test_interval_of_a_mean() -> None:
    values = np.random.default_rng(0).normal(size=400)
    low, high = mean_interval(values, seed=0)
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / 20, rel=0.08) and low < values.mean() < high
    assert all(math.isnan(end) for end in mean_interval(values[:1], seed=0))
