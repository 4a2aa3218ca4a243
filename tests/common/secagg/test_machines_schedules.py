"""Clients and coordinator in any order of events: lost, late, repeated, replayed and garbled messages."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from common.errors import SecAggError
from common.secagg import client as machine
from common.secagg.client_state import ClientState, Stage
from common.secagg.messages import MaskedVector
from common.secagg.turns import Hop
from simulations.protocol_checks.trial import TWO_PHASES, Trial, trial_terms

S = b"S" * 32
COUNT = 6
CLIENTS = st.integers(0, 1)  # whom something may happen to: the others are enough for a sum
ACCEPT = {
    Hop.ADVERTS: "accept_advert",
    Hop.SHARES: "accept_shares",
    Hop.MASKED: "accept_masked",
    Hop.CONFIRMATIONS: "accept_confirmation",
    Hop.REVEALS: "accept_reveal",
}


class Schedules(RuleBasedStateMachine):
    """One round of six clients and two phases; every rule is something that a network or a party may do."""

    @initialize(signed=st.booleans())
    def begin(self, signed: bool) -> None:
        self.trial = Trial(COUNT, terms=trial_terms(COUNT, phases=TWO_PHASES, signed=signed))
        self.states: dict[str, ClientState] = {}
        self.outbox: dict[str, list[Any]] = {}
        self.given: list[bytes] = []
        self.answers: dict[tuple[str, int, Stage], int] = {}
        for name in self.trial.names:
            self.states[name], message = self.trial.begin(name)
            self.outbox[name] = [message]

    def take(self, name: str, data: bytes) -> None:
        """The hop that is this client's turn."""
        state = self.states[name]
        key = (name, state.phase, state.stage)
        if state.stage is Stage.ADVERTISED:
            after, message = machine.share(state, data, entropy=self.trial.entropy)
        elif state.stage in (Stage.SHARED, Stage.REVEALED):
            after, message = self.trial.masked(state, data, phase=state.phase, bind=S if state.phase else b"")
        elif state.stage is Stage.MASKED:
            after, message = machine.confirm(state, data)
        else:
            after, message = machine.reveal(state, data)
        self.answers[key] = self.answers.get(key, 0) + 1
        self.states[name] = after
        self.outbox[name].append(message)

    @rule(index=CLIENTS)
    def answers_the_coordinator(self, index: int) -> None:
        name = self.trial.names[index]
        if name in self.trial.inbox and self.states[name].usable and self.states[name].stage is not Stage.DONE:
            try:
                self.take(name, self.trial.inbox[name])
            except SecAggError:
                assert not self.states[name].usable

    @rule(hops=st.integers(1, 4), first=st.sampled_from([0, 2]))
    def goes_on(self, hops: int, first: int) -> None:
        """So that long rounds are reached: everybody answers, everything arrives, the hop closes; or all but two."""
        for _ in range(hops):
            for index in range(first, COUNT):
                self.answers_the_coordinator(index)
                self.arrives(index, 0)
            self.close()

    @rule(chance=st.integers(0, 20))
    def closes_early(self, chance: int) -> None:
        """Whoever has not answered has dropped out: all, perhaps."""
        if chance == 7:
            self.close()

    @rule(index=CLIENTS, back=st.integers(0, 2))
    def arrives(self, index: int, back: int) -> None:
        """A client's last message, or an earlier one once more."""
        name = self.trial.names[index]
        self.deliver(name, self.outbox[name][max(0, len(self.outbox[name]) - 1 - back)])

    def deliver(self, name: str, message: Any) -> None:
        server = self.trial.server
        if server.hop in ACCEPT:
            parts = (message.header, message.body) if isinstance(message, MaskedVector) else (message,)
            parts = (*parts, b"")[:2] if server.hop is Hop.MASKED else parts[:1]
            getattr(server, ACCEPT[server.hop])(name, *parts)

    @rule(index=CLIENTS, data=st.binary(max_size=40))
    def garbage_arrives(self, index: int, data: bytes) -> None:
        self.deliver(self.trial.names[index], data)

    @rule(index=CLIENTS, which=st.integers(0, 30))
    @precondition(lambda self: self.given)
    def replayed_to_a_client(self, index: int, which: int) -> None:
        """Any message that the coordinator ever gave to somebody."""
        name, data = self.trial.names[index], self.given[which % len(self.given)]
        if (
            data != self.trial.inbox.get(name)
            and self.states[name].usable
            and self.states[name].stage is not Stage.DONE
        ):
            try:
                self.take(name, data)
            except SecAggError:
                assert not self.states[name].usable and self.states[name].secrets.names == ()

    @rule(index=CLIENTS)
    def restarts(self, index: int) -> None:
        name = self.trial.names[index]
        if self.states[name].usable:
            self.states[name] = ClientState.from_bytes(self.states[name].to_bytes())

    def close(self) -> None:
        """The coordinator closes its hop; the sum, where there is one, is the obvious one."""
        trial, server = self.trial, self.trial.server
        try:
            if server.hop is Hop.ADVERTS:
                trial._everyone(server.close_adverts())
            elif server.hop is Hop.SHARES:
                trial.inbox = server.close_shares()
            elif server.hop is Hop.MASKED:
                trial._everyone(server.close_masked())
            elif server.hop is Hop.CONFIRMATIONS:
                trial.inbox = server.close_confirmations()
            elif server.hop is Hop.REVEALS:
                trial.inbox = {}
                assert (server.finish() == trial.expected(server.phase, server.survivors)).all()
            elif server.hop is Hop.FINISHED and server.phase == 0:
                trial.next_phase(S)
        except SecAggError as error:
            assert error.code in ("small_cohort", "too_few_survivors")
            assert server.hop is Hop.ABORTED
            trial.inbox = {}
        self.given += list(trial.inbox.values())

    @invariant()
    def each_hop_is_answered_once(self) -> None:
        assert all(count == 1 for count in getattr(self, "answers", {}).values())

    @invariant()
    def who_is_out_keeps_nothing(self) -> None:
        for state in getattr(self, "states", {}).values():
            assert state.usable or state.secrets.names == ()

    @invariant()
    def an_aborted_round_keeps_no_sum(self) -> None:
        if hasattr(self, "trial") and self.trial.server.hop is Hop.ABORTED:
            assert self.trial.server._total.size == 0 and self.trial.server.awaited == ()


Schedules.TestCase.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)
TestSchedules = Schedules.TestCase
