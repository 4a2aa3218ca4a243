"""Every mutant is killed by the check it names; the correct mechanism passes all of them."""

from __future__ import annotations

import pytest

from simulations.mutants import CORRECT, Mutant, all_mutants

from ._checks import CHECKS

RANDOM = ("noise_scale", "whiteness", "fresh_noise", "support", "sensitivity", "poisson_draw")


@pytest.mark.parametrize("check", CHECKS)
def test_the_correct_mechanism_passes(check: str) -> None:
    CHECKS[check](CORRECT, 0)


@pytest.mark.parametrize("mutant", all_mutants(), ids=lambda m: m.name.replace(" ", "_"))
def test_the_mutant_is_killed_by_its_check(mutant: Mutant) -> None:
    with pytest.raises(AssertionError):
        CHECKS[mutant.killed_by](mutant.subject, 0)


def test_every_check_kills_something() -> None:
    assert {m.killed_by for m in all_mutants()} == set(CHECKS)


def test_mutant_names_are_distinct() -> None:
    names = [m.name for m in all_mutants()]
    assert len(names) == len(set(names)) >= 20


@pytest.mark.parametrize("check", RANDOM)
def test_no_false_alarm_over_ten_seeds(check: str) -> None:
    for seed in range(1, 11):
        CHECKS[check](CORRECT, seed)


@pytest.mark.slow
@pytest.mark.parametrize("check", RANDOM)
def test_no_false_alarm_over_a_thousand_seeds(check: str) -> None:
    for seed in range(1000):
        CHECKS[check](CORRECT, seed)
