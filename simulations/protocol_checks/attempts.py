"""What all attacks share: an attempt and the refusal it must meet, states set back, altered messages."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from common.errors import SecAggError
from common.evaluation.conformance import Finding
from common.secagg.client_state import ClientState
from common.secagg.messages import Opening, to_bitmap
from simulations.protocol_checks.trial import Trial, trial_terms

FIRST, LAST = "client-000", "client-005"


def refused(subject: str, code: str, attempt: Callable[[], Any]) -> Finding:
    """The attempt must be refused with this code and no other."""
    try:
        attempt()
        got = "answered"
    except SecAggError as error:
        got = error.code
    except Exception as error:  # a check that is broken may fail in any way
        got = type(error).__name__
    return Finding("P", subject, f"{got}, must be {code}", got == code)


def copy_of(state: ClientState) -> ClientState:
    """The same state, as a process that starts again finds it."""
    return ClientState.from_bytes(state.to_bytes())


def edited(opening: bytes, **changes: Any) -> bytes:
    """An opening of one phase, altered."""
    return replace(Opening.from_bytes(opening, 1), **changes).to_bytes()


def bitmap(trial: Trial, names: Iterable[str]) -> bytes:
    """A set of clients of a cohort in which nobody is missing."""
    return to_bitmap((trial.names.index(name) for name in names), len(trial.names))


def large() -> Trial:
    """34 clients with 4 neighbours each, shared."""
    return Trial(34, terms=trial_terms(34, degree=4, least_survivors=10, least_cohort=20)).advertise()
