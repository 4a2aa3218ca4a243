"""Bounds of audits against other people's code, exact enumeration, and the formulas written out slowly."""

from __future__ import annotations

import math
from fractions import Fraction
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import EvaluationError
from common.evaluation.audit import bounds, one_run
from common.evaluation.audit.bounds import ErrorCounts
from common.evaluation.audit.one_run import Guesses

# jax-privacy 2.0.0, CanaryScoreAuditor with Explicit(0.5) on scores 0 and 1, numpy.random.default_rng(5):
# canaries, guesses, right, delta, alpha, epsilon_one_run, epsilon_one_run_fdp
ONE_RUN = (
    (1000, 404, 375, 0.001, 0.001, 0.0, 1.771729),
    (200, 44, 38, 1e-06, 0.001, 0.58391, 0.902045),
    (60, 29, 26, 1e-05, 0.01, 0.81387, 1.445167),
    (200, 97, 91, 1e-06, 0.01, 1.78473, 3.394032),
    (1000, 251, 222, 0.001, 0.01, 0.0, 1.575438),
    (200, 89, 58, 0.001, 0.1, 0.281946, 0.361688),
    (200, 11, 11, 1e-06, 0.05, 1.160742, 1.878723),
    (200, 49, 35, 1e-05, 0.1, 0.470439, 0.787292),
    (60, 16, 10, 0.0001, 0.01, 0.0, 0.0),
    (60, 25, 18, 1e-06, 0.1, 0.298872, 0.609963),
    (500, 131, 108, 0.001, 0.001, 0.0, 0.740754),
    (200, 93, 69, 0.001, 0.1, 0.689285, 0.96769),
    (1000, 205, 200, 0.0001, 0.001, 0.0, 2.79406),
    (200, 76, 65, 0.0001, 0.01, 0.997751, 1.427303),
    (3000, 340, 297, 0.001, 0.05, 0.323287, 1.667802),
    (3000, 571, 524, 1e-06, 0.1, 2.207636, 4.027768),
    (3000, 576, 501, 1e-05, 0.05, 1.689218, 2.567568),
    (500, 213, 167, 0.0001, 0.1, 1.060006, 1.734976),
    (1000, 165, 130, 1e-05, 0.05, 0.986583, 1.53622),
    (500, 234, 228, 1e-05, 0.1, 3.06291, 6.065973),
    (500, 55, 53, 0.0001, 0.01, 1.529251, 2.201488),
    (200, 16, 14, 0.0001, 0.001, 0.0, 0.0),
    (200, 57, 40, 0.0001, 0.05, 0.342199, 0.467653),
    (1000, 62, 60, 1e-05, 0.01, 1.876736, 2.583856),
)
# jax-privacy 2.0.0, epsilon_clopper_pearson(one_sided=False) with Explicit(0.5), the same generator, and equal to six
# digits privacy-estimates 0.1.0.post1, compute_eps_lo(method="beta"): false positives, negatives, false negatives,
# positives, delta, alpha, epsilon
CLOPPER_PEARSON = (
    (126, 631, 0, 133, 0.0, 0.1, 3.546049),
    (0, 959, 180, 1781, 1e-05, 0.1, 5.649679),
    (0, 441, 344, 687, 0.001, 0.05, 4.011868),
    (13, 1179, 505, 1012, 0.001, 0.001, 2.886896),
    (30, 626, 5, 442, 0.0, 0.1, 3.678327),
    (80, 1568, 9, 712, 1e-05, 0.1, 3.75572),
    (262, 537, 367, 763, 0.0, 0.05, 0.0),
    (372, 745, 146, 1456, 0.001, 0.05, 1.377067),
    (0, 987, 877, 964, 1e-05, 0.01, 2.542101),
    (95, 1765, 605, 1204, 0.001, 0.001, 1.805867),
    (5, 741, 594, 1114, 0.001, 0.1, 3.440029),
    (45, 82, 57, 602, 0.0, 0.1, 1.119249),
    (5, 662, 170, 344, 1e-05, 0.05, 3.248611),
    (0, 773, 110, 1013, 1e-05, 0.01, 4.839969),
    (5, 75, 16, 1846, 1e-05, 0.001, 3.761773),
    (147, 339, 0, 661, 1e-05, 0.001, 3.728084),
    (69, 1397, 0, 20, 1e-05, 0.05, 2.594633),
    (6, 157, 1765, 1962, 1e-05, 0.001, 0.0),
    (390, 1991, 18, 1710, 0.0, 0.05, 3.858431),
    (16, 1233, 120, 226, 0.0, 0.1, 3.045171),
    (0, 81, 679, 761, 1e-05, 0.01, 0.242213),
    (82, 1522, 1, 138, 0.001, 0.01, 2.870703),
    (278, 513, 0, 69, 0.001, 0.01, 1.688741),
    (47, 91, 0, 1902, 0.001, 0.001, 4.359321),
)
# dp-accounting 0.6.0, get_epsilon_gaussian(1 / mu, delta): mu, then epsilon at delta 1e-6, 1e-5, 1e-3
GAUSSIAN = (
    (0.05, 0.189213, 0.160042, 0.084018),
    (0.268, 1.143377, 0.999791, 0.643035),
    (0.5, 2.254085, 1.993091, 1.352276),
    (0.719, 3.36973, 2.999444, 2.095329),
    (1.0, 4.886554, 4.377178, 3.138671),
    (1.666, 8.836335, 7.999822, 5.975929),
    (2.5, 14.450777, 13.206712, 10.204769),
    (4.0, 26.356964, 24.381611, 19.624121),
    (6.0, 45.785906, 42.836008, 35.737693),
    (8.0, 69.243964, 65.31922, 55.878417),
    (12.0, 128.199614, 122.324061, 108.194229),
)


@pytest.mark.parametrize(("canaries", "made", "right", "delta", "alpha", "epsilon", "fdp"), ONE_RUN)
def test_one_run_bounds_are_those_of_jax_privacy(
    canaries: int, made: int, right: int, delta: float, alpha: float, epsilon: float, fdp: float
) -> None:
    found = Guesses(canaries, made, right)
    assert one_run.epsilon_bound(found, delta=delta, alpha=alpha) == pytest.approx(epsilon, abs=5e-6)
    assert one_run.fdp_epsilon_bound(found, delta=delta, alpha=alpha) == pytest.approx(fdp, abs=5e-6)


def test_threshold_bounds_are_those_of_jax_privacy_and_privacy_estimates() -> None:
    for fp, negatives, fn, positives, delta, alpha, epsilon in CLOPPER_PEARSON:
        counts = ErrorCounts(fp, negatives, fn, positives)
        assert float(bounds.epsilon_bound(counts, delta=delta, alpha=alpha)) == pytest.approx(epsilon, abs=1e-6)


def test_epsilon_of_mu_is_that_of_dp_accounting() -> None:
    for mu, *expected in GAUSSIAN:
        for delta, epsilon in zip((1e-6, 1e-5, 1e-3), expected, strict=True):
            assert bounds.epsilon_of_mu(mu, delta) == pytest.approx(epsilon, abs=1e-6)


@pytest.mark.parametrize("mu", [1e-4, 0.01, 0.3, 5.0, 20.0, 50.0])
@pytest.mark.parametrize("delta", [1e-12, 1e-5, 0.01])
def test_mu_and_epsilon_are_inverse_also_far_out(mu: float, delta: float) -> None:
    epsilon = bounds.epsilon_of_mu(mu, delta)
    if epsilon > 0:
        assert bounds.mu_of_epsilon(epsilon, delta) == pytest.approx(mu, rel=1e-6)
    assert bounds.epsilon_of_mu(math.inf, delta) == math.inf
    assert bounds.epsilon_of_mu(0.0, delta) == 0.0
    assert bounds.delta_of(700.0, 0.01) == 0.0


@pytest.mark.parametrize("epsilon", [1e-3, 1.0, 50.0, 200.0])
def test_mu_of_large_epsilon(epsilon: float) -> None:
    assert bounds.epsilon_of_mu(bounds.mu_of_epsilon(epsilon, 1e-5), 1e-5) == pytest.approx(epsilon, rel=1e-8)


# --- slow oracles


def slow_p_value(found: Guesses, odds: int, delta: Fraction) -> Fraction:
    """The formula of Steinke et al. in exact fractions, for epsilon = log(odds)."""
    q, r, v = Fraction(odds, odds + 1), found.made, found.right

    def at_least(k: int) -> Fraction:
        return sum((math.comb(r, j) * q**j * (1 - q) ** (r - j) for j in range(max(k, 0), r + 1)), Fraction(0))

    beta = at_least(v)
    worst = max([(at_least(v - i) - beta) / i for i in range(1, v + 1)], default=Fraction(0))
    return min(Fraction(1), beta + 2 * found.canaries * delta * worst)


@pytest.mark.parametrize("right", [0, 1, 7, 13, 18, 20])
@pytest.mark.parametrize("odds", [1, 2, 20])
def test_p_value_in_exact_fractions(right: int, odds: int) -> None:
    found = Guesses(90, 20, right)
    for delta in (Fraction(0), Fraction(1, 100_000), Fraction(1, 500)):
        exact = float(slow_p_value(found, odds, delta))
        assert one_run.p_value(found, epsilon=math.log(odds), delta=float(delta)) == pytest.approx(exact, rel=1e-9)


def slow_rejects_mu(found: Guesses, mu: float, tau: float) -> bool:
    """Algorithm 3 of Mahloujifar et al., literally, with whole lists and no way out before the end."""
    normal, m, made, right = NormalDist(), found.canaries, found.made, found.right
    h, r = [0.0] * (right + 1), [0.0] * (right + 1)
    h[right], r[right] = tau * (made - right) / m, tau * right / m
    for i in range(right - 1, -1, -1):
        sure = r[i + 1] >= 1
        h[i] = max(h[i + 1], 1.0 if sure else normal.cdf(normal.inv_cdf(r[i + 1]) - mu))
        r[i] = r[i + 1] + i / (made - i) * (h[i] - h[i + 1])
    return r[0] + h[0] >= made / m


def test_fdp_test_written_out() -> None:
    seen = set()
    for canaries, made in ((100, 100), (100, 30), (400, 25)):
        for right in range(1, made + 1, 4):
            for mu in (0.1, 0.6, 1.3, 2.2):
                slow = slow_rejects_mu(Guesses(canaries, made, right), mu, 0.05)
                assert one_run.rejects_mu(Guesses(canaries, made, right), mu=mu, alpha=0.05) == slow
                seen.add(slow)
    assert seen == {True, False}


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.floats(0, 1), st.floats(1e-4, 0.4))
def test_p_values_and_bounds_agree(made: int, share: float, alpha: float) -> None:
    found = Guesses(100, made, round(made * share))
    epsilon = one_run.epsilon_bound(found, delta=1e-4, alpha=alpha)
    assert one_run.p_value(found, epsilon=epsilon + 1e-6, delta=1e-4) > alpha
    assert epsilon == 0 or one_run.p_value(found, epsilon=epsilon, delta=1e-4) <= alpha
    mu = one_run.mu_bound(found, alpha=alpha)
    assert not one_run.rejects_mu(found, mu=mu + 1e-6, alpha=alpha)
    if mu > 1e-6:
        assert one_run.fdp_p_value(found, mu=mu) == pytest.approx(alpha, rel=1e-3)


def test_more_right_guesses_never_show_less() -> None:
    shown = [one_run.epsilon_bound(Guesses(300, 80, v), delta=1e-3, alpha=0.05) for v in range(81)]
    curves = [one_run.mu_bound(Guesses(300, 80, v), alpha=0.05) for v in range(81)]
    assert shown == sorted(shown) and curves == sorted(curves) and shown[40] == curves[40] == 0.0
    claim = 1.0
    fewest = one_run.critical_right(
        300, 80, refuted=lambda found: one_run.p_value(found, epsilon=claim, delta=1e-3) <= 0.05
    )
    assert fewest == next(v for v in range(81) if shown[v] >= claim)
    assert one_run.critical_right(300, 80, refuted=lambda found: False) is None


@pytest.mark.parametrize("trials", [1, 5, 40])
def test_clopper_pearson_solves_its_equation(trials: int) -> None:
    """At the bound so few errors have probability alpha, by summing the binomial."""
    for errors in range(trials):
        p = float(bounds.upper_rate(errors, trials, alpha=0.03))
        tail = sum(math.comb(trials, j) * p**j * (1 - p) ** (trials - j) for j in range(errors + 1))
        assert tail == pytest.approx(0.03, rel=1e-9)
    assert bounds.upper_rate(trials, trials, alpha=0.03) == 1.0


def test_bounds_of_many_counts_are_those_of_each() -> None:
    fp, fn = np.array([0, 3, 50, 100]), np.array([100, 4, 0, 51])
    full = np.full(4, 100)
    many = ErrorCounts(fp, full, fn, full)
    for i in range(4):
        one = ErrorCounts(int(fp[i]), 100, int(fn[i]), 100)
        assert bounds.epsilon_bound(many, delta=1e-5, alpha=0.05)[i] == bounds.epsilon_bound(
            one, delta=1e-5, alpha=0.05
        )
        assert bounds.mu_bound(many, alpha=0.05)[i] == bounds.mu_bound(one, alpha=0.05)
        assert bounds.mu_estimate(many)[i] == bounds.mu_estimate(one)
        assert bounds.epsilon_estimate(many, delta=0.0)[i] == bounds.epsilon_estimate(one, delta=0.0)


def test_a_test_worse_than_chance_shows_no_mu() -> None:
    assert bounds.mu_bound(ErrorCounts(95, 100, 97, 100), alpha=0.05) == 0
    assert bounds.mu_bound(ErrorCounts(100, 100, 100, 100), alpha=0.05) == 0
    assert bounds.mu_bound(ErrorCounts(5, 100, 3, 100), alpha=0.05) > 1


@pytest.mark.parametrize(("members", "shift"), [(500, 1.7), (500, 6.0), (50, 0.8), (8, 2.0)])
def test_effect_size_bound_inverts_the_noncentral_t(members: int, shift: float) -> None:
    from scipy import stats

    rng = np.random.default_rng(members)
    inside, outside = rng.normal(shift, 2.0, members), rng.normal(0, 2.0, members + 3)
    for alpha in (0.2, 0.05, 1e-3):
        bound = float(bounds.effect_size_bound(inside, outside, alpha=alpha))
        spread, degrees = math.sqrt(1 / members + 1 / (members + 3)), 2 * members + 1
        seen = float((inside.mean() - outside.mean()) / bounds.pooled_stddev(inside, outside)) / spread
        tail = stats.nct.sf(seen, degrees, bound / spread)
        assert tail == pytest.approx(alpha, rel=1e-3) if bound > 0 else tail > alpha


def test_mean_difference_by_hand() -> None:
    inside, outside = np.array([3.0, 5.0]), np.array([0.0, 2.0])
    z = NormalDist().inv_cdf(0.95)
    found = bounds.mean_difference_bound(inside, outside, noise_stddev=0.5, alpha=0.05)
    assert float(found) == pytest.approx(6.0 - z, abs=1e-12)
    assert bounds.mean_difference_bound(outside, inside, noise_stddev=0.5, alpha=0.05) == 0
    for bad in (math.nan, math.inf, -math.inf):
        assert bounds.mean_difference_bound([bad, 1.0], [bad, 0.0], noise_stddev=0.5, alpha=0.05) == 0
        assert bounds.effect_size_bound([bad, 1.0], [bad, 0.0], alpha=0.05) == 0
    assert bounds.effect_size_bound([1.0, 1.0], [0.0, 0.0], alpha=0.05) == 0


# --- refusals


@pytest.mark.parametrize(
    "counts", [(-1, 5, 0, 5), (6, 5, 0, 5), (0, 0, 0, 5), (0, 5, 0, 0), (0, 5, 7, 5), (0.5, 5, 0, 5), (0, 5.0, 0, 5)]
)
def test_what_is_no_count_is_refused(counts: tuple[int, int, int, int]) -> None:
    with pytest.raises(EvaluationError, match="count"):
        ErrorCounts(*counts)


@pytest.mark.parametrize("numbers", [(10, 11, 5), (10, 5, 6), (10, 5, -1), (10, 0, 0), (0, 0, 0), (10, 5, 2.5)])
def test_what_are_no_guesses_is_refused(numbers: tuple[int, int, int]) -> None:
    with pytest.raises(EvaluationError):
        Guesses(*numbers)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, math.nan, 2.0])
def test_error_rates_lie_between_0_and_1(alpha: float) -> None:
    counts, found = ErrorCounts(1, 10, 1, 10), Guesses(10, 5, 3)
    for call in (
        lambda: bounds.epsilon_bound(counts, delta=0.0, alpha=alpha),
        lambda: bounds.mu_bound(counts, alpha=alpha),
        lambda: bounds.mean_difference_bound([1.0], [0.0], noise_stddev=1.0, alpha=alpha),
        lambda: bounds.effect_size_bound([1.0, 2.0], [0.0, 1.0], alpha=alpha),
        lambda: one_run.epsilon_bound(found, delta=0.0, alpha=alpha),
        lambda: one_run.mu_bound(found, alpha=alpha),
    ):
        with pytest.raises(EvaluationError, match="alpha"):
            call()


@pytest.mark.parametrize("delta", [-1e-9, 1.0, math.nan])
def test_deltas_lie_between_0_and_1(delta: float) -> None:
    counts = ErrorCounts(1, 10, 1, 10)
    for call in (
        lambda: bounds.epsilon_bound(counts, delta=delta, alpha=0.05),
        lambda: bounds.epsilon_estimate(counts, delta=delta),
        lambda: bounds.epsilon_of_mu(1.0, delta),
        lambda: bounds.mu_of_epsilon(1.0, delta),
        lambda: one_run.p_value(Guesses(10, 5, 3), epsilon=1.0, delta=delta),
    ):
        with pytest.raises(EvaluationError, match="delta"):
            call()
    with pytest.raises(EvaluationError, match="delta"):
        bounds.epsilon_of_mu(1.0, 0.0)


def test_other_numbers_out_of_range_are_refused() -> None:
    for call in (
        lambda: bounds.mu_of_epsilon(-1.0, 1e-5),
        lambda: bounds.mu_of_epsilon(math.inf, 1e-5),
        lambda: bounds.epsilon_of_mu(-0.1, 1e-5),
        lambda: bounds.epsilon_of_mu(math.nan, 1e-5),
        lambda: one_run.p_value(Guesses(10, 5, 3), epsilon=math.nan, delta=0.0),
        lambda: bounds.mean_difference_bound([1.0], [0.0], noise_stddev=0.0, alpha=0.05),
        lambda: bounds.mean_difference_bound([1.0], [], noise_stddev=1.0, alpha=0.05),
        lambda: bounds.effect_size_bound([1.0], [0.0, 1.0], alpha=0.05),
    ):
        with pytest.raises(EvaluationError):
            call()
