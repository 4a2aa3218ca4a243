"""A round under secure aggregation: five hops over Flower's messages, and at the end one sum modulo 2^bits.

advertise -> share -> mask (the training) -> confirm -> reveal; the last three once more for every further phase of the
round, among those who are left, with secrets of its own. The protocol is ``common.secagg``; here its bytes are
carried and silence is told to it. Adverts for the next round ride on this round's last replies. Whatever fails ends in
``RoundError`` with nothing opened.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from common import wire
from common.errors import RoundError, SecAggError, WireError
from common.secagg.masks import Words
from common.secagg.roster import Roster
from common.secagg.server import RoundServer
from common.secagg.sizes import answer_bytes, vector_bytes
from common.secagg.terms import Terms
from common.table import IntArray
from server.checkpoint import RunState
from server.delivery import Delivery, Question
from server.rounds import Node

BYTES_PER_MESSAGE = 2**28  # of vectors
CLIENTS_PER_MESSAGE = 1024
REPLY_BYTES = 2**16  # of a reply beside its clients' answers: run, status, and the codes of refusals
Take = Callable[..., object]


@dataclass(frozen=True)
class Member:
    """A client of the cohort: the node that hosts it, and its number there."""

    node: Node
    index: int

    @property
    def name(self) -> str:
        """Its name in the protocol: the node's own in the roster, else one that is unique in the run."""
        return self.node.name or f"{self.node.node_id}.{self.index}"


class HopReplies:
    """Takes the replies to one hop: ``parts`` byte strings for every client that did its part.

    A reply with more than ``most_bytes`` a client is thrown away unread.
    """

    def __init__(  # exception: what the hop's replies belong to, who takes them, and what they may hold
        self, run: str, terms: Terms, members: Mapping[str, Member], take: Take, *, parts: int, most_bytes: int
    ) -> None:
        self._run = run
        self._terms = terms
        self._names = {(m.node.node_id, m.index): name for name, m in members.items()}
        self._take = take
        self._parts = parts
        self._most_bytes = most_bytes
        self._asked: dict[str, IntArray] = {}
        self.reasons: Counter[str] = Counter()

    def ask(self, message_id: str, clients: IntArray) -> None:
        """Remember that ``clients`` were asked under ``message_id`` (``try/node/first client``)."""
        self._asked[message_id] = clients

    def withdraw(self, message_id: str) -> None:
        """The question is asked again under another id."""
        self._asked.pop(message_id, None)

    def fail(self, message_id: str, reason: str) -> None:
        """No reply will come."""
        self.reasons[reason] += len(self._asked.pop(message_id, ()))

    def accept(self, message_id: str, payload: wire.Payload) -> None:
        """Hand every client's bytes to the protocol; what is missing or malformed is silence, with a reason."""
        asked = self._asked.pop(message_id, None)
        if asked is None:
            self.reasons["foreign"] += 1
            return
        try:
            self._accept(int(message_id.split("/")[1]), asked, payload)
        except WireError:
            self.reasons["malformed"] += len(asked)

    def _accept(self, node_id: int, asked: IntArray, payload: wire.Payload) -> None:
        if payload.size_bytes > len(asked) * self._most_bytes + REPLY_BYTES:
            self.reasons["too large"] += len(asked)
            return
        if payload.text("run") != self._run:
            raise WireError("a reply of another run")
        if payload.text("status") != "done":
            self.reasons[payload.text("status")] += len(asked)
            return
        if (payload.integer("round"), payload.integer("attempt")) != (self._terms.round, self._terms.attempt):
            raise WireError("a reply of another round")
        status = payload.array("status", np.int8, 1)
        if len(status) != len(asked) or (len(status) and not 0 <= status.min() <= status.max() < 5):
            raise WireError("the reply has no valid status for each client")
        sent = asked[status == wire.OK]
        blobs = wire.decode_blobs(payload, self._parts * len(sent))
        for k, index in enumerate(sent.tolist()):
            self._take(self._names[node_id, index], *blobs[k * self._parts : (k + 1) * self._parts])
        for code, number in zip(*np.unique(status[status != wire.OK], return_counts=True), strict=True):
            self.reasons[wire.STATUS_NAMES[code]] += int(number)
        self.reasons.update(f"client says {code}" for code in payload.texts("codes"))


class Hops:
    """Asks the cohort of one round, hop by hop, and counts what went wrong."""

    def __init__(self, delivery: Delivery, run: str, terms: Terms, members: Iterable[Member]) -> None:
        self._delivery = delivery
        self._run = run
        self._terms = terms
        self.members = {m.name: m for m in members}
        self.reasons: Counter[str] = Counter()

    def ask(  # exception: what a hop asks, of whom, and who takes the answers
        self,
        kind: str,
        names: Iterable[str],
        take: Take,
        *,
        config: Mapping[str, Any] | None = None,
        blobs: Mapping[str, bytes] | None = None,
        parts: int = 1,
        table: RunState | None = None,
    ) -> None:
        """Ask every client of ``names``, a message a node at a time.

        Args:
            take: gets a client's name and the ``parts`` byte strings of its answer.
            config: what every message of the hop holds.
            blobs: what is for one client alone.
            table: the state whose table the clients train on.
        """
        most = self._most_bytes(kind, str((config or {}).get("phase")))
        replies = HopReplies(self._run, self._terms, self.members, take, parts=parts, most_bytes=most)
        shared = {"round": self._terms.round, "attempt": self._terms.attempt, **(config or {})}
        for wave in self._waves(names, self._per_message() if kind.startswith("train.") else CLIENTS_PER_MESSAGE):
            questions = []
            for found in wave:
                node, clients = found[0].node, np.array([m.index for m in found], np.int64)
                arrays = {} if blobs is None else wire.encode_blobs([blobs[m.name] for m in found])
                questions.append(Question(node, clients, {**shared, "node": node.node_id}, arrays))
            self._delivery.ask(kind, questions, replies, table=table)
        self.reasons += replies.reasons

    def _most_bytes(self, kind: str, phase: str) -> int:
        """What one client's answer at this hop can weigh."""
        if kind.startswith("train."):
            return vector_bytes(self._terms.phases[self._terms.phase(phase)])
        return answer_bytes(self._terms, len(self.members))

    def _per_message(self) -> int:
        """Clients whose vectors one message holds."""
        size = sum(phase.length * phase.bits // 8 for phase in self._terms.phases)
        return min(CLIENTS_PER_MESSAGE, max(1, BYTES_PER_MESSAGE // size))

    def _waves(self, names: Iterable[str], per_message: int) -> Iterator[list[list[Member]]]:
        by_node: dict[int, list[Member]] = {}
        for member in sorted((self.members[name] for name in names), key=lambda m: (m.node.node_id, m.index)):
            by_node.setdefault(member.node.node_id, []).append(member)
        for start in range(0, max(map(len, by_node.values()), default=0), per_message):
            yield [found[start : start + per_message] for found in by_node.values() if start < len(found)]


class SecureRound:
    """Drives one round of the protocol over the nodes.

    Args:
        terms: of the round.
        members: the cohort.
        adverts: client -> advert, of those that came with the last round's replies.
        roster: where the terms are signed.
    """

    def __init__(
        self,
        delivery: Delivery,
        run: str,
        terms: Terms,
        members: Iterable[Member],
        *,
        adverts: Mapping[str, bytes],
        roster: Roster | None,
    ) -> None:
        self._terms = terms
        self._hops = Hops(delivery, run, terms, members)
        self._server = RoundServer(terms, roster)
        self._early = dict(adverts)
        self._begun = False
        self.next_adverts: dict[str, bytes] = {}

    @property
    def survivors(self) -> int:
        """Clients in the sum."""
        return len(self._server.survivors)

    @property
    def reasons(self) -> Counter[str]:
        """What became of the clients, counted."""
        found = self._hops.reasons + self._server.reasons + Counter(ok=self.survivors)
        del found["silent"]  # why they were is counted already
        return found

    def total(
        self, bind: bytes, asked: Mapping[str, Any], *, table: RunState | None = None, following: Terms | None = None
    ) -> Words:
        """The sum of the survivors' vectors of the next phase modulo 2^bits; the first call begins the round.

        Args:
            bind: of what the clients compute on; clients that were sent something else add masks that do not cancel.
            asked: what the message that asks for the vectors holds.
            table: the state whose parameters the clients train on, if they do.
            following: terms of the next round, for the adverts that ride on the last replies.

        Raises:
            RoundError: too few clients were left at some hop; nothing of this phase was opened.
        """
        phase = {"phase": self._terms.phases[self._server.phase + self._begun].name}
        try:
            openings = self._further(bind) if self._begun else self._gather(bind)
            take = self._server.accept_masked
            self._hops.ask(
                "train.mask", openings, take, config={**phase, **asked}, blobs=openings, parts=2, table=table
            )
            self._open(following, phase)
            return self._server.finish()
        except SecAggError as error:
            reasons = self._server.reasons + self._hops.reasons
            told = ", ".join(f"{k} {v}" for k, v in sorted(reasons.items())) or "none"
            raise RoundError(
                f"round {self._terms.round}, {phase['phase']}: {error.message} ({error.code}); nothing was opened. "
                f"Reasons: {told}",
                remedy="Bring more clients or lower federation.min_clients; rerunning the same command resumes.",
            ) from None

    def _further(self, bind: bytes) -> dict[str, bytes]:
        """The opening of the next phase, for everyone who saw the one before to its end."""
        opening = self._server.next_phase(bind)
        return dict.fromkeys(self._server.awaited, opening)

    def _gather(self, bind: bytes) -> dict[str, bytes]:
        """Adverts and shares, once a round; the openings of the first phase."""
        server, hops, self._begun = self._server, self._hops, True
        early = {name: advert for name, advert in self._early.items() if name in hops.members}
        for name, advert in early.items():
            server.accept_advert(name, advert)
        missing = [name for name in hops.members if name not in early]
        hops.ask("query.advertise", missing, server.accept_advert, config={"terms": self._terms.to_bytes()})
        cohort = server.close_adverts()
        hops.ask("query.share", server.awaited, server.accept_shares, config={"cohort": cohort})
        return server.close_shares(bind)

    def _open(self, following: Terms | None, phase: Mapping[str, Any]) -> None:
        """Confirmations and reveals."""
        server, hops = self._server, self._hops
        config = {**phase, "survivors": server.close_masked()}
        hops.ask("query.confirm", server.survivors, server.accept_confirmation, config=config)
        signed = server.close_confirmations()
        if following is None:
            hops.ask("query.reveal", signed, server.accept_reveal, config=phase, blobs=signed)
            return

        def take(name: str, reveal: bytes, advert: bytes) -> None:
            server.accept_reveal(name, reveal)
            if advert:
                self.next_adverts[name] = advert

        config = {**phase, "terms": following.to_bytes()}
        hops.ask("query.reveal", signed, take, config=config, blobs=signed, parts=2)
