"""What an audit will notice is told before it is made: a small case of the table in the guide."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from common.evaluation.audit import Outcome, Verdict, bounds
from simulations.audit import foreseen as forecast
from simulations.audit.foreseen import DELTA, FULL, SAMPLED, Foreseen, foreseen


def test_a_few_canaries_say_nothing_of_a_small_claim() -> None:
    assert foreseen(100, 1.0, FULL, runs=1) == Foreseen(0.0, None)


def test_only_audits_that_say_something_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    made: Iterator[tuple[Outcome, float | None]]
    made = iter([(Outcome.CONSISTENT, 2.0), (Outcome.INCONCLUSIVE, None), (Outcome.CONSISTENT, 1.5)])
    monkeypatch.setattr(forecast, "_noise", lambda *_: 1.0)

    def judged(*_: object, **__: object) -> Verdict:
        outcome, noticed = next(made)
        return Verdict(outcome, "", 1.0, DELTA, noticed=noticed)

    monkeypatch.setattr(forecast, "_verdict", judged)
    found = foreseen(1000, 1.0, FULL, runs=3)
    assert found == Foreseen(2 / 3, 2.0) and forecast._cell(found, 3) == "2; 2 of 3"


def test_the_noise_is_that_of_the_claim() -> None:
    """Of rounds that all are in, the whole run is one Gaussian release."""
    assert FULL.rounds / forecast._noise(3.0, FULL) == pytest.approx(bounds.mu_of_epsilon(3.0, DELTA), rel=1e-3)


def test_the_traces_of_sampled_canaries_vary_by_more_than_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: dict[str, Any] = {}
    monkeypatch.setattr(forecast, "audited", lambda scores, **told: kept.update({**told, "scores": scores}))
    forecast._verdict(4000, 8.0, SAMPLED, stddev=0.5, rng=np.random.default_rng(1))
    one = kept["scores"][0]
    extra = one.scores[one.included].var() - one.scores[~one.included].var()
    assert math.isclose(extra, 32 * 0.1 * 0.9, rel_tol=0.15) and one.sampled and one.claimed_stddev == 0.5
    assert kept["alpha"] == pytest.approx(0.05 / 2 * 4 / 7) and len(kept["scores"]) == 4
