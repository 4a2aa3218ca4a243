"""Any field of any message, altered on its way: a named refusal, or a dropout with a reason; never another sum."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from common.errors import SecAggError
from common.secagg import client as machine
from common.secagg.adverts import Advert
from common.secagg.client_state import ClientState
from common.secagg.encoding import pack, unpack
from simulations.protocol_checks.joining import resigned
from simulations.protocol_checks.trial import TWO_PHASES, Trial, trial_terms

VICTIM = "client-002"
FIELDS = {"advert": 4, "shares": 5, "confirmation": 3, "reveal": 3}
ANSWERS = {"cohort": 5, "opening": 7, "survivors": 3, "confirmations": 4}
S = b"S" * 32


def alterations(field: bytes) -> Iterator[bytes]:
    """First, middle and last byte flipped; cut, lengthened, emptied, zeroed."""
    for at in {0, len(field) // 2, len(field) - 1} if field else ():
        yield field[:at] + bytes([field[at] ^ 0x41]) + field[at + 1 :]
    yield field[:-1] if field else b"\0"
    yield field + b"\0"
    if field:
        yield b""
    if any(field):
        yield bytes(len(field))


def altered(message: bytes, count: int) -> Iterator[tuple[str, bytes]]:
    """Every alteration of every field, and of the message as a whole."""
    fields = unpack(message, count)
    for index in range(count):
        for new in alterations(fields[index]):
            yield f"field {index}", pack(*fields[:index], new, *fields[index + 1 :])
    yield "a field less", pack(*fields[:-1])
    yield "a field more", message + pack(b"")
    yield "cut", message[:-1]
    yield "empty", b""


def until(hop: str, signed: bool) -> Trial:
    """A round in which everybody but the victim has sent its message of ``hop``, and that of the victim is known."""
    trial = Trial(6, terms=trial_terms(6, phases=TWO_PHASES[1:], signed=signed))
    steps: dict[str, Callable[..., Any]] = {"advert": trial.advertise, "shares": trial.share, "masked": trial.mask}
    steps |= {"confirmation": trial.confirm, "reveal": trial.reveal}
    for name, step in steps.items():
        if name == hop:
            return trial
        step()
    raise AssertionError(hop)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("hop", FIELDS)
def test_the_coordinator_drops_whoever_sends_an_altered_message(hop: str, signed: bool) -> None:
    """Shares that are sealed for others are seen by these alone; a share revealed wrongly is found when it is used."""
    before = until(hop, signed)
    if hop == "advert":
        _, message = before.begin(VICTIM)
    else:
        state = ClientState.from_bytes(before.states[VICTIM].to_bytes())
        inbox = before.inbox[VICTIM]
        step = {"confirmation": machine.confirm, "reveal": machine.reveal}
        _, message = machine.share(state, inbox, entropy=before.entropy) if hop == "shares" else step[hop](state, inbox)
    unseen = {"shares": {"field 2", "field 3", "field 4"}, "reveal": {"field 2"}}.get(hop, set())
    tried = 0
    for place, wrong in altered(message, FIELDS[hop]):
        server = copy.deepcopy(before.server, {id(before.roster): before.roster})
        accept = getattr(server, f"accept_{hop}")
        taken = accept(VICTIM, wrong)
        assert not taken or place in unseen, (place, wrong)
        assert taken or (server.dropped[VICTIM] and sum(server.reasons.values()) == 1)
        assert not accept(VICTIM, message), "a second try counts"
        tried += 1
    assert tried > 15


@pytest.mark.parametrize(("header", "body"), [(b"", b"x" * 80), (None, b"x" * 79), (None, b"x" * 81), (None, b"")])
def test_masked_vectors_of_another_shape(header: bytes | None, body: bytes) -> None:
    trial = until("masked", False)
    _, vector = trial.masked(ClientState.from_bytes(trial.states[VICTIM].to_bytes()), trial.inbox[VICTIM])
    assert len(vector.body) == 80
    assert not trial.server.accept_masked(VICTIM, vector.header if header is None else header, body)
    assert trial.server.dropped[VICTIM] in ("malformed", "wrong_length")
    other = Trial(6, seed="another round").advertise().share()
    _, elsewhere = other.masked(other.states[VICTIM], other.inbox[VICTIM])
    again = until("masked", False)
    assert not again.server.accept_masked(VICTIM, elsewhere.header, elsewhere.body)
    assert again.server.dropped[VICTIM] == "wrong_view"
    trial.server.accept_masked("client-003", vector, b"")  # type: ignore[arg-type]
    assert trial.server.dropped["client-003"] == "malformed"


def answers(trial: Trial) -> Iterator[tuple[str, Callable[[ClientState, bytes], Any]]]:
    """Each message of the coordinator to a client with what takes it; the round goes on in between."""
    trial.advertise()
    yield "cohort", lambda state, data: machine.share(state, data, entropy=trial.entropy)
    trial.share()
    yield "opening", lambda state, data: trial.masked(state, data)
    trial.mask()
    yield "survivors", machine.confirm
    trial.confirm()
    yield "confirmations", machine.reveal
    trial.reveal()
    trial.finish()
    trial.next_phase(S)
    yield "opening", lambda state, data: trial.masked(state, data, phase=1, bind=S)


@pytest.mark.parametrize("signed", [False, True])
def test_a_client_refuses_every_altered_message_and_forgets_its_secrets(signed: bool) -> None:
    trial = Trial(5, terms=trial_terms(5, phases=TWO_PHASES, signed=signed))
    tried = 0
    for kind, take in answers(trial):
        stored, message = trial.states[VICTIM].to_bytes(), trial.inbox[VICTIM]
        for place, wrong in altered(message, ANSWERS[kind]):
            state = ClientState.from_bytes(stored)
            with pytest.raises(SecAggError) as caught:
                take(state, wrong)
            assert caught.value.code, place
            assert not state.usable and state.secrets.names == ()
            tried += 1
    assert tried > 100


def test_a_client_refuses_messages_of_another_round() -> None:
    """The same clients under the next attempt: no message of one round is taken in the other."""
    rounds = [
        Trial(5, seed=f"attempt {attempt}", terms=trial_terms(5, phases=TWO_PHASES, attempt=attempt))
        for attempt in (0, 1)
    ]
    for (kind, _), (_, take) in zip(answers(rounds[0]), answers(rounds[1]), strict=True):
        state = ClientState.from_bytes(rounds[1].states[VICTIM].to_bytes())
        with pytest.raises(SecAggError) as caught:
            take(state, rounds[0].inbox[VICTIM])
        assert caught.value.code in ("wrong_round", "wrong_view", "wrong_outcome"), kind


def test_a_client_refuses_every_hop_out_of_turn() -> None:
    trial = Trial(5, terms=trial_terms(5, phases=TWO_PHASES))
    stages, takers, inboxes = [], [], []
    for _, take in answers(trial):
        stages.append(trial.states[VICTIM].to_bytes())
        takers.append(take)
        inboxes.append(trial.inbox[VICTIM])
    for i, stored in enumerate(stages):
        for j, take in enumerate(takers):
            if i != j and {i, j} != {1, 4}:
                state = ClientState.from_bytes(stored)
                with pytest.raises(SecAggError) as caught:
                    take(state, inboxes[j])
                assert caught.value.code == "wrong_phase" and state.secrets.names == ()


def test_shares_for_another_are_not_opened() -> None:
    """Two neighbours' sealed messages exchanged, or one flipped: the client gives up before it masks."""
    trial = Trial(5).advertise().share()
    tag, cohort, phase, roll, bind, salts, sealed = unpack(trial.inbox[VICTIM], 7)
    size = len(sealed) // 4
    exchanged = sealed[size : 2 * size] + sealed[:size] + sealed[2 * size :]
    flipped = sealed[:-1] + bytes([sealed[-1] ^ 1])
    for wrong in (exchanged, flipped):
        state = ClientState.from_bytes(trial.states[VICTIM].to_bytes())
        with pytest.raises(SecAggError) as caught:
            trial.masked(state, pack(tag, cohort, phase, roll, bind, salts, wrong))
        assert caught.value.code == "bad_seal"


@pytest.mark.parametrize("wrong", ["length", "type", "range", "phase"])
def test_vectors_that_do_not_fit(wrong: str) -> None:
    trial = Trial(5, terms=trial_terms(5, phases=TWO_PHASES)).advertise().share()
    vector = trial.vectors[0][VICTIM].copy()
    phase = "values" if wrong == "phase" else "histogram"
    if wrong == "length":
        vector = vector[:-1]
    elif wrong == "type":
        vector = vector.astype("<u4")
    elif wrong == "range":
        vector[3] = 1 << 10
    with pytest.raises(SecAggError) as caught:
        machine.mask(trial.states[VICTIM], trial.inbox[VICTIM], vector=vector, phase=phase)
    assert caught.value.code == {"range": "out_of_range", "phase": "wrong_phase"}.get(wrong, "wrong_length")
    assert not trial.states[VICTIM].usable


def test_the_vector_is_left_alone() -> None:
    trial = Trial(5).advertise().share()
    before = trial.vectors[0][VICTIM].copy()
    trial.masked(trial.states[VICTIM], trial.inbox[VICTIM])
    assert (trial.vectors[0][VICTIM] == before).all()


@pytest.mark.parametrize("kind", ["signing", "sealing", "masking"])
def test_a_key_with_which_nothing_can_be_agreed_makes_a_dropout(kind: str) -> None:
    """Signed as it should be: taken, it would make every neighbour give up."""
    trial = Trial(5)
    _, message = trial.begin(VICTIM)
    advert, nothing = Advert.from_bytes(message, 1), bytes(32)
    wrong = resigned(trial, advert, trial.identities[VICTIM], **{kind: (nothing,) if kind == "masking" else nothing})
    assert not trial.server.accept_advert(VICTIM, wrong.to_bytes())
    assert trial.server.dropped == {VICTIM: "bad_key"}
