"""The audit benchmark runs at its tiny size, and its broken mechanisms are broken."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulations import benchmarks
from simulations.benchmarks import _audit_mechanisms as trial


def test_quick_size_runs_and_judges_nothing() -> None:
    rows = benchmarks.load("audit").run(quick=True)
    assert len(rows) == 8 and all(row.holds is None for row in rows)


def test_what_is_patched_is_put_back(tmp_path: Path) -> None:
    for mechanism in trial.mechanisms():
        before = [getattr(owner, name) for owner, name, _ in mechanism.patches]
        with pytest.raises(ZeroDivisionError), trial.installed(mechanism.patches):
            assert all(getattr(owner, name) is by for owner, name, by in mechanism.patches)
            raise ZeroDivisionError
        assert [getattr(owner, name) for owner, name, _ in mechanism.patches] == before


def test_an_audit_sees_rows_that_stay_away(tmp_path: Path) -> None:
    touched = next(m for m in trial.mechanisms() if "touched" in m.name)
    assert trial.audit(touched, 8.0, folder=tmp_path, rounds_claimed=2, canaries=200, seed=1).flagged


def test_only_the_test_of_who_takes_part_sees_a_partition_sold_as_poisson() -> None:
    for mechanism in trial.mechanisms():
        if mechanism.by_sampler is not None:
            assert trial.found_by_sampler(mechanism, 3.0) is mechanism.by_sampler, mechanism.name
