"""Attacks on a client that has joined: on openings, survivors and confirmations. Each must end in its refusal."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from common.evaluation.conformance import Finding
from common.secagg import checks
from common.secagg import client as machine
from common.secagg.keys import Identity
from common.secagg.messages import Confirmations, Opening, Survivors
from simulations.protocol_checks.attempts import FIRST, LAST, bitmap, copy_of, edited, large, refused
from simulations.protocol_checks.trial import TWO_PHASES, Trial, trial_terms

_S, _OTHER_S = b"S" * 32, b"T" * 32


def masking(trial: Trial, opening: bytes, *, phase: int = 0, bind: bytes = b"") -> Callable[[], Any]:
    """An attempt to have the first client mask."""
    return lambda: trial.masked(copy_of(trial.states[FIRST]), opening, phase=phase, bind=bind)


def wrong_opening() -> list[Finding]:
    """An opening of another round or phase, without the client, with too few clients or too few of its neighbours."""
    trial = Trial(6, terms=trial_terms(6)).advertise().share()
    opening = trial.inbox[FIRST]
    without, few = bitmap(trial, trial.names[1:]), bitmap(trial, trial.names[: trial.terms.least_survivors - 1])
    crowd = large().share()
    near = {advert.client for _, advert in crowd.states[FIRST].known_place.neighbours[:2]}
    lonely = edited(crowd.inbox[FIRST], roll=bitmap(crowd, set(crowd.names) - near))
    return [
        refused("another cohort", "wrong_round", masking(trial, edited(opening, cohort=bytes(32)))),
        refused("another phase", "wrong_phase", masking(trial, edited(opening, phase="votes"))),
        refused("without the client", "not_included", masking(trial, edited(opening, roll=without))),
        refused("too few on the roll", "too_few_survivors", masking(trial, edited(opening, roll=few))),
        refused("too few neighbours on the roll", "too_few_neighbours", masking(crowd, lonely)),
    ]


def wrong_bind() -> list[Finding]:
    """A second phase bound to other rows than the client was given."""
    trial = _between_phases()
    return [refused("another selection", "wrong_bind", masking(trial, trial.inbox[FIRST], phase=1, bind=_OTHER_S))]


def changed_roll() -> list[Finding]:
    """A second phase among others than the first one's survivors."""
    trial = _between_phases()
    opening = replace(Opening.from_bytes(trial.inbox[FIRST], 2), roll=bitmap(trial, trial.names[:-1])).to_bytes()
    return [refused("a survivor left out", "wrong_roll", masking(trial, opening, phase=1, bind=_S))]


def _between_phases() -> Trial:
    trial = Trial(6, terms=trial_terms(6, phases=TWO_PHASES)).advertise().share().mask().confirm().reveal()
    trial.finish()
    return trial.next_phase(_S)


def confirming(trial: Trial, names: Iterable[str], *, view: bytes | None = None) -> Callable[[], Any]:
    """An attempt to have the first client confirm these survivors."""
    own = trial.states[FIRST].known_opening.view if view is None else view
    message = Survivors(own, bitmap(trial, names)).to_bytes()
    return lambda: machine.confirm(copy_of(trial.states[FIRST]), message)


def few_survivors() -> list[Finding]:
    """A sum of fewer than agreed; one of many, but few of them neighbours; one without the client."""
    trial = Trial(6, terms=trial_terms(6, least_survivors=5, least_cohort=5)).advertise().share().mask()
    crowd = large().share()
    crowd.states[FIRST], _ = crowd.masked(crowd.states[FIRST], crowd.inbox[FIRST])
    near = {advert.client for _, advert in crowd.states[FIRST].known_place.neighbours[:2]}
    rest = [name for name in crowd.names if name not in near]
    return [
        refused("four of five", "too_few_survivors", confirming(trial, trial.names[:4])),
        refused("two of three neighbours", "too_few_neighbours", confirming(crowd, rest)),
        refused("without the client", "not_included", confirming(trial, trial.names[1:])),
    ]


def wrong_survivors() -> list[Finding]:
    """Survivors of another view; a survivor that never shared."""
    trial = Trial(6).advertise().share(skip={LAST}).mask()
    return [
        refused("another view", "wrong_view", confirming(trial, trial.names[:5], view=bytes(32))),
        refused("a stranger survives", "foreign_id", confirming(trial, trial.names)),
    ]


def revealing(trial: Trial, signers: Iterable[str], *, outcome: bytes, relabelled: bytes = b"") -> Callable[[], Any]:
    """An attempt to have the first client reveal on these clients' signatures of ``outcome``."""
    names = list(signers)
    statement = checks.confirmation_statement(outcome)
    signatures = tuple(Identity(trial.states[name].secrets["signing"]).sign(statement) for name in names)
    message = Confirmations(relabelled or outcome, bitmap(trial, names), signatures).to_bytes()
    return lambda: machine.reveal(copy_of(trial.states[FIRST]), message)


def wrong_confirmations() -> list[Finding]:
    """Confirmations of another outcome, by too few, by who is no survivor, or signed for something else."""
    trial = Trial(6).advertise().share().mask(skip={LAST})
    for name in trial.names[:5]:
        trial.states[name], _ = machine.confirm(trial.states[name], trial.inbox[name])
    state = trial.states[FIRST]
    true = Survivors(state.known_opening.view, state.survivors).outcome
    other = Survivors(state.known_opening.view, bitmap(trial, trial.names)).outcome
    others, few = trial.names[1:5], trial.names[1 : state.known_place.threshold]
    return [
        refused("another outcome", "wrong_outcome", revealing(trial, others, outcome=other)),
        refused("one signature short", "too_few_confirmations", revealing(trial, few, outcome=true)),
        refused("a dropped signer", "foreign_id", revealing(trial, [*others[:3], LAST], outcome=true)),
        refused("relabelled", "bad_signature", revealing(trial, others, outcome=other, relabelled=true)),
    ]


def split_selection() -> list[Finding]:
    """Two halves that were told different rows: neither takes the other's confirmations."""
    trial = _between_phases()
    shown = Opening.from_bytes(trial.inbox[FIRST], 2)
    for name in trial.names:
        bind = _S if name in trial.names[:3] else _OTHER_S
        opening = replace(shown, bind=bind).to_bytes()
        trial.states[name], _ = trial.masked(trial.states[name], opening, phase=1, bind=bind)
        outcome = Survivors(trial.states[name].known_opening.view, shown.roll)
        trial.states[name], _ = machine.confirm(trial.states[name], outcome.to_bytes())
    attempt = revealing(trial, trial.names[3:], outcome=outcome.outcome)
    return [refused("the other half's confirmations", "wrong_outcome", attempt)]


def asked_twice() -> list[Finding]:
    """Two outcomes confirmed from one state; a reveal before a confirmation."""
    trial = Trial(6).advertise().share().mask()
    state, early = trial.states[FIRST], copy_of(trial.states[FIRST])
    view = state.known_opening.view
    first, second = (Survivors(view, bitmap(trial, names)).to_bytes() for names in (trial.names, trial.names[:5]))
    machine.confirm(state, first)
    return [
        refused("a second outcome", "wrong_phase", lambda: machine.confirm(state, second)),
        refused("a reveal out of turn", "wrong_phase", lambda: machine.reveal(early, b"")),
    ]


SUMMING = (
    wrong_opening,
    wrong_bind,
    changed_roll,
    few_survivors,
    wrong_survivors,
    wrong_confirmations,
    split_selection,
    asked_twice,
)
