"""No bound lies above the truth more often than it says, and none is weaker than it must be.

10,000 simulated audits of a mechanism that spends exactly epsilon, at each of five epsilons. A bound exceeds the truth
in a run just where its test rejects the truth, so that counts are compared with critical counts and no bound is solved.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from scipy.special import ndtr

from common.evaluation.audit import bounds, one_run, power
from common.evaluation.audit.bounds import ErrorCounts
from common.evaluation.audit.methods import ONE_RUN, ONE_RUN_FDP
from common.evaluation.audit.one_run import Guesses, critical_right
from common.evaluation.audit.thresholds import Bonferroni, best_bound

RUNS, DELTA, ALPHA = 10_000, 1e-5, 0.05
EPSILONS = (0.0, 0.5, 1.0, 3.0, 8.0)


def most_violations(alpha: float) -> float:
    """More of them in so many runs would happen once in 1,000 series to a test that is exact."""
    return float(stats.binom.ppf(0.999, RUNS, alpha))


def mu_of(epsilon: float) -> float:
    return bounds.mu_of_epsilon(epsilon, DELTA) if epsilon > 0 else 0.0


@functools.cache
def answers(canaries: int) -> NDArray[np.bool_]:
    return np.random.default_rng(canaries).random((RUNS, canaries)) < 0.5


def independent(epsilon: float) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """200 canaries in rows of their own."""
    included = answers(200)
    noise = np.random.default_rng(1).standard_normal(included.shape, dtype=np.float32)
    return noise + np.float32(mu_of(epsilon)) * included, included


def correlated(epsilon: float) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """60 canaries in 15 dimensions: each is hidden as it should be, but the scores depend on one another."""
    included, rng = answers(60), np.random.default_rng(2)
    directions = rng.normal(size=(60, 15))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    released = mu_of(epsilon) * included @ directions + rng.normal(size=(RUNS, 15))
    return released @ directions.T, included


def one_noise(epsilon: float) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """60 canaries that share most of their noise, each hidden as it should be: Sigma^-1 has the diagonal 1."""
    included, rng = answers(60), np.random.default_rng(3)
    shared = rng.normal(size=(RUNS, 1)) * 5
    covariance = np.eye(60) + 25.0
    scale = math.sqrt(float(np.linalg.inv(covariance)[0, 0]))
    return mu_of(epsilon) / scale * included + shared + rng.normal(size=(RUNS, 60)), included


def right_guesses(scores: NDArray[np.float64], included: NDArray[np.bool_], each: int) -> NDArray[np.int64]:
    """Right ones of 2 x ``each`` guesses in every run, where no scores are equal."""
    order = np.argpartition(scores, (each, scores.shape[1] - each), axis=1)
    low = np.take_along_axis(included, order[:, :each], axis=1)
    high = np.take_along_axis(included, order[:, -each:], axis=1)
    return np.asarray((~low).sum(axis=1) + high.sum(axis=1))


def test_fast_counts_are_those_of_the_guesses() -> None:
    scores, included = independent(1.0)
    fast = right_guesses(scores[:20], included[:20], 25)
    slow = [one_run.guesses(s, i, top=25, bottom=25).right for s, i in zip(scores[:20], included[:20], strict=True)]
    assert fast.tolist() == slow


@pytest.mark.parametrize("epsilon", EPSILONS)
@pytest.mark.parametrize("problem", [independent, correlated, one_noise])
def test_one_run_bounds_cover(problem: object, epsilon: float) -> None:
    scores, included = problem(epsilon)  # type: ignore[operator]
    made = 2 * (scores.shape[1] // 8)
    right = right_guesses(scores, included, made // 2)
    mu = mu_of(epsilon)
    refuted = {
        ONE_RUN: lambda found: one_run.p_value(found, epsilon=epsilon, delta=DELTA) <= ALPHA,
        ONE_RUN_FDP: lambda found: one_run.rejects_mu(found, mu=mu, alpha=ALPHA),
    }
    for method, rejected in refuted.items():
        fewest = critical_right(scores.shape[1], made, refuted=rejected)
        violations = 0 if fewest is None else int((right >= fewest).sum())
        assert violations <= most_violations(ALPHA), method


def test_coverage_notices_a_bound_at_three_times_its_error_rate() -> None:
    """The one-run test is tight at epsilon 0: at 3 alpha it must be seen."""
    scores, included = independent(0.0)
    right = right_guesses(scores, included, 25)
    fewest = critical_right(200, 50, refuted=lambda f: one_run.p_value(f, epsilon=0.0, delta=0.0) <= 3 * ALPHA)
    assert int((right >= (fewest or 0)).sum()) > most_violations(ALPHA)


@pytest.mark.parametrize("epsilon", EPSILONS)
@pytest.mark.parametrize("alpha", [ALPHA, 1e-3])
def test_threshold_bounds_cover(epsilon: float, alpha: float) -> None:
    """At thresholds from one end of the scores to the other."""
    rng, mu = np.random.default_rng(4), mu_of(epsilon)
    full = np.full(RUNS, 500)
    for at in (-1.0, 0.0, mu / 2, mu, mu + 1.0, 2.5):
        fp, fn = rng.binomial(500, ndtr(-at), RUNS), rng.binomial(500, ndtr(at - mu), RUNS)
        counts = ErrorCounts(fp, full, fn, full)
        above = (
            (bounds.mu_bound(counts, alpha=alpha) > mu).sum(),
            (bounds.epsilon_bound(counts, delta=DELTA, alpha=alpha) > epsilon).sum(),
        )
        assert max(above) <= most_violations(alpha), at


@pytest.mark.parametrize("epsilon", EPSILONS)
def test_thresholds_at_ranks_cover(epsilon: float) -> None:
    """A rank's threshold moves with the scores; the best of several ranks, each at its share, still covers."""
    scores, included = independent(epsilon)
    ranks = [round((j + 1) * 200 / 8) for j in range(7)]
    ordered = np.take_along_axis(included, np.argsort(-scores, axis=1), axis=1)
    hits = np.cumsum(ordered, axis=1)
    positives = included.sum(axis=1)
    highest, alone = np.zeros(RUNS), []
    for rank in ranks:
        right = hits[:, rank - 1]
        counts = ErrorCounts(rank - right, 200 - positives, positives - right, positives)
        highest = np.maximum(highest, bounds.mu_bound(counts, alpha=ALPHA / len(ranks)))
        alone.append(int((bounds.mu_bound(counts, alpha=ALPHA) > mu_of(epsilon)).sum()))
    assert int((highest > mu_of(epsilon)).sum()) <= most_violations(ALPHA)
    assert max(alone) <= most_violations(ALPHA)
    for run in range(5):
        tested = Bonferroni(7).tested(scores[run].astype(np.float64), included[run])
        found, _ = best_bound(tested, lambda c, a: bounds.mu_bound(c, alpha=a), alpha=ALPHA)
        assert found == highest[run]


@pytest.mark.parametrize("epsilon", EPSILONS)
@pytest.mark.parametrize("alpha", [ALPHA, 1e-3])
def test_mean_difference_is_exact(epsilon: float, alpha: float) -> None:
    """Neither more violations than alpha nor clearly fewer, with the noise known and without; few canaries."""
    rng, mu = np.random.default_rng(5), mu_of(epsilon)
    inside, outside = mu + rng.normal(size=(RUNS, 30)), rng.normal(size=(RUNS, 40))
    known = bounds.mean_difference_bound(inside, outside, noise_stddev=1.0, alpha=alpha)
    spread = math.sqrt(1 / 30 + 1 / 40)
    seen = (inside.mean(axis=1) - outside.mean(axis=1)) / bounds.pooled_stddev(inside, outside) / spread
    unknown = bounds.noncentral_t_tail(seen, 68, np.full(RUNS, mu / spread)) <= alpha
    fewest = float(stats.binom.ppf(0.001, RUNS, alpha))
    for violations in (int((known > mu).sum()), int(unknown.sum())):
        assert fewest <= violations <= most_violations(alpha)


# --- tightness and caps: an audit that shows much less than it could is as wrong as one that shows more

# Medians at m = 1000, delta = 1e-5, alpha = 0.05, found in 200 runs by an independent prototype: guesses a side
TIGHT = (
    (ONE_RUN, 1.0, 100, 0.24),
    (ONE_RUN, 3.0, 50, 1.13),
    (ONE_RUN, 8.0, 50, 3.00),
    (ONE_RUN_FDP, 1.0, 100, 0.35),
    (ONE_RUN_FDP, 3.0, 75, 1.67),
    (ONE_RUN_FDP, 8.0, 100, 4.58),
)


@functools.cache
def thousand(epsilon: float) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    rng = np.random.default_rng(6)
    included = rng.random((300, 1000)) < 0.5
    return rng.normal(size=included.shape) + mu_of(epsilon) * included, included


@pytest.mark.parametrize(("method", "epsilon", "each", "expected"), TIGHT)
def test_one_run_bounds_are_tight(method: str, epsilon: float, each: int, expected: float) -> None:
    median = int(np.median(right_guesses(*thousand(epsilon), each)))
    bound = one_run.epsilon_bound if method == ONE_RUN else one_run.fdp_epsilon_bound
    found = bound(Guesses(1000, 2 * each, median), delta=DELTA, alpha=ALPHA)
    assert 0.95 * expected <= found <= epsilon


@pytest.mark.parametrize(
    ("epsilon", "clopper_pearson", "gdp", "mean"),
    [(1.0, 0.04, 0.16, 0.61), (3.0, 0.67, 2.00, 2.52), (8.0, 2.3, 6.5, 7.38)],
)
def test_other_bounds_are_tight(epsilon: float, clopper_pearson: float, gdp: float, mean: float) -> None:
    """At the best fixed threshold, as in the prototype."""
    scores, included = thousand(epsilon)
    best_epsilon = best_mu = 0.0
    positives = included.sum(axis=1)
    for at in np.linspace(-2, 4, 25):
        fp, fn = ((scores >= at) & ~included).sum(axis=1), ((scores < at) & included).sum(axis=1)
        counts = ErrorCounts(fp, 1000 - positives, fn, positives)
        best_epsilon = max(best_epsilon, float(np.median(bounds.epsilon_bound(counts, delta=DELTA, alpha=ALPHA))))
        best_mu = max(best_mu, float(np.median(bounds.mu_bound(counts, alpha=ALPHA))))
    assert best_epsilon >= 0.95 * clopper_pearson
    assert bounds.epsilon_of_mu(best_mu, DELTA) >= 0.95 * gdp
    for known in (True, False):
        shown = []
        for s, i in zip(scores[:100], included[:100], strict=True):
            if known:
                shown.append(float(bounds.mean_difference_bound(s[i], s[~i], noise_stddev=1.0, alpha=ALPHA)))
            else:
                shown.append(float(bounds.effect_size_bound(s[i], s[~i], alpha=ALPHA)))
        assert bounds.epsilon_of_mu(float(np.median(shown)), DELTA) >= 0.95 * mean


@pytest.mark.parametrize(
    ("guesses", "epsilon", "fdp"),
    [(50, 2.76, 4.05), (150, 3.88, 6.52), (300, 4.57, 8.36), (500, 5.09, 9.91), (1000, 5.78, 12.33)],
)
def test_caps(guesses: int, epsilon: float, fdp: float) -> None:
    assert power.cap(1000, guesses, delta=DELTA, alpha=ALPHA, method=ONE_RUN) == pytest.approx(epsilon, abs=0.02)
    assert power.cap(1000, guesses, delta=DELTA, alpha=ALPHA, method=ONE_RUN_FDP) == pytest.approx(fdp, abs=0.02)


def test_caps_at_a_small_error_rate() -> None:
    assert power.cap(1000, 1000, delta=DELTA, alpha=1e-3, method=ONE_RUN) == pytest.approx(4.28, abs=0.01)
    assert power.cap(1000, 1000, delta=DELTA, alpha=1e-3, method=ONE_RUN_FDP) == pytest.approx(7.63, abs=0.01)
