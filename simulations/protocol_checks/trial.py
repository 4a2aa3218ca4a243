"""A round of secure aggregation inside one process, hop by hop, so that somebody can lie between the hops.

For tests and for the attacks that every check of the protocol must stop; its randomness follows from a seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from common.secagg import client as machine
from common.secagg.client_state import ClientLimits, ClientState
from common.secagg.keys import Identity
from common.secagg.masks import Words, dtype_of
from common.secagg.roster import Roster
from common.secagg.server import RoundServer
from common.secagg.terms import PhaseTerms, Terms

ONE_PHASE = (PhaseTerms("values", 16, 40),)
TWO_PHASES = (PhaseTerms("histogram", 10, 25), PhaseTerms("values", 16, 40))
CONFIG, MODEL, ROSTER = (hashlib.sha256(name).digest() for name in (b"configuration", b"model", b"roster"))
NOBODY: frozenset[str] = frozenset()


def repeatable_entropy(seed: str | int) -> Callable[[int], bytes]:
    """A source like ``os.urandom`` whose bytes follow from ``seed``: for transcripts and tests alone."""
    calls = 0

    def draw(size: int) -> bytes:
        nonlocal calls
        calls += 1
        return hashlib.shake_256(f"{seed}/{calls}".encode()).digest(size)

    return draw


def trial_terms(clients: int, *, phases: tuple[PhaseTerms, ...] = ONE_PHASE, **changes: Any) -> Terms:
    """Terms for a complete graph of so many clients, with the lowest thresholds, unless ``changes`` say otherwise.

    ``signed``: with a stand-in for the hash of a roster, which ``Trial`` exchanges for that of its own.
    """
    degree = changes.pop("degree", clients - 1)
    signed = changes.pop("signed", False)
    threshold = changes.pop("neighbour_threshold", 2 * degree // 3 + 1 if signed else degree // 2 + 1)
    least = min(clients, threshold + 1)
    terms = Terms(
        run="trial",
        round=3,
        phases=phases,
        least_cohort=least,
        least_survivors=least,
        degree=degree,
        neighbour_threshold=threshold,
        config_hash=CONFIG,
        model_hash=MODEL,
        roster_hash=ROSTER if signed else b"",
    )
    return replace(terms, **changes)


class Trial:
    """Clients with their states, an honest coordinator, and the messages between them.

    Attributes:
        terms, limits, names, identities, roster: of the round; a roster where the terms are signed.
        server: the coordinator.
        states: of each client that still takes part.
        sent: hop -> client -> what it sent (the last phase's).
        inbox: what the coordinator has for each client now.
        vectors: phase -> client -> its vector.
    """

    def __init__(self, clients: int = 5, *, seed: str | int = 0, terms: Terms | None = None) -> None:
        self.terms = terms if terms is not None else trial_terms(clients)
        self.limits = ClientLimits(self.terms.least_cohort, self.terms.least_survivors, least_degree=0)
        self.entropy = repeatable_entropy(seed)
        self.names = [f"client-{i:03d}" for i in range(clients)]
        self.identities = {name: Identity.fresh(self.entropy) for name in self.names}
        self.roster = self._roster() if self.terms.signed else None
        if self.roster is not None:
            self.terms = replace(self.terms, roster_hash=self.roster.file_hash)
        self.server = RoundServer(self.terms, self.roster)
        self.states: dict[str, ClientState] = {}
        self.sent: dict[str, dict[str, Any]] = {}
        self.inbox: dict[str, bytes] = {}
        generator = np.random.default_rng(int.from_bytes(hashlib.sha256(f"{seed}".encode()).digest()[:8], "big"))
        self.vectors: list[dict[str, Words]] = [
            {n: generator.integers(0, 2**p.bits, p.length).astype(dtype_of(p.bits)) for n in self.names}
            for p in self.terms.phases
        ]

    def advertise(self, skip: Collection[str] = NOBODY) -> Trial:
        """Hop 1."""
        self.sent["advert"] = {}
        for name in self.names:
            if name not in skip:
                self.states[name], message = self.begin(name)
                self.sent["advert"][name] = message
                self.server.accept_advert(name, message)
        return self._everyone(self.server.close_adverts())

    def begin(self, name: str, **changes: Any) -> tuple[ClientState, bytes]:
        """One client's first hop, with other arguments where given."""
        given: dict[str, Any] = {
            "terms_bytes": self.terms.to_bytes(),
            "identity": self.identities[name],
            "limits": self.limits,
            "roster": self.roster,
            "entropy": self.entropy,
        }
        given |= changes
        return machine.advertise(given.pop("terms_bytes"), name, **given)

    def share(self, skip: Collection[str] = NOBODY) -> Trial:
        """Hop 2."""
        self._each("shares", skip, lambda state, data: machine.share(state, data, entropy=self.entropy))
        self.inbox = self.server.close_shares()
        return self

    def mask(self, skip: Collection[str] = NOBODY, *, bind: bytes = b"") -> Trial:
        """Hop 3 of the phase whose turn it is."""
        phase = self.server.phase
        self._each("masked", skip, lambda state, data: self.masked(state, data, phase=phase, bind=bind))
        return self._everyone(self.server.close_masked())

    def masked(self, state: ClientState, data: bytes, *, phase: int = 0, bind: bytes = b"") -> Any:
        """One client's third hop."""
        name = self.terms.phases[phase].name
        return machine.mask(state, data, vector=self.vectors[phase][state.me], phase=name, bind=bind)

    def confirm(self, skip: Collection[str] = NOBODY) -> Trial:
        """Hop 4."""
        self._each("confirmation", skip, machine.confirm)
        self.inbox = self.server.close_confirmations()
        return self

    def reveal(self, skip: Collection[str] = NOBODY) -> Trial:
        """Hop 5."""
        self._each("reveal", skip, machine.reveal)
        return self

    def finish(self) -> Words:
        """The sum."""
        return self.server.finish()

    def next_phase(self, bind: bytes = b"") -> Trial:
        """The opening of the next phase."""
        return self._everyone(self.server.next_phase(bind))

    def run(self, drops: Mapping[str, Collection[str]] | None = None, *, bind: bytes = b"") -> list[Words]:
        """All hops of all phases; ``drops``: hop (``share``, ``mask 0``, ``confirm 0``, ...) -> who is lost in it."""
        lost = drops or {}
        self.advertise(lost.get("advertise", NOBODY)).share(lost.get("share", NOBODY))
        sums = []
        for phase in range(len(self.terms.phases)):
            if phase:
                self.next_phase(bind)
            self.mask(lost.get(f"mask {phase}", NOBODY), bind=bind if phase else b"")
            self.confirm(lost.get(f"confirm {phase}", NOBODY)).reveal(lost.get(f"reveal {phase}", NOBODY))
            sums.append(self.finish())
        return sums

    def expected(self, phase: int, members: Collection[str]) -> Words:
        """The obvious sum of these clients' vectors: Python integers, one element after the other."""
        bits = self.terms.phases[phase].bits
        columns = zip(*(self.vectors[phase][name].tolist() for name in sorted(members)), strict=True)
        return np.array([sum(column) % 2**bits for column in columns], dtype=dtype_of(bits))

    def _roster(self) -> Roster:
        keys = {name: identity.public for name, identity in self.identities.items()}
        return Roster.signed(keys, Identity.fresh(self.entropy))

    def _everyone(self, message: bytes) -> Trial:
        self.inbox = dict.fromkeys(self.server.awaited, message)
        return self

    def _each(self, hop: str, skip: Collection[str], step: Callable[[ClientState, bytes], Any]) -> None:
        accept: dict[str, Callable[[str, Any], bool]] = {
            "shares": self.server.accept_shares,
            "masked": lambda name, vector: self.server.accept_masked(name, vector.header, vector.body),
            "confirmation": self.server.accept_confirmation,
            "reveal": self.server.accept_reveal,
        }
        self.sent[hop] = {}
        for name in self.server.awaited:
            if name not in skip:
                self.states[name], message = step(self.states[name], self.inbox[name])
                self.sent[hop][name] = message
                accept[hop](name, message)
