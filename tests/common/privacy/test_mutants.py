"""Every mutant is killed by the check it names; the correct mechanism passes all of them."""

from __future__ import annotations

import pytest

from common.evaluation.conformance import EXAMPLE_MODE, failures
from common.evaluation.conformance.checks import ENGINE
from simulations.mutants import CHECKS, CORRECT, Mutant, all_mutants, correct, instead_of
from simulations.mutants.__main__ import main

RANDOM = [name for name, check in CHECKS.items() if check.random]
TRAINING = {check.name for check in (*ENGINE, *EXAMPLE_MODE)} | {"secure_sensitivity"}  # a quarter of a second each


@pytest.mark.parametrize("check", CHECKS)
def test_the_correct_mechanism_passes(check: str) -> None:
    findings = CHECKS[check].run(correct(), 0)
    assert findings and failures(findings) == []
    assert {finding.test for finding in findings} <= {"T1", "T2", "T3", "T4", "T5", "P", "A"}


@pytest.mark.parametrize("mutant", all_mutants(), ids=lambda m: m.name.replace(" ", "_"))
def test_the_mutant_is_killed_by_its_check(mutant: Mutant) -> None:
    assert mutant.findings(), f"{mutant.killed_by} sees nothing"


def test_every_check_kills_something() -> None:
    assert {m.killed_by for m in all_mutants()} == set(CHECKS)


def test_mutant_names_are_distinct() -> None:
    names = [m.name for m in all_mutants()]
    assert len(names) == len(set(names)) >= 45


def test_a_mutant_leaves_the_correct_code_behind() -> None:
    for mutant in all_mutants():
        if mutant.replacing is None:
            assert mutant.subject != CORRECT
            continue
        owner, name = mutant.replacing.owner, mutant.replacing.name
        before = getattr(owner, name)
        with mutant.installed():
            assert getattr(owner, name) != before, mutant.name
        assert getattr(owner, name) == before, mutant.name


def test_a_function_that_is_gone_cannot_be_replaced() -> None:
    with pytest.raises(AttributeError):
        instead_of(Mutant, "no such function", None)


@pytest.mark.parametrize("check", RANDOM)
def test_no_false_alarm_over_some_seeds(check: str) -> None:
    bench = correct()
    for seed in range(1, 5 if check in TRAINING else 20):
        assert failures(CHECKS[check].run(bench, seed)) == [], seed


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_no_false_alarm_over_a_thousand_seeds(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "1000"]) == 0
    assert "0 false alarms over 1000 seeds" in capsys.readouterr().out
