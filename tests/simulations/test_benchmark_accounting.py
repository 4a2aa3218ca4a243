"""The accounting benchmark runs, holds in its quick size, and notices a wrong accountant."""

from __future__ import annotations

import math

import pytest

from common.privacy import accounting as accountants
from simulations import benchmarks
from simulations.benchmarks import accounting
from simulations.benchmarks._harness import missed


def test_quick_size_holds_its_bars() -> None:
    rows = benchmarks.load("accounting").run(quick=True)
    assert not missed(rows)
    assert sum(row.bar != "" for row in rows) == 9
    assert next(row.value for row in rows if row.measure == "settings compared") == accounting.QUICK_SETTINGS


def test_the_grid_has_two_hundred_different_settings_over_the_whole_range() -> None:
    chosen = accounting.settings(accounting.SETTINGS)
    assert len(set(chosen)) == 200
    assert {s.rate for s in chosen} == set(accounting.RATES) and {s.steps for s in chosen} == set(accounting.STEPS)
    assert {s.sigma for s in chosen} == set(accounting.SIGMAS) and {s.delta for s in chosen} == set(accounting.DELTAS)


def test_an_accountant_that_says_ten_percent_less_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = accountants.epsilon
    monkeypatch.setattr(accountants, "epsilon", lambda event, delta: 0.9 * honest(event, delta))
    assert accounting.disagreement(accounting.Setting(0.01, 1.0, 1000, 1e-5)) > 1
    assert missed(list(accounting.goldens(quick=True)))


def test_a_setting_without_the_second_accountant_never_counts_as_agreement() -> None:
    assert math.isinf(accounting.disagreement(accounting.Setting(1.0, 0.02, 1, 1e-5)))
