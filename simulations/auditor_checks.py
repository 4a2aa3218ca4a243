"""Checks of the auditor itself: its statistics must not accuse the innocent, and must not take silence for proof.

No check needs randomness of its own: each compares the statistics with equations that they must solve, with a literal
slow version, or counts false alarms over runs of pure noise from a fixed public seed. ``simulations.mutants.auditor``
has broken variants, each of which one of them must find.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from statistics import NormalDist

import numpy as np

from common.evaluation.audit import bounds, evidence, one_run, power, thresholds, verdict
from common.evaluation.audit.bounds import ErrorCounts
from common.evaluation.audit.evidence import CanaryScores, Evidence, Outcome
from common.evaluation.audit.methods import ONE_RUN, ONE_RUN_FDP, MeanDifference, OneRun
from common.evaluation.audit.one_run import Guesses
from common.evaluation.conformance import Check, Finding

TEST = "A"  # of the auditor itself
DELTA = 1e-5
_T_49 = 1.676551  # 95 % quantile of Student's t, 49 degrees of freedom
_NULL_RUNS, _MOST_NULL_ALARMS = 400, 38  # at an error rate of 5 % more has a chance below 1 in 1,000


def _close(subject: str, found: float, expected: float, *, within: float = 1e-6) -> Finding:
    return Finding(TEST, subject, f"{found:.6g}, expected {expected:.6g}", abs(found - expected) <= within)


def _that(subject: str, statistic: str, holds: bool) -> Finding:
    return Finding(TEST, subject, statistic, bool(holds))


def auditor_rates() -> Iterator[Finding]:
    """At its upper bound an error rate gives so few errors with probability alpha, by summing the binomial."""

    def tail(errors: int, trials: int, rate: float) -> float:
        return sum(math.comb(trials, j) * rate**j * (1 - rate) ** (trials - j) for j in range(errors + 1))

    for errors in (0, 3, 25):
        found = tail(errors, 40, float(bounds.upper_rate(errors, 40, alpha=0.04)))
        yield _close(f"upper rate, {errors} of 40 errors", found, 0.04)
    a, b = bounds.upper_rates(ErrorCounts(2, 40, 5, 30), alpha=0.04)
    yield _close("false positives at half of alpha", tail(2, 40, float(a)), 0.02)
    yield _close("false negatives at half of alpha", tail(5, 30, float(b)), 0.02)


def auditor_signs() -> Iterator[Finding]:
    """A test that is worse than chance shows nothing; a bound of means lies below what was seen."""
    worse = ErrorCounts(95, 100, 97, 100)
    yield _close("mu of a test worse than chance", float(bounds.mu_bound(worse, alpha=0.05)), 0.0)
    members, others, z = np.array([3.0, 5.0]), np.array([0.0, 2.0]), NormalDist().inv_cdf(0.95)
    for subject, pair, expected in (("members", (members, others), 6 - z), ("others", (others, members), 0.0)):
        found = float(bounds.mean_difference_bound(*pair, noise_stddev=0.5, alpha=0.05))
        yield _close(f"difference of means, {subject} higher", found, expected)


def auditor_gaussian() -> Iterator[Finding]:
    """Epsilon and mu turn into one another, also where e^epsilon overflows."""
    for mu, epsilon in ((1.0, 4.377178), (12.0, 122.324061)):  # dp-accounting 0.6.0
        yield _close(f"epsilon of mu = {mu:g}", bounds.epsilon_of_mu(mu, DELTA), epsilon, within=1e-5)
    far = bounds.epsilon_of_mu(50.0, DELTA)
    yield _that("epsilon of mu = 50", f"{far:.6g}", math.isfinite(far) and 1400 < far < 1500)
    yield _close("mu of that epsilon", bounds.mu_of_epsilon(far, DELTA), 50.0, within=1e-4)


def auditor_one_run() -> Iterator[Finding]:
    """P-values of Steinke et al. in exact fractions, and the algorithm of Mahloujifar et al. written out."""
    for right, delta in ((9, Fraction(0)), (12, Fraction(1, 1000)), (11, Fraction(1, 100))):
        made, q = 12, Fraction(3, 4)
        likely = [math.comb(made, j) * q**j * (1 - q) ** (made - j) for j in range(made + 1)]
        worst = max(sum(likely[right - i : right], Fraction(0)) / i for i in range(1, right + 1))
        exact = sum(likely[right:], Fraction(0)) + 2 * 40 * delta * worst
        found = one_run.p_value(Guesses(40, made, right), epsilon=math.log(3), delta=float(delta))
        yield _close(f"p-value, {right} right, delta = {float(delta):g}", found, float(min(exact, Fraction(1))))
    for right, mu in ((30, 0.9), (24, 0.4), (20, 0.1), (40, 2.0)):
        found_it = one_run.rejects_mu(Guesses(100, 40, right), mu=mu, alpha=0.05)
        yield _that(f"curve of mu = {mu:g}, {right} right", str(found_it), found_it == _written_out(right, mu))
    for method, expected in ((ONE_RUN, 3.876), (ONE_RUN_FDP, 6.519)):
        cap = power.cap(1000, 150, delta=DELTA, alpha=0.05, method=method)
        yield _close(f"cap of 150 guesses, {method}", cap, expected, within=2e-3)


def _written_out(right: int, mu: float) -> bool:
    """Whether 100 canaries, 40 guesses and ``right`` right ones refute mu-GDP at 5 %; whole lists, no shortcut."""
    normal, h, r = NormalDist(), [0.0] * (right + 1), [0.0] * (right + 1)
    h[right], r[right] = 0.05 * (40 - right) / 100, 0.05 * right / 100
    for i in range(right - 1, -1, -1):
        h[i] = max(h[i + 1], normal.cdf(normal.inv_cdf(min(r[i + 1], 1 - 1e-12)) - mu))
        r[i] = r[i + 1] + i / (40 - i) * (h[i] - h[i + 1])
    return r[0] + h[0] >= 40 / 100


def auditor_guesses() -> Iterator[Finding]:
    """Guesses are counted once, from scores alone; neither a tie nor a NaN is ever right."""
    scores, included = np.array([0.1, 0.9, 0.5, 0.3, 0.7]), np.array([False, True, True, True, False])
    found = one_run.guesses(scores, included, top=2, bottom=2)
    yield _that("four guesses, two right", str(found), found == Guesses(5, 4, 2))
    half = np.arange(40) % 2 == 0
    tied = one_run.guesses(np.ones(40), half, top=20, bottom=20)
    yield _that("equal scores", str(tied), tied == Guesses(40, 40, 0))
    for subject, known in (("included", half), ("left-out", ~half)):
        missing = one_run.guesses(np.where(known, np.arange(40.0), np.nan), half, top=20, bottom=20)
        yield _that(f"scores of {subject} canaries alone", str(missing), missing.right <= 20)


def auditor_thresholds() -> Iterator[Finding]:
    """A threshold never depends on the answers of those it is tested with; the best of several pays for all."""
    scores, included = power.gaussian_problem(200, 1.0, np.random.default_rng(0))
    split = thresholds.Split()
    testing = thresholds.halves(200, split.seed)[1]
    other = included.copy()
    other[testing] = ~other[testing]
    before, after = (float(split.tested(scores, answers).thresholds[0]) for answers in (included, other))
    yield _close("threshold after the tested half's answers changed", after, before)
    used = split.tested(scores, included).counts
    yield _that("canaries tested", f"{used.positives + used.negatives}", used.positives + used.negatives == 100)
    tested = thresholds.Bonferroni(5).tested(scores, included)
    found, _ = thresholds.best_bound(tested, lambda c, a: bounds.mu_bound(c, alpha=a), alpha=0.05)
    fair = float(bounds.mu_bound(tested.counts, alpha=0.01).max())
    yield _close("best of five thresholds", found, fair)
    spoiled = thresholds.Explicit(threshold=-9.0).tested(np.where(included, scores, np.nan), included).counts
    yield _that("left-out canaries with NaN", str(spoiled), spoiled.false_positives == spoiled.negatives)


def auditor_false_alarms() -> Iterator[Finding]:
    """On pure noise a one-run test at 5 % accuses hardly more often than in 5 % of all runs."""
    method, rng = OneRun(ONE_RUN, 0.05, DELTA, 80, 20), np.random.default_rng(11)
    critical = method.critical(1e-3)
    runs = (power.gaussian_problem(80, 0.0, rng) for _ in range(_NULL_RUNS))
    alarms = sum(method.statistic(*run) > critical for run in runs)
    yield _that("one-run test on noise", f"{alarms} alarms in {_NULL_RUNS} runs", alarms <= _MOST_NULL_ALARMS)
    scores, included = power.gaussian_problem(80, 3.0, rng)
    guessed = method.guessed(scores, included).made
    yield _that("guesses made", f"{guessed}, registered 20", guessed == 20)


def auditor_family() -> Iterator[Finding]:
    """The error rates of all tests together are those that were stated, however many designs there are."""
    for designs in (1, 3):
        scores = [_canaries(100, 1.0, f"design {i}") for i in range(designs)]
        plans = verdict.registered(scores, 1.0, DELTA, alpha=0.05, gaussian=True)
        chosen = [m for _, registered in plans for m in registered]
        headline = sum(m.alpha for m in chosen if isinstance(m, OneRun))
        alarm = sum(m.alpha for m in chosen if not isinstance(m, OneRun))
        yield _close(f"one-run tests of {designs} designs", headline, 0.049)
        yield _close(f"alarms of {designs} designs", alarm, 0.001)
    seen = [("updates", 4.0), ("sums", 4.0), ("sums", 4.0), ("sums", 2.0), ("table", 2.0)]
    for subject, tested, verdicts in (("three views, one under two claims", seen, 4), ("one view", seen[:1], 1)):
        yield _close(f"verdicts of {subject}", verdicts * verdict.alpha_of_each(tested), 0.05)


def auditor_silence() -> Iterator[Finding]:
    """Silence is CONSISTENT only where the audit could have spoken."""
    for subject, cap, factor, expected in (
        ("cap below the claim", 3.0, 1.41, Outcome.INCONCLUSIVE),
        ("no power", 9.0, None, Outcome.INCONCLUSIVE),
        ("cap and power", 9.0, 1.41, Outcome.CONSISTENT),
    ):
        outcome, _ = verdict.judged([_silent(cap, factor)], 4.0, DELTA)
        yield _that(subject, str(outcome), outcome == expected)
    several = [_silent(9.0, 1.41), replace(_silent(9.0, 2.5), design="split rows")]
    yield _close("error noticed of designs that see 1.41 and 2.5", verdict.noticed(several, 4.0) or 0.0, 2.5)
    for subject, count, test_mode in (("test mode", 100, True), ("few canaries", 40, False)):
        found = verdict.audited([_canaries(count, 2.0)], claimed_epsilon=4.0, delta=DELTA, test_mode=test_mode)
        yield _that(subject, str(found.outcome), found.outcome == Outcome.INCONCLUSIVE and not found.evidence)
    weak = evidence.gathered(MeanDifference(1e-3, DELTA), _canaries(100, 1.0), claimed_epsilon=0.1, known={})
    yield _that("100 canaries, epsilon = 0.1", f"sees a factor {weak.smallest_factor}", weak.smallest_factor is None)
    method = OneRun(ONE_RUN, 0.05, DELTA, 300, 80)
    moot = evidence.gathered(method, _canaries(300, 0.0), claimed_epsilon=1.5, known={})
    yield _that("canaries without effect", f"sees a factor {moot.smallest_factor}", moot.smallest_factor is None)


def auditor_strength() -> Iterator[Finding]:
    """Canaries that sampling weakens stay weak though noise is missing; how weak is never taken for better than seen.

    Included canaries lie ``mu / 2`` claimed deviations above the others, by construction: both kinds spread alike.
    """
    mu, half = bounds.mu_of_epsilon(3.0, DELTA), np.linspace(-2.0, 2.0, 50)
    included, unit = np.arange(100) < 50, half / half.std(ddof=1)
    for noise in (1.0, 0.5, 0.1):
        scores = noise * np.concatenate([unit, unit]) + included * mu / 2
        found = CanaryScores(scores, included, "dedicated rows", "all sums", claimed_stddev=1.0)
        lowest = 0.5 - _T_49 * noise * math.sqrt(2 / 50) / mu  # Welch's bound, with the t of 49 degrees of freedom
        strength = evidence.strength_of(found, claimed_epsilon=3.0, delta=DELTA)
        yield _close(f"half of the effect, noise {noise:g} of the claimed", strength, lowest, within=1e-4)


def auditor_sampling() -> Iterator[Finding]:
    """What chance adds to the scores of included canaries stays where noise is missing, and hides that it is."""
    method, rng = OneRun(ONE_RUN, 0.05, DELTA, 300, 80), np.random.default_rng(5)
    included, noise = np.arange(300) % 2 == 0, rng.standard_normal(300)
    part = rng.binomial(8, 0.5, 300) * included  # in how many of eight releases
    for subject, releases, heard in (("in half of the releases", part, False), ("in all", 4.0 * included, True)):
        found = CanaryScores(noise + releases, included, "dedicated rows", "all sums", claimed_stddev=1.0, sampled=True)
        told = evidence.gathered(method, found, claimed_epsilon=2.0, known={}).smallest_factor
        yield _that(f"canaries {subject}", f"sees a factor {told}", (told is not None) == heard)
    spread = evidence.spread_of(CanaryScores(noise + part, included, "dedicated rows", "all sums", claimed_stddev=2.0))
    more = np.var((noise + part)[included], ddof=1) - np.var(noise[~included], ddof=1)
    yield _close("spread, in claimed deviations", spread, math.sqrt(float(more)) / 2)


def auditor_normality() -> Iterator[Finding]:
    """The difference of means counts for normal scores alone, and a declared noise only while the scores agree."""
    rng = np.random.default_rng(2)
    included = np.arange(1000) % 2 == 0
    heavy = MeanDifference(0.05, DELTA).statistic(rng.laplace(size=1000) + included, included)
    yield _close("mu of Laplace scores", heavy, 0.0)
    scores = rng.normal(size=1000) + 2.0 * included
    declared = MeanDifference(1e-3, DELTA, 3.0).statistic(scores, included)
    alone = MeanDifference(1e-3, DELTA).statistic(scores, included)
    yield _close("mu where three times the noise is declared", declared, alone)


def _canaries(count: int, mu: float, design: str = "dedicated rows") -> CanaryScores:
    scores, included = power.gaussian_problem(count, mu, np.random.default_rng(7))
    return CanaryScores(scores, included, design, "all sums")


def _silent(cap: float, factor: float | None) -> Evidence:
    """A one-run test that did not reject."""
    return Evidence(
        method=ONE_RUN,
        assumes="",
        design="dedicated rows",
        view="all sums",
        bound=1.0,
        estimate=1.5,
        alpha=0.05,
        rejects=False,
        canaries=1000,
        guesses=100,
        right=70,
        cap=cap,
        strength=1.0,
        supplementary=False,
        smallest_factor=factor,
        best_attainable=1.2,
    )


def _check(function: Callable[[], Iterator[Finding]]) -> Check:
    return Check(function.__name__, TEST, lambda bench, seed: list(function()), random=False)


AUDITOR = tuple(
    _check(function)
    for function in (
        auditor_rates,
        auditor_signs,
        auditor_gaussian,
        auditor_one_run,
        auditor_guesses,
        auditor_thresholds,
        auditor_false_alarms,
        auditor_family,
        auditor_silence,
        auditor_strength,
        auditor_sampling,
        auditor_normality,
    )
)
