"""Terms, limits and messages: one encoding each, and nothing out of range."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import SecAggError
from common.secagg.adverts import Advert, Adverts
from common.secagg.client_state import ClientLimits, ClientState, Secrets
from common.secagg.encoding import pack, u32, unpack
from common.secagg.messages import (
    Confirmations,
    Opening,
    Shares,
    Survivors,
    from_bitmap,
    to_bitmap,
)
from common.secagg.terms import PhaseTerms, Terms
from simulations.protocol_checks.trial import TWO_PHASES, Trial, trial_terms
from tests.common.secagg._tools import refused

TERMS = trial_terms(9, phases=TWO_PHASES)


def test_terms_come_back() -> None:
    for terms in (TERMS, trial_terms(5, signed=True, attempt=7), trial_terms(40, degree=6, least_survivors=2)):
        assert Terms.from_bytes(terms.to_bytes()) == terms
        assert len(terms.digest) == 32


def test_every_field_changes_the_digest() -> None:
    others: list[dict[str, Any]] = [
        {"run": "another"},
        {"round": 4},
        {"attempt": 1},
        {"phases": TWO_PHASES[:1]},
        {"phases": (TWO_PHASES[1], TWO_PHASES[0])},
        {"phases": (PhaseTerms("histogram", 11, 25), TWO_PHASES[1])},
        {"phases": (PhaseTerms("histogram", 10, 26), TWO_PHASES[1])},
        {"phases": (PhaseTerms("counts", 10, 25), TWO_PHASES[1])},
        {"least_cohort": 7},
        {"least_survivors": 5},
        {"degree": 7},
        {"neighbour_threshold": 6},
        {"config_hash": bytes(32)},
        {"model_hash": bytes(32)},
        {"neighbour_threshold": 6, "roster_hash": bytes(32)},
        {"neighbour_threshold": 6, "roster_hash": bytes(31) + b"\1"},
    ]
    digests = {replace(TERMS, **change).digest for change in others} | {TERMS.digest}
    assert len(digests) == len(others) + 1


@pytest.mark.parametrize(
    "change",
    [
        {"run": ""},
        {"run": "x" * 65},
        {"round": -1},
        {"round": 2**32},
        {"attempt": -1},
        {"phases": ()},
        {"phases": tuple(PhaseTerms(str(i), 16, 1) for i in range(9))},
        {"phases": TWO_PHASES[:1] * 2},
        {"phases": (PhaseTerms("", 16, 1),)},
        {"phases": (PhaseTerms("ü", 16, 1),)},
        {"phases": (PhaseTerms("x", 7, 1),)},
        {"phases": (PhaseTerms("x", 33, 1),)},
        {"phases": (PhaseTerms("x", 16, 0),)},
        {"phases": (PhaseTerms("x", 16, 2**31 + 1),)},
        {"least_survivors": 1},
        {"least_survivors": 7, "least_cohort": 6},
        {"neighbour_threshold": 0},
        {"neighbour_threshold": 9},
        {"degree": 0},
        {"config_hash": bytes(31)},
        {"model_hash": bytes(33)},
        {"roster_hash": bytes(31)},
    ],
    ids=str,
)
def test_terms_out_of_range(change: dict[str, Any]) -> None:
    with refused("bad_terms"):
        replace(TERMS, **change)


@pytest.mark.parametrize(
    ("signed", "threshold", "fine"), [(False, 4, False), (False, 5, True), (True, 5, False), (True, 6, True)]
)
def test_the_threshold_is_above_half_or_two_thirds(signed: bool, threshold: int, fine: bool) -> None:
    roster = bytes(32) if signed else b""
    make = lambda: replace(TERMS, neighbour_threshold=threshold, roster_hash=roster)  # noqa: E731
    if fine:
        make()
    else:
        with refused("weak_threshold"):
            make()


@settings(max_examples=50, deadline=None)
@given(degree=st.integers(1, 200), over=st.integers(0, 100), cohort=st.integers(2, 400), signed=st.booleans())
def test_a_smaller_cohort_keeps_the_strength(degree: int, over: int, cohort: int, signed: bool) -> None:
    """The oracle: fractions, as they are written down."""
    least = 2 * degree // 3 + 1 if signed else degree // 2 + 1
    roster = bytes(32) if signed else b""
    terms = replace(TERMS, degree=degree, neighbour_threshold=min(degree, least + over), roster_hash=roster)
    k, t = terms.neighbourhood(cohort)
    assert 1 <= t <= k <= cohort - 1
    assert k == cohort - 1 if cohort <= 32 or degree >= cohort - 1 else k in (degree, degree + 1)
    assert k % 2 == 0 or k == cohort - 1
    assert 3 * t > 2 * k if signed else 2 * t > k
    assert t / k >= terms.neighbour_threshold / degree > (t - 1) / k


@settings(max_examples=50, deadline=None)
@given(size=st.integers(1, 70), data=st.data())
def test_bitmaps(size: int, data: st.DataObject) -> None:
    members = data.draw(st.sets(st.integers(0, size - 1)))
    coded = to_bitmap(members, size)
    assert from_bitmap(coded, size) == tuple(sorted(members))
    with refused("malformed"):
        from_bitmap(coded + b"\0", size)
    if size % 8:
        with refused("malformed"):
            from_bitmap(to_bitmap({size}, size), size)


def test_messages_come_back() -> None:
    trial = Trial(6, terms=trial_terms(6, phases=TWO_PHASES)).advertise()
    cohort = trial.inbox["client-000"]
    adverts = Adverts.from_bytes(cohort, terms_digest=trial.terms.digest, phases=2)
    assert [a.to_bytes() for a in adverts] == [trial.sent["advert"][name] for name in trial.names]
    assert adverts[-2:] == [adverts[4], adverts[5]] and Adverts.of(adverts) == adverts
    with pytest.raises(IndexError):
        adverts[6]
    trial.share()
    for message in trial.sent["shares"].values():
        assert Shares.from_bytes(message, phases=2, degree=5).to_bytes() == message
    for message in trial.inbox.values():
        assert Opening.from_bytes(message, 2).to_bytes() == message
    trial.mask()
    for message in trial.inbox.values():
        assert Survivors.from_bytes(message).to_bytes() == message
    trial.confirm()
    for message in trial.inbox.values():
        assert Confirmations.from_bytes(message).to_bytes() == message


@settings(max_examples=50, deadline=None)
@given(data=st.binary(max_size=400))
def test_decoders_are_total(data: bytes) -> None:
    decoders = [
        Terms.from_bytes,
        ClientState.from_bytes,
        ClientLimits.from_bytes,
        Survivors.from_bytes,
        Confirmations.from_bytes,
        lambda d: Advert.from_bytes(d, 1),
        lambda d: Opening.from_bytes(d, 1),
        lambda d: Shares.from_bytes(d, phases=1, degree=3),
        lambda d: Adverts.from_bytes(d, terms_digest=bytes(32), phases=1),
        lambda d: Secrets.from_bytes(d, 0),
    ]
    for decode in decoders:
        try:
            decode(data)
        except SecAggError as error:
            assert error.code


def test_a_stored_state_comes_back_or_is_refused() -> None:
    """Cut off anywhere, or with any byte changed: SecAggError, or a state; never another error."""
    trial = Trial(5, terms=trial_terms(5, phases=TWO_PHASES, signed=True)).advertise().share().mask()
    state = trial.states["client-001"]
    stored = state.to_bytes()
    again = ClientState.from_bytes(stored)
    assert again.to_bytes() == stored and again.stage is state.stage and again.place == state.place
    for cut in range(0, len(stored), 37):
        with refused("malformed"):
            ClientState.from_bytes(stored[:cut])
    for at in range(0, len(stored), 11):
        spoilt = bytearray(stored)
        spoilt[at] ^= 0x81
        try:
            ClientState.from_bytes(bytes(spoilt))
        except SecAggError as error:
            assert error.code


def test_terms_of_a_roster_are_signed_ones() -> None:
    assert not TERMS.signed and trial_terms(9, signed=True).signed
    tag, run, numbers, *rest = unpack(TERMS.to_bytes(), 7)
    with refused("bad_terms"):  # one number more than there are
        Terms.from_bytes(pack(tag, run, numbers + u32(1), *rest))


@pytest.mark.parametrize("name", ["", "x" * 65])
def test_a_name_that_others_would_refuse(name: str) -> None:
    trial = Trial(5)
    trial.identities[name] = trial.identities["client-000"]
    with refused("malformed"):
        trial.begin(name)


def test_the_servers_roster() -> None:
    from common.secagg.server import RoundServer

    with refused("no_roster"):
        RoundServer(trial_terms(5, signed=True))
    trial = Trial(5, terms=trial_terms(5, signed=True))
    assert trial.roster is not None and trial.terms.roster_hash.hex() == trial.roster.digest
    with refused("other_roster"):
        RoundServer(trial_terms(5, signed=True), trial.roster)
