"""What an honest coordinator takes of a message: nothing that is not of its sender, its hop, its view and its size.

A message that is taken all the same harms nobody's secrecy (clients check for themselves): it spoils the sum, or makes
others give up. Each must make its sender a dropout, with the reason that names it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from common.evaluation.conformance import Finding
from common.secagg import client as machine
from common.secagg.adverts import Advert
from common.secagg.encoding import pack, unpack
from common.secagg.keys import Identity
from common.secagg.messages import Survivors
from simulations.protocol_checks.attempts import FIRST, LAST, bitmap, refused
from simulations.protocol_checks.joining import resigned
from simulations.protocol_checks.trial import Trial, trial_terms

_OTHERS = frozenset({FIRST})  # everybody but the first client has sent its message of the hop
_ANOTHER = bytes(32)


def coordinator_reads_adverts() -> list[Finding]:
    """Adverts under another's name, with a spoilt signature, a spoilt key, another's key, or of no member."""
    trial, signed = Trial(6), Trial(6, terms=trial_terms(6, signed=True))
    own, advert = trial.identities[FIRST], Advert.from_bytes(trial.begin(FIRST)[1], 1)
    other = Advert.from_bytes(trial.begin(LAST)[1], 1)
    copied = resigned(trial, advert, own, masking=other.masking)
    spoilt = replace(advert, signature=other.signature)
    invented = signed.begin(FIRST, identity=signed.identities[FIRST], entropy=signed.entropy)[1]
    stranger = resigned(signed, Advert.from_bytes(invented, 1), Identity.fresh(signed.entropy))
    small = resigned(trial, advert, own, sealing=_ANOTHER)
    return [
        _dropped(Trial(6), "foreign_id", lambda t: t.server.accept_advert(FIRST, other.to_bytes())),
        _dropped(Trial(6), "bad_signature", lambda t: t.server.accept_advert(FIRST, spoilt.to_bytes())),
        _dropped(Trial(6), "bad_key", lambda t: t.server.accept_advert(FIRST, small.to_bytes())),
        _dropped(
            _after_last(Trial(6), other), "duplicate_key", lambda t: t.server.accept_advert(FIRST, copied.to_bytes())
        ),
        _dropped(signed, "foreign_identity", lambda t: t.server.accept_advert(FIRST, stranger.to_bytes())),
    ]


def coordinator_wants_its_minimum() -> list[Finding]:
    """A cohort below the least that the terms name."""
    trial = Trial(6, terms=trial_terms(6, least_cohort=6))
    return [refused("five of six clients", "small_cohort", lambda: trial.advertise(skip=_OTHERS))]


def coordinator_reads_vectors() -> list[Finding]:
    """Shares for another cohort; vectors of another view or length."""
    shared, masked, short = Trial(6).advertise(), Trial(6).advertise().share(), Trial(6).advertise().share()
    shares = _with(machine.share(shared.states[FIRST], shared.inbox[FIRST], entropy=shared.entropy)[1], 5, at=1)
    vectors = [trial.masked(trial.states[FIRST], trial.inbox[FIRST])[1] for trial in (masked, short)]
    header = _with(vectors[0].header, 2, at=1)
    return [
        _dropped(shared, "wrong_round", lambda t: t.server.accept_shares(FIRST, shares)),
        _dropped(masked, "wrong_view", lambda t: t.server.accept_masked(FIRST, header, vectors[0].body)),
        _dropped(
            short, "wrong_length", lambda t: t.server.accept_masked(FIRST, vectors[1].header, vectors[1].body[:-2])
        ),
    ]


def coordinator_reads_outcomes() -> list[Finding]:
    """A confirmation of another list or with another's signature; shares of another outcome, or that are none."""
    trial, spoilt, told, none = (Trial(6).advertise().share().mask() for _ in range(4))
    view = Survivors.from_bytes(trial.inbox[FIRST]).view
    fewer = Survivors(view, bitmap(trial, trial.names[:5]))
    _, other = machine.confirm(trial.states[FIRST], fewer.to_bytes())
    foreign = _with(machine.confirm(spoilt.states[FIRST], spoilt.inbox[FIRST])[1], 3, at=2, by=bytes(64))
    reveals = [machine.reveal(t.states[FIRST], t.inbox[FIRST])[1] for t in (told.confirm(), none.confirm())]
    elsewhere, nothing = (
        _with(reveals[0], 3, at=1),
        _with(reveals[1], 3, at=2, by=b"\xff" * len(unpack(reveals[1], 3)[2])),
    )
    return [
        _dropped(trial, "wrong_outcome", lambda t: t.server.accept_confirmation(FIRST, other)),
        _dropped(spoilt, "bad_signature", lambda t: t.server.accept_confirmation(FIRST, foreign)),
        _dropped(told, "wrong_outcome", lambda t: t.server.accept_reveal(FIRST, elsewhere)),
        _dropped(none, "bad_share", lambda t: t.server.accept_reveal(FIRST, nothing)),
    ]


def coordinator_hears_once_and_in_time() -> list[Finding]:
    """A vector twice, one by a client that never shared, and one after its hop was closed: the sum is as without."""
    found = []
    for subject in ("twice", "a stranger's", "late"):
        trial = Trial(6).advertise().share()
        vector = trial.masked(trial.states[FIRST], trial.inbox[FIRST])[1]
        members = trial.names if subject == "twice" else trial.names[1:]
        sender = "nobody" if subject == "a stranger's" else FIRST
        if subject == "twice":
            trial.server.accept_masked(FIRST, vector.header, vector.body)
        if subject != "late":
            _try(lambda t=trial, v=vector, s=sender: t.server.accept_masked(s, v.header, v.body))  # type: ignore[misc]
        trial.mask(skip=_OTHERS)
        if subject == "late":
            trial.server.accept_masked(FIRST, vector.header, vector.body)
        trial.confirm(skip=_OTHERS).reveal(skip=_OTHERS)
        exact = _try(lambda t=trial, m=members: np.array_equal(t.finish(), t.expected(0, m)))  # type: ignore[misc]
        found.append(Finding("P", f"a vector {subject}", f"the sum without it: {exact}", exact is True))
    return found


def _after_last(trial: Trial, advert: Advert) -> Trial:
    """The last client's advert has come."""
    trial.server.accept_advert(LAST, advert.to_bytes())
    return trial


def _with(message: bytes, count: int, *, at: int, by: bytes = _ANOTHER) -> bytes:
    """A message with one of its fields exchanged."""
    fields = unpack(message, count)
    return pack(*fields[:at], by, *fields[at + 1 :])


def _dropped(trial: Trial, code: str, send: Callable[[Trial], Any]) -> Finding:
    """The message is not taken, for this reason."""
    taken = _try(lambda: send(trial))
    got = trial.server.dropped.get(FIRST, f"taken: {taken}")
    return Finding("P", code, f"{got}, must be {code}", taken is False and got == code)


def _try(attempt: Callable[[], Any]) -> Any:
    try:
        return attempt()
    except Exception as error:  # a coordinator that is broken may fail in any way
        return type(error).__name__


SERVING = (
    coordinator_reads_adverts,
    coordinator_wants_its_minimum,
    coordinator_reads_vectors,
    coordinator_reads_outcomes,
    coordinator_hears_once_and_in_time,
)
