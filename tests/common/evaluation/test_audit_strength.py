"""Silence counts only as far as canaries could have spoken: what does not reach their scores is not noticed."""

from __future__ import annotations

import numpy as np
import pytest

from common.evaluation.audit import CanaryScores, Outcome, audited, mu_of_epsilon
from common.evaluation.audit import evidence as evidence_of

EPSILON, DELTA, M = 3.0, 1e-5, 1000


def scores(share: float, seed: int = 0) -> CanaryScores:
    """Canaries of the exact Gaussian mechanism, of whose effect this share reaches the scores."""
    rng = np.random.default_rng(seed)
    included = rng.random(M) < 0.5
    effect = share * mu_of_epsilon(EPSILON, DELTA)
    return CanaryScores(rng.standard_normal(M) + effect * included, included, "dedicated", "sums")


def factors(share: float) -> float:
    verdict = audited([scores(share)], claimed_epsilon=EPSILON, delta=DELTA)
    return min((e.smallest_factor for e in verdict.evidence if e.smallest_factor), default=float("inf"))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.3, 0.6, 1.0])
def test_strength_is_what_reaches_the_scores(share: float, seed: int) -> None:
    found = evidence_of.strength_of(scores(share, seed), claimed_epsilon=EPSILON, delta=DELTA)
    assert abs(found - share) < 0.3


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
