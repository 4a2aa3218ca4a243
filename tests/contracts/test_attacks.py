"""What every attack must do; found by discovery. Broken ones must fail the same contract, each in its own way."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from common.errors import ConfigError, EvaluationError
from common.evaluation import leakage
from common.evaluation.leak import Leak
from common.evaluation.leakage import SIGHTS
from common.evaluation.leakage.links import Links
from common.evaluation.leakage.reference_membership import ReferenceMembership
from common.evaluation.leakage.row_support import RowSupport
from common.evaluation.view import Question, Truth, View

from ._attack_cases import blind_view, flattened, noise_view, shuffled, truth, without

NAMES = leakage.names()
GUESSING = [name for name in NAMES if hasattr(leakage.load(name), "guess")]
SIGMAS = 4.0  # of an interval's half-width / 1.96: a figure this far above chance is not chance
FAR = 0.1


def says_what_it_is(attack: Any) -> None:
    assert attack.name in NAMES and attack.sees in SIGHTS and isinstance(attack.promised, bool)


def refuses_what_it_cannot_see(attack: Any) -> None:
    sights = [attack.sees, *(["references"] if "reference" in attack.name else [])]
    for sight in sights:
        with pytest.raises(EvaluationError, match=attack.name):
            attack.run(without(noise_view(0), sight), truth(0), seed=0)


def refuses_to_compare_with_nothing(attack: Any) -> None:
    with pytest.raises(EvaluationError, match=attack.name):
        attack.run(noise_view(0), Truth(), seed=0)


def is_at_chance_on_noise(attack: Any) -> None:
    for seed in (0, 1):
        for leak in attack.run(blind_view(attack, seed), truth(seed), seed=seed):
            half = max(leak.value - leak.ci_low, leak.ci_high - leak.value)
            room = 0.0 if math.isnan(half) else SIGMAS / 1.96 * half
            assert leak.value - leak.chance_value < max(room, 0.02), f"{leak.metric}, seed {seed}"
            assert leak.value - leak.chance_value < FAR, f"{leak.metric}, seed {seed}"


def repeats_itself(attack: Any) -> None:
    first, again = ([x.to_json() for x in attack.run(noise_view(3), truth(3), seed=3)] for _ in range(2))
    assert first == again


def reports_sane_figures(attack: Any) -> None:
    leaks = attack.run(noise_view(4), truth(4), seed=4)
    assert leaks and len({leak.metric for leak in leaks}) == len(leaks)
    for leak in leaks:
        assert isinstance(leak, Leak)
        assert (leak.attack, leak.sees, leak.promised) == (attack.name, attack.sees, attack.promised)
        assert 0 <= leak.value <= 1 and 0 <= leak.chance_value <= 1 and leak.chance_name and leak.metric
        assert isinstance(leak.n, int) and leak.n >= 1
        assert math.isnan(leak.control_value), "the control is the caller's"
        assert math.isnan(leak.ci_low) == math.isnan(leak.ci_high)
        assert math.isnan(leak.ci_low) or 0 <= leak.ci_low <= leak.value <= leak.ci_high <= 1, leak.metric


def leaves_its_input_alone(attack: Any) -> None:
    view, answers = noise_view(5), truth(5)
    before = flattened([view.rounds[0].updates, view.table, view.start, view.prior, answers])
    attack.run(view, answers, seed=5)
    assert flattened([view.rounds[0].updates, view.table, view.start, view.prior, answers]) == before


CONTRACT = (
    says_what_it_is,
    refuses_what_it_cannot_see,
    refuses_to_compare_with_nothing,
    is_at_chance_on_noise,
    repeats_itself,
    reports_sane_figures,
    leaves_its_input_alone,
)


def guesses_without_the_answers(attack: Any) -> None:
    """Guesses come from the view and the question; with other answers they are the same."""
    made: list[list[Any]] = []

    def recorded(*args: Any, **kwargs: Any) -> Any:
        assert not any(isinstance(a, Truth) for a in (*args, *kwargs.values())), "guessing was shown the truth"
        found = attack.guess(*args, **kwargs)
        found = list(found) if isinstance(found, Iterator) else found
        made.append(flattened(found))
        return iter(found) if isinstance(found, list) else found

    watched = copy.copy(attack)
    watched.guess = recorded
    answers = truth(6)
    for number, given in enumerate((answers, shuffled(answers, 6))):
        watched.run(noise_view(6), given, seed=6)
        assert len(made) == number + 1, "figures come from one guess"
    assert made[0] == made[1]


@pytest.mark.parametrize("check", CONTRACT, ids=lambda c: c.__name__)
@pytest.mark.parametrize("name", NAMES)
def test_contract(name: str, check: Callable[[Any], None]) -> None:
    check(leakage.load(name))


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_its_modules(name: str) -> None:
    assert leakage.load(name).name == name


@pytest.mark.parametrize("name", GUESSING)
def test_guesses_never_depend_on_the_truth(name: str) -> None:
    guesses_without_the_answers(leakage.load(name))


def test_attacks_are_found_by_name() -> None:
    known = {
        "row_support",
        "single_owner",
        "intersection",
        "differencing",
        "membership",
        "reference_membership",
        "links",
    }
    assert known <= set(NAMES)
    with pytest.raises(ConfigError, match="did you mean 'links'"):
        leakage.load("linkz")


class WrongName(Links):
    name = "link"


class SeesEverything(Links):
    sees = "everything"


class RunsOnNothing(Links):
    """Invents a table where it sees none."""

    def run(self, view: View, truth: Truth, *, seed: int) -> list[Leak]:
        return super().run(dataclasses.replace(view, table=view.table or noise_view(0).table), truth, seed=seed)


class NeedsNoReferences(ReferenceMembership):
    def run(self, view: View, truth: Truth, *, seed: int) -> list[Leak]:
        known = view.references or noise_view(0).references
        return super().run(dataclasses.replace(view, references=known), truth, seed=seed)


class ComparesWithNothing(Links):
    def run(self, view: View, truth: Truth, *, seed: int) -> list[Leak]:
        return super().run(view, truth, seed=seed) if truth.linked is not None else []


class PeeksAtLinks(Links):
    """Adds a little of the answer to its score."""

    def run(self, view: View, truth: Truth, *, seed: int) -> list[Leak]:
        peeking = copy.copy(self)
        added = 0.0 if truth.linked is None else 0.3 * truth.linked
        peeking.guess = lambda v, q, *, seed: {n: s + added for n, s in self.guess(v, q, seed=seed).items()}
        return Links.run(peeking, view, truth, seed=seed)


class PeeksAtRows(RowSupport):
    """Its prior knows the clients: it looks as if the updates told."""

    def run(self, view: View, truth: Truth, *, seed: int) -> list[Leak]:
        peeking = copy.copy(self)

        def guess(v: View, q: Question, *, seed: int) -> Iterator[Any]:
            for found in self.guess(v, q, seed=seed):
                held = np.isin(np.arange(len(found.odds)), truth.held_rows[found.target])
                yield dataclasses.replace(found, odds=found.odds + held)

        peeking.guess = guess
        return RowSupport.run(peeking, view, truth, seed=seed)


class AsksTheTruth(Links):
    """Its guessing is shown the answers, even if it does not use them."""

    def run(self, view: View, truth: Truth, *, seed: int) -> list[Leak]:
        self.guess(view, truth, seed=seed)  # type: ignore[arg-type]
        return super().run(view, truth, seed=seed)


class GuessesByTheAnswers(Links):
    """No answer gets into a score, and yet which pairs are scored depends on the answers."""

    def run(self, view: View, truth: Truth, *, seed: int) -> list[Leak]:
        if truth.linked is None or truth.pairs is None:
            return super().run(view, truth, seed=seed)
        order = np.argsort(~truth.linked, kind="stable")
        sorted_ = dataclasses.replace(truth, pairs=truth.pairs[order], linked=truth.linked[order])
        return super().run(view, sorted_, seed=seed)


class NeverTheSame(Links):
    def __init__(self) -> None:
        self.calls = 0

    def run(self, view: View, truth: Truth, *, seed: int) -> list[Leak]:
        self.calls += 1
        return super().run(view, truth, seed=seed + self.calls)


class Altered(Links):
    """Reports the figures of another with one field changed."""

    def __init__(self, **changed: Any) -> None:
        self.changed = changed

    def run(self, view: View, truth: Truth, *, seed: int) -> list[Leak]:
        return [dataclasses.replace(leak, **self.changed) for leak in super().run(view, truth, seed=seed)]


class Scribbles(Links):
    def run(self, view: View, truth: Truth, *, seed: int) -> list[Leak]:
        found = super().run(view, truth, seed=seed)
        if view.table is not None:
            view.table.vectors[0] += 1
        return found


class Overstates(RowSupport):
    """Counts hits that it did not make."""

    def run(self, view: View, truth: Truth, *, seed: int) -> list[Leak]:
        found = super().run(view, truth, seed=seed)
        more = {"value": 0.13, "ci_low": 0.13, "ci_high": 0.13}
        return [dataclasses.replace(x, **{k: min(1.0, getattr(x, k) + v) for k, v in more.items()}) for x in found]


BROKEN = [
    (SeesEverything(), says_what_it_is),
    (WrongName(), says_what_it_is),
    (RunsOnNothing(), refuses_what_it_cannot_see),
    (NeedsNoReferences(), refuses_what_it_cannot_see),
    (ComparesWithNothing(), refuses_to_compare_with_nothing),
    (PeeksAtLinks(), is_at_chance_on_noise),
    (PeeksAtRows(), is_at_chance_on_noise),
    (Overstates(), is_at_chance_on_noise),
    (NeverTheSame(), repeats_itself),
    (Altered(value=1.2), reports_sane_figures),
    (Altered(value=math.nan), reports_sane_figures),
    (Altered(ci_low=0.9), reports_sane_figures),
    (Altered(metric="auc"), reports_sane_figures),
    (Altered(n=0), reports_sane_figures),
    (Altered(promised=False), reports_sane_figures),
    (Altered(control_value=0.5), reports_sane_figures),
    (Scribbles(), leaves_its_input_alone),
    (AsksTheTruth(), guesses_without_the_answers),
    (GuessesByTheAnswers(), guesses_without_the_answers),
]


@pytest.mark.parametrize(("attack", "check"), BROKEN, ids=lambda x: getattr(x, "__name__", type(x).__name__))
def test_broken_attacks_fail(attack: Any, check: Callable[[Any], None]) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check(attack)
