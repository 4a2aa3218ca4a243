"""The hops of secure aggregation on a node: each takes one message for some of its clients and gives one answer.

A client that refuses or fails answers with a code and nothing else; the others go on. Only ``mask`` computes on data:
it is charged before, like every round.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.admission import Admission, RefusedError, refuse
from client.answers import Asked, asked_of, faults, node_reply
from client.integers import client_integers
from client.policy import Refusal
from client.secure import Key, SecretStates
from client.secure_terms import Party, advert_for, refuse_weak_graph
from client.selected import row_votes, selected_integers
from client.session import Session
from client.training import Randomness, local_training
from client.upload import check_upload
from common import wire
from common.errors import SecAggError, WireError
from common.privacy.distributed import Masked
from common.privacy.selected_rows import Words, checked_rows
from common.secagg import client as protocol
from common.secagg.client_state import ClientState
from common.secagg.packing import packed
from common.secagg.terms import PhaseTerms
from common.secure_terms import VOTES, config_digest, model_digest, phases_of, rows_digest, secure_sum
from common.seeds import public_rng
from common.table import FloatArray
from common.units import Units

HOPS = ("advertise", "share", "mask", "confirm", "reveal")
_LOG = logging.getLogger("fedembed.client")


def advertise(session: Session, payload: wire.Payload) -> wire.Payload:
    """Hop 1: fresh keys of every client for the terms of a round that its policy allows."""

    def answer(call: _Call) -> None:
        call.each(lambda key, k: [call.advert(key[2])])

    return _answered(session, payload, "advertise", answer)


def share(session: Session, payload: wire.Payload) -> wire.Payload:
    """Hop 2: sealed shares of every client's secrets for its neighbours in the cohort."""

    def answer(call: _Call) -> None:
        cohort = call.blob("cohort")

        def shares(state: ClientState) -> tuple[ClientState, bytes]:
            following, message = protocol.share(state, cohort, entropy=os.urandom)
            refuse_weak_graph(call.admitted.work, following)
            return following, message

        call.each(lambda key, k: [call.move(key, shares)])

    return _answered(session, payload, "share", answer)


def mask(session: Session, payload: wire.Payload) -> wire.Payload:
    """Hop 3: votes on rows, or local training; and every client's integers under their masks."""

    def answer(call: _Call) -> None:
        openings, phase = call.blobs(), call.phase
        bind, vectors = call.votes() if phase == VOTES else call.values()

        def masked(key: Key, k: int) -> list[bytes]:
            vector, body = next(vectors), []

            def hop(state: ClientState) -> tuple[ClientState, bytes]:
                following, message = protocol.mask(state, openings[k], vector=vector, phase=phase, bind=bind)
                body.append(message.body)
                return following, message.header

            return [call.move(key, hop), *body]

        call.each(masked)

    return _answered(session, payload, "mask", answer)


def confirm(session: Session, payload: wire.Payload) -> wire.Payload:
    """Hop 4: every client's signature on who survived."""

    def answer(call: _Call) -> None:
        survivors = call.blob("survivors")
        call.each(lambda key, k: [call.move(key, lambda state: protocol.confirm(state, survivors))])

    return _answered(session, payload, "confirm", answer)


def reveal(session: Session, payload: wire.Payload) -> wire.Payload:
    """Hop 5: every client's shares of its neighbours' secrets; with it its advert for the next round, if asked."""

    def answer(call: _Call) -> None:
        signed, riding = call.blobs(), "terms" in payload.config

        def revealed(key: Key, k: int) -> list[bytes]:
            message = call.move(key, lambda state: protocol.reveal(state, signed[k]))
            return [message, call.early_advert(key[2])] if riding else [message]

        call.each(revealed)

    return _answered(session, payload, "reveal", answer)


def unmasked(session: Session, payload: wire.Payload) -> wire.Payload:
    """In place of all hops, where a simulation sums in the clear (``ideal``): the very integers, without masks."""

    def answer(call: _Call) -> None:
        terms = secure_sum(call.admitted.work)
        if not session.simulated or terms.aggregation != "ideal":
            raise RefusedError(Refusal("unmasked", "integers without masks leave a node in simulations alone"))
        _, vectors = call.votes() if call.phase == VOTES else call.values()
        bits = next(p.bits for p in call.phases if p.name == call.phase)
        call.each(lambda key, k: [packed(next(vectors), bits)])

    return _answered(session, payload, "mask", answer)


class _NeedFullError(Exception):
    """The node holds another version of the table than the message builds on."""


@dataclass
class _Call:
    """One message that is being answered, and what its clients have answered so far."""

    session: Session
    payload: wire.Payload
    admitted: Admission
    asked: Asked
    states: SecretStates
    status: NDArray[np.int8]
    sent: list[bytes] = field(default_factory=list)
    codes: list[str] = field(default_factory=list)

    def each(self, answer: Callable[[Key, int], Iterable[bytes]]) -> None:
        """Let every client that is not silent answer: ``answer`` gets its key and its place in the message."""
        for k in np.flatnonzero(self.status == wire.OK).tolist():
            try:
                self.sent.extend(answer((self.asked.round, self.asked.attempt, int(self.asked.clients[k])), k))
            except SecAggError as error:
                _LOG.warning("secure aggregation: %s (%s)", error.message, error.code)
                self.status[k] = wire.REFUSED
                self.codes.append(error.code)

    def early_advert(self, index: int) -> bytes:
        """An advert for the next round; empty where the client refuses that one, for its reveal must go out."""
        try:
            return self.advert(index)
        except SecAggError as error:
            self.codes.append(error.code)
            return b""

    def move(self, key: Key, hop: Callable[[ClientState], tuple[ClientState, bytes]]) -> bytes:
        """Take one client through a hop of the run that this node serves."""
        return self.states.move(key, hop, config=self.config)

    @cached_property
    def config(self) -> bytes:
        """Digest of the configuration that this node works by."""
        return config_digest(self.admitted.work)

    def advert(self, index: int) -> bytes:
        """A client's advert for the round whose terms the message holds."""
        party = self.session.party or Party.for_a_round(f"{self.payload.integer('node')}.{index}")
        terms, state, message = advert_for(self.admitted, self.session.policy, party, terms_bytes=self.blob("terms"))
        self.states.begin((terms.round, terms.attempt, index), state)
        return message

    def blob(self, name: str) -> bytes:
        """The byte string ``name`` of the message. Raises ``WireError``."""
        value = self.payload.config.get(name)
        if not isinstance(value, bytes):
            raise WireError(f"field {name!r} is missing or not bytes")
        return value

    def blobs(self) -> list[bytes]:
        """One byte string for every client of the message. Raises ``WireError``."""
        return wire.decode_blobs(self.payload, len(self.asked.clients))

    def parameters(self) -> dict[str, FloatArray]:
        """The model of the message."""
        found = self.session.tables(self.admitted, self.payload)
        if found is None:
            raise _NeedFullError
        return found

    @property
    def phases(self) -> tuple[PhaseTerms, ...]:
        """The phases of the round, as this client derives them."""
        return phases_of(self.admitted.work, self.asked.round)

    @property
    def phase(self) -> str:
        """The phase that the message names. Raises ``WireError`` where the round has none of this name."""
        name = self.payload.text("phase")
        if name not in [phase.name for phase in self.phases]:
            raise WireError("the round has no phase of this name")
        return name

    def refuse_large_upload(self) -> None:
        """Before anything is charged or computed; raises ``RefusedError`` where the policy allows less."""
        phase = next(phase for phase in self.phases if phase.name == self.phase)
        refuse(check_upload(self.session.policy, self.admitted.work, len(self.asked.clients), phase=phase))

    def votes(self) -> tuple[bytes, Iterator[Words]]:
        """What the votes are bound to, and those of every client that is not silent; all are charged before."""
        self.refuse_large_upload()
        self.session.charge(self.admitted, self.asked.clients, self.asked, VOTES)
        return b"", row_votes(self.admitted.work, *self._active())

    def values(self) -> tuple[bytes, Iterator[Masked]]:
        """What the values are bound to, and the integers of every client that is not silent; all are charged before."""
        self.refuse_large_upload()
        work, parameters = self.admitted.work, self.parameters()
        bind = model_digest(parameters, work.specs)
        rows = None if work.plan.votes is None else checked_rows(work.plan.votes, self.blob("rows"))
        training = local_training(work, self.asked.round, self.session.device)
        self.session.charge(self.admitted, self.asked.clients, self.asked)
        clients, randomness = self._active()
        call: dict[str, Any] = {
            "training": training,
            "randomness": randomness,
            "round_number": self.asked.round,
        }
        if rows is None:
            return bind, client_integers(work, parameters, clients, **call)
        return rows_digest(rows, bind), selected_integers(work, parameters, clients, rows=rows, **call)

    def _active(self) -> tuple[list[Units], list[Randomness]]:
        """Data and randomness of every client that is not silent."""
        store, active = self.admitted.clients, self.asked.clients[self.status == wire.OK]
        randomness = self.session.randomness([store.names[i] for i in active], self.asked)
        return [store.client(int(i)) for i in active], randomness


def _answered(session: Session, payload: wire.Payload, hop: str, answer: Callable[[_Call], None]) -> wire.Payload:
    """The reply to a message of ``hop``: states are durable before it leaves."""

    def serve(admitted: Admission, _: wire.Payload) -> wire.Payload:
        asked = asked_of(admitted, payload)
        secure_sum(admitted.work)
        silent = _silent(session, asked, hop, payload.config.get("phase"))
        try:
            with session.secret_states(admitted.run) as states:
                call = _Call(session, payload, admitted, asked, states, silent)
                answer(call)
        except _NeedFullError:
            return node_reply(admitted.run, status="need_full", round=asked.round)
        config = {"round": asked.round, "attempt": asked.attempt, "version": session.version, "codes": call.codes}
        arrays = {"status": call.status, **wire.encode_blobs(call.sent)}
        return node_reply(admitted.run, arrays, status="done", **config)

    return session.served(payload, serve)


def _silent(session: Session, asked: Asked, hop: str, phase: Any) -> NDArray[np.int8]:
    """Who plays dead at this hop: a client that drops out does so at a hop drawn for it, a straggler at its vector."""
    admitted = session.admitted
    if not session.simulated or admitted is None:
        return np.zeros(len(asked.clients), np.int8)
    names = [admitted.clients.names[i] for i in asked.clients]
    phases = [p.name for p in phases_of(admitted.work, asked.round)]
    again = len(HOPS) - HOPS.index("mask")  # hops of every phase
    status, now = faults(admitted.work, names, asked.round), HOPS.index(hop)
    now += again * phases.index(phase) if phase in phases else 0
    seed, hops = admitted.work.scenario.seed, len(HOPS) + again * (len(phases) - 1)
    for k in np.flatnonzero(status == wire.DROPPED):
        at = int(public_rng(seed, "faults, hop", asked.round, names[k]).integers(hops))
        status[k] = wire.DROPPED if at <= now else wire.OK
    late = status == wire.LATE
    status[late & (now < HOPS.index("mask"))] = wire.OK
    status[late & (now > HOPS.index("mask"))] = wire.DROPPED
    return status
