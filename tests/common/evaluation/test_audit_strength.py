"""Silence counts only as far as canaries could have spoken: what does not reach their scores is not noticed."""

from __future__ import annotations

import numpy as np
import pytest

from common.evaluation.audit import CanaryScores, Outcome, audited, mu_of_epsilon
from common.evaluation.audit import evidence as evidence_of

EPSILON, DELTA, M = 3.0, 1e-5, 1000


def scores(share: float, seed: int = 0, *, count: int = M, claimed: float | None = None) -> CanaryScores:
    """Canaries of the exact Gaussian mechanism, of whose effect this share reaches the scores."""
    rng = np.random.default_rng(seed)
    included = rng.random(count) < 0.5
    effect = share * mu_of_epsilon(EPSILON, DELTA)
    found = rng.standard_normal(count) + effect * included
    return CanaryScores(found, included, "dedicated", "sums", claimed_stddev=claimed)


def strength(share: float, seed: int, *, count: int, claimed: float | None) -> float:
    made = scores(share, seed, count=count, claimed=claimed)
    return evidence_of.strength_of(made, claimed_epsilon=EPSILON, delta=DELTA)


def factors(share: float) -> float:
    verdict = audited([scores(share)], claimed_epsilon=EPSILON, delta=DELTA)
    return min((e.smallest_factor for e in verdict.evidence if e.smallest_factor), default=float("inf"))


@pytest.mark.parametrize("claimed", [None, 1.0], ids=["their own noise", "the claimed noise"])
@pytest.mark.parametrize("share", [0.1, 0.4, 0.9])
def test_strength_is_what_reaches_the_scores_at_least(share: float, claimed: float | None) -> None:
    """In 19 of 20 audits it is not overstated, with a hundred canaries; and with many it is nearly what it is."""
    runs = [strength(share, seed, count=100, claimed=claimed) for seed in range(300)]
    assert sum(found > share for found in runs) <= 28  # more would happen once in 1,000 series
    assert sum(found > share for found in runs) >= 4  # nor is it needlessly low
    assert share - 0.05 < strength(share, 1, count=40_000, claimed=claimed) < share


def test_the_difference_itself_would_overstate_strength_in_half_of_all_audits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence_of, "least_difference", lambda inside, outside, alpha: inside.mean() - outside.mean())
    assert sum(strength(0.4, seed, count=100, claimed=1.0) > 0.4 for seed in range(300)) > 100


@pytest.mark.parametrize("noise", [1 / 3, 1.0])
def test_strength_does_not_grow_where_noise_is_missing(noise: float) -> None:
    """Weak canaries and a third of the noise: by their own spread they would seem three times as strong."""
    made = scores(0.2)
    weak = made.scores[made.included].mean() - made.scores[~made.included].mean()
    less = noise * (made.scores - weak * made.included) + weak * made.included
    found = CanaryScores(less, made.included, "dedicated", "sums", claimed_stddev=1.0)
    assert evidence_of.strength_of(found, claimed_epsilon=EPSILON, delta=DELTA) < 0.35


def test_weak_canaries_notice_less() -> None:
    assert factors(1.0) < factors(0.6) < factors(0.4)


def test_canaries_without_effect_give_no_verdict() -> None:
    verdict = audited([scores(0.0)], claimed_epsilon=EPSILON, delta=DELTA)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert audited([scores(1.0)], claimed_epsilon=EPSILON, delta=DELTA).outcome is Outcome.CONSISTENT


def test_without_it_silence_would_pass_for_evidence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence_of, "strength_of", lambda *given, **named: 1.0)
    assert audited([scores(0.0)], claimed_epsilon=EPSILON, delta=DELTA).outcome is Outcome.CONSISTENT


def test_scores_that_are_no_numbers_have_no_strength() -> None:
    rng = np.random.default_rng(0)
    values = np.full(M, np.nan)
    values[:2] = [0.0, 1.0]
    found = CanaryScores(values, rng.random(M) < 0.5, "dedicated", "sums")
    assert evidence_of.strength_of(found, claimed_epsilon=EPSILON, delta=DELTA) == 0.0


@pytest.mark.parametrize("noise", [0.0, 1e-12, 1e-6])
def test_scores_that_are_wholly_apart_cost_no_memory(noise: float) -> None:
    rng = np.random.default_rng(0)
    included = rng.random(M) < 0.5
    found = CanaryScores(included + noise * rng.standard_normal(M), included, "dedicated", "sums")
    verdict = audited([found], claimed_epsilon=EPSILON, delta=DELTA)
    assert verdict.outcome is Outcome.VIOLATION_FOUND
