"""Verdicts: what is found is said, silence is read for what it is worth, and bad input gives no number."""

from __future__ import annotations

import dataclasses
import functools
import json
import math

import numpy as np
import pytest

from common.errors import EvaluationError
from common.evaluation.audit import bounds, methods, power, verdict
from common.evaluation.audit.evidence import CanaryScores, Evidence, Outcome, Verdict
from common.evaluation.audit.methods import ONE_RUN, ONE_RUN_FDP, GdpThreshold, MeanDifference, OneRun
from common.evaluation.audit.verdict import audited

DELTA = 1e-5


def canaries(
    claim: float, factor: float = 1.0, *, count: int = 300, seed: int = 0, design: str = "dedicated rows"
) -> CanaryScores:
    """The exact Gaussian problem, its noise ``factor`` times too small, in scores of any scale."""
    scores, included = power.gaussian_problem(
        count, factor * bounds.mu_of_epsilon(claim, DELTA), np.random.default_rng(seed)
    )
    return CanaryScores(7.0 + 3.0 * scores, included, design, "all sums")


@functools.cache
def correct(claim: float = 3.0) -> Verdict:
    return audited([canaries(claim)], claimed_epsilon=claim, delta=DELTA)


def test_a_correct_mechanism_is_consistent() -> None:
    found = correct()
    assert found.outcome == Outcome.CONSISTENT and "times too small would have been noticed" in found.reason
    assert [e.method for e in found.evidence] == ["one_run", "one_run_fdp", "gdp_threshold", "mean_difference"]
    assert all(0 <= e.bound <= 3.0 < e.cap and not e.rejects for e in found.evidence)
    assert found.headline is not None and found.headline.method in (ONE_RUN, ONE_RUN_FDP)
    assert sum(e.alpha for e in found.evidence[2:]) == pytest.approx(0.05 * verdict.ALARM_SHARE)
    assert sum(e.alpha for e in found.evidence) == pytest.approx(0.05) == verdict.ALPHA
    assert found.alarms == ()


@pytest.mark.parametrize(("claim", "factor"), [(1.0, 6.0), (3.0, 4.0), (8.0, 2.0)])
def test_too_little_noise_is_a_violation(claim: float, factor: float) -> None:
    found = audited([canaries(claim, factor)], claimed_epsilon=claim, delta=DELTA)
    assert found.outcome == Outcome.VIOLATION_FOUND and f"epsilon = {claim:g}" in found.reason
    worst = max(found.evidence, key=lambda e: e.bound)
    assert worst.rejects and worst.method in found.reason and worst.bound > claim


def test_no_noise_at_all_is_a_violation_though_its_scores_are_not_normal() -> None:
    included = np.random.default_rng(1).random(300) < 0.5
    found = audited([CanaryScores(included * 1.0, included, "support", "all sums")], claimed_epsilon=8.0, delta=DELTA)
    evidence = {e.method: e for e in found.evidence}
    assert found.outcome == Outcome.VIOLATION_FOUND and found.alarms == (evidence["gdp_threshold"],)
    assert evidence["mean_difference"].bound == 0.0
    assert evidence["gdp_threshold"].bound == pytest.approx(evidence["gdp_threshold"].cap, rel=0.1)


def test_one_design_that_leaks_is_enough_and_all_share_the_error_rate() -> None:
    several = [canaries(3.0, design="dedicated rows"), canaries(3.0, 5.0, seed=2, design="split rows")]
    found = audited(several, claimed_epsilon=3.0, delta=DELTA)
    assert found.outcome == Outcome.VIOLATION_FOUND and "split rows" in found.reason
    assert sum(e.alpha for e in found.evidence) == pytest.approx(0.05) and len(found.evidence) == 8
    assert {e.alpha for e in found.evidence} == {0.049 / 4, 0.001 / 4}
    assert {e.design for e in found.evidence if e.rejects} == {"split rows"}


def test_silence_below_the_cap_is_inconclusive() -> None:
    found = audited([canaries(40.0)], claimed_epsilon=40.0, delta=DELTA)
    assert found.outcome == Outcome.INCONCLUSIVE and "at most" in found.reason
    assert max(e.cap for e in found.evidence if e.guesses) <= 40


def test_an_audit_without_power_is_inconclusive() -> None:
    found = audited([canaries(0.1, count=150)], claimed_epsilon=0.1, delta=DELTA)
    assert found.outcome == Outcome.INCONCLUSIVE and "would not show noise 4 times too small" in found.reason
    assert all(e.smallest_factor is None for e in found.evidence)


def test_one_weak_design_among_strong_ones_is_named() -> None:
    weak = canaries(8.0, count=100, design="split rows")
    found = audited([canaries(8.0, count=500), weak], claimed_epsilon=8.0, delta=DELTA)
    assert found.outcome == Outcome.INCONCLUSIVE and "split rows" in found.reason


def test_too_few_canaries_give_no_number() -> None:
    found = audited([canaries(3.0, 9.0, count=99)], claimed_epsilon=3.0, delta=DELTA)
    assert found.outcome == Outcome.INCONCLUSIVE and found.evidence == () and found.headline is None
    assert "99 canaries" in found.reason


@pytest.mark.parametrize("factor", [1.0, 9.0])
def test_a_run_in_test_mode_gives_no_number(factor: float) -> None:
    found = audited([canaries(3.0, factor)], claimed_epsilon=3.0, delta=DELTA, test_mode=True)
    assert found.outcome == Outcome.INCONCLUSIVE and found.evidence == () and "test mode" in found.reason
    assert found.to_json()["headline"] is None


def test_without_a_gaussian_curve_only_what_needs_none_is_tested() -> None:
    found = audited([canaries(2.0, 6.0)], claimed_epsilon=2.0, delta=DELTA, gaussian=False)
    assert [e.method for e in found.evidence] == ["one_run", "clopper_pearson"]
    assert sum(e.alpha for e in found.evidence) == pytest.approx(0.05) and found.outcome == Outcome.VIOLATION_FOUND


def test_the_json_says_everything_and_never_the_wrong_word() -> None:
    found = correct()
    told = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert told["outcome"] == "CONSISTENT" and told["headline"]["bound"] == found.headline.bound
    assert told["evidence"][3]["cap"] is None  # without limit
    for key in ("method", "bound", "estimate", "alpha", "guesses", "right", "cap", "smallest_factor"):
        assert key in told["evidence"][0]
    assert "private" not in json.dumps(told).lower()
    assert {str(o) for o in Outcome} == {"CONSISTENT", "VIOLATION FOUND", "INCONCLUSIVE"}


def test_all_of_it_is_reproducible() -> None:
    assert audited([canaries(3.0)], claimed_epsilon=3.0, delta=DELTA) == correct()


def test_the_number_of_guesses_does_not_depend_on_the_scores() -> None:
    plans = [
        verdict.registered([canaries(3.0, factor, seed=s)], 3.0, DELTA, alpha=0.05, gaussian=True)[0][1]
        for factor, s in ((1.0, 0), (5.0, 1))
    ]
    assert plans[0] == plans[1]


# --- power, seen from outside


def test_accuracy_of_guesses_is_that_of_a_simulation() -> None:
    rng = np.random.default_rng(4)
    scores, included = power.gaussian_problem(200_000, 1.2, rng)
    for share in (0.1, 0.4, 1.0):
        order = np.argsort(scores)
        half = int(share * 100_000)
        right = (included[order[-half:]].mean() + (~included[order[:half]]).mean()) / 2
        assert power.expected_accuracy(share, 1.2) == pytest.approx(right, abs=0.005)


def test_guesses_are_chosen_so_that_the_cap_exceeds_the_claim() -> None:
    for claim in (0.5, 1.0, 3.0, 8.0, 11.0):
        made = power.choose_guesses(1000, claimed_epsilon=claim, delta=DELTA, alpha=0.05, method=ONE_RUN_FDP)
        assert power.cap(1000, made, delta=DELTA, alpha=0.05, method=ONE_RUN_FDP) > claim
    assert power.choose_guesses(101, claimed_epsilon=90.0, delta=DELTA, alpha=0.05, method=ONE_RUN) <= 101


def test_smallest_factor_has_the_power_it_says() -> None:
    """Other runs than those it was found with: the factor is seen in nearly all, the next smaller one is not."""
    method = MeanDifference(1e-3, DELTA)
    factor = power.smallest_factor(method, canaries=400, claimed_epsilon=3.0)
    assert factor in power.FACTORS[1:]
    mu, rng = bounds.mu_of_epsilon(3.0, DELTA), np.random.default_rng(99)
    rates = []
    for tried in (factor, power.FACTORS[power.FACTORS.index(factor) - 1]):
        seen = [method.statistic(*power.gaussian_problem(400, tried * mu, rng)) > mu for _ in range(150)]
        rates.append(float(np.mean(seen)))
    assert rates[0] > 0.9 > rates[1]


def test_smallest_factors_of_a_thousand_canaries() -> None:
    """The figures of an independent prototype at m = 1000: no test may need a larger factor."""
    for claim, most in ((1.0, 2.5), (3.0, 1.6), (8.0, 1.2)):
        found = power.smallest_factor(MeanDifference(1e-3, DELTA, 1.0), canaries=1000, claimed_epsilon=claim)
        assert found is not None and found <= most
    assert power.smallest_factor(OneRun(ONE_RUN, 0.05, DELTA, 1000, 150), canaries=1000, claimed_epsilon=3.0) == 3.0
    assert power.smallest_factor(OneRun(ONE_RUN_FDP, 0.05, DELTA, 1000, 150), canaries=1000, claimed_epsilon=3.0) == 2.0
    assert power.smallest_factor(OneRun(ONE_RUN, 0.05, DELTA, 1000, 1000), canaries=1000, claimed_epsilon=8.0) is None
    assert power.smallest_factor(GdpThreshold(1e-3, DELTA), canaries=1000, claimed_epsilon=8.0) == 1.41


def test_power_grows_with_the_factor() -> None:
    method = OneRun(ONE_RUN_FDP, 0.05, DELTA, 300, 80)
    medians = [float(np.median(power.statistics(method, 300, f * 0.7, trials=60))) for f in (0.5, 1.0, 2.0, 4.0)]
    assert medians == sorted(medians) and medians[0] < medians[-1]


# --- the difference of means believes the scores


def test_a_declared_noise_that_the_scores_contradict_is_not_believed() -> None:
    mu, claim = bounds.mu_of_epsilon(3.0, DELTA), 3.0
    scores, included = power.gaussian_problem(1000, 2 * mu, np.random.default_rng(5))
    blind = float(bounds.mean_difference_bound(scores[included], scores[~included], noise_stddev=2.0, alpha=1e-3))
    assert blind < mu  # the claimed noise, twice what it is, hides what is missing
    for declared in (2.0, 0.5):
        seen = MeanDifference(1e-3, DELTA, declared).statistic(scores, included)
        assert seen == MeanDifference(1e-3, DELTA).statistic(scores, included) > mu
    assert MeanDifference(1e-3, DELTA, 1.0).statistic(scores, included) != seen
    assert claim < MeanDifference(1e-3, DELTA, 1.0).epsilon(seen)


@pytest.mark.parametrize("kind", ["laplace", "two points", "one outlier", "constant"])
def test_scores_that_are_not_normal_have_no_difference_of_means(kind: str) -> None:
    rng = np.random.default_rng(6)
    included = rng.random(1000) < 0.5
    noise = {
        "laplace": rng.laplace(size=1000),
        "two points": rng.choice([-1.0, 1.0], 1000),
        "one outlier": np.r_[rng.normal(size=999), 60.0],
        "constant": np.zeros(1000),
    }[kind]
    assert MeanDifference(0.05, DELTA).statistic(noise + 5 * included, included) == 0.0
    assert methods.looks_normal(rng.normal(3, 2, 500), rng.normal(0, 2, 500))


# --- refusals


def fair(count: int = 200) -> np.ndarray:
    return np.arange(count) % 2 == 0


def test_scores_that_say_nothing_are_refused() -> None:
    included, scores = fair(), np.arange(200.0)
    for bad in (np.ones(200), np.full(200, np.nan), np.where(scores < 100, np.nan, 1.0)):
        with pytest.raises(EvaluationError, match="same score"):
            CanaryScores(bad, included, "d", "v")
    for answers in (np.ones(200, dtype=bool), np.zeros(200, dtype=bool), included[:100], included * 1.0):
        with pytest.raises(EvaluationError):
            CanaryScores(scores, answers, "d", "v")
    with pytest.raises(EvaluationError, match="fair coin"):
        CanaryScores(scores, scores < 30, "d", "v")
    for stddev in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(EvaluationError, match="standard deviation"):
            CanaryScores(scores, included, "d", "v", stddev)


@pytest.mark.parametrize("claim", [0.0, -1.0, math.inf, math.nan])
def test_claims_that_cannot_be_audited_are_refused(claim: float) -> None:
    with pytest.raises(EvaluationError, match="claim"):
        audited([canaries(3.0)], claimed_epsilon=claim, delta=DELTA)


@pytest.mark.parametrize(("delta", "alpha"), [(0.0, 0.05), (1.0, 0.05), (1e-5, 0.0), (1e-5, 1.0), (math.nan, 0.05)])
def test_error_rates_out_of_range_are_refused(delta: float, alpha: float) -> None:
    with pytest.raises(EvaluationError):
        audited([canaries(3.0)], claimed_epsilon=3.0, delta=delta, alpha=alpha)


def test_no_scores_or_the_same_twice_are_refused() -> None:
    for scores in ([], [canaries(3.0), canaries(3.0, seed=1)]):
        with pytest.raises(EvaluationError):
            audited(scores, claimed_epsilon=3.0, delta=DELTA)


def test_unknown_methods_and_numbers_are_refused() -> None:
    for call in (
        lambda: power.cap(100, 101, delta=DELTA, alpha=0.05, method=ONE_RUN),
        lambda: power.cap(100, 10, delta=DELTA, alpha=0.05, method="two_runs"),
        lambda: power.cap(100, 10, delta=0.0, alpha=0.05, method=ONE_RUN_FDP),
        lambda: power.choose_guesses(1, claimed_epsilon=1.0, delta=DELTA, alpha=0.05, method=ONE_RUN),
        lambda: power.expected_accuracy(0.0, 1.0),
        lambda: power.expected_accuracy(1.5, 1.0),
    ):
        with pytest.raises(EvaluationError):
            call()


def test_spoiled_scores_are_judged_without_them() -> None:
    good = canaries(3.0, 5.0)
    spoiled = np.where(np.arange(300) % 10 == 0, np.nan, good.scores)
    found = audited([CanaryScores(spoiled, good.included, "d", "v")], claimed_epsilon=3.0, delta=DELTA)
    before = audited([good], claimed_epsilon=3.0, delta=DELTA)
    assert all(a.bound <= b.bound for a, b in zip(found.evidence, before.evidence, strict=True))
    assert isinstance(found.evidence[0], Evidence)


def test_sampled_canaries_do_not_speak_for_noise_that_they_would_not_show() -> None:
    """Poisson at a tenth, 32 releases, noise 0.7: a factor of 3.8 would be found in half of all runs, not in 95 %."""
    rng = np.random.default_rng(0)
    included = rng.random(1000) < 0.5
    scores = rng.normal(0, 0.7 * math.sqrt(32), 1000) + included * rng.binomial(32, 0.1, 1000)
    weak = CanaryScores(scores, included, "dedicated", "sums", claimed_stddev=0.7 * math.sqrt(32))
    for one, expected in (
        (weak, Outcome.CONSISTENT),
        (dataclasses.replace(weak, sampled=True), Outcome.INCONCLUSIVE),
    ):
        assert audited([one], claimed_epsilon=8.95, delta=DELTA, alpha=0.025).outcome is expected


def test_designs_that_only_add_alarms_are_no_silence() -> None:
    """Where nothing else left a trace there is no verdict, and no error either."""
    found = audited([dataclasses.replace(canaries(3.0), supplementary=True)], claimed_epsilon=3.0, delta=DELTA)
    assert found.outcome is Outcome.INCONCLUSIVE and "left any trace" in found.reason
