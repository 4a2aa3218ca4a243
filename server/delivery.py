"""Talking to the nodes of one run: admission, and instructions with as much of the table as each node lacks."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from common import wire
from common.errors import WireError
from common.table import IntArray
from common.work import Work
from server.checkpoint import RunState
from server.exchange import NODE_UNAVAILABLE, SILENCES, Exchange
from server.rounds import Node, run_payload

RETURN_S = 60.0
_MADE_UP = re.compile(r"[0-9]+[.][0-9]+")  # what clients without a name are called in a round


class Replies(Protocol):
    """What takes the replies to one wave of messages: it is told what was asked, and what came back or did not."""

    def ask(self, message_id: str, clients: IntArray) -> None: ...

    def withdraw(self, message_id: str) -> None: ...

    def accept(self, message_id: str, payload: wire.Payload) -> None: ...

    def fail(self, message_id: str, reason: str) -> None: ...


@dataclass(frozen=True)
class Question:
    """One message to one node: its clients, and what the message holds beside the table."""

    node: Node
    clients: IntArray
    config: Mapping[str, Any]
    arrays: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Tells the questions of a hop apart."""
        return f"{self.node.node_id}/{self.clients[0] if len(self.clients) else 0}"


class Delivery:
    """The nodes of one run, and which version of the table each holds."""

    def __init__(self, work: Work, exchange: Exchange, run: str) -> None:
        self._work = work
        self._exchange = exchange
        self._run = run
        self.changed: Mapping[str, IntArray] | None = None  # rows of each table that the last round changed
        self.refusals: Counter[str] = Counter()  # what nodes have said in place of an answer, until it is reported

    def prepare(
        self, node_ids: Sequence[int], *, patience_s: float = RETURN_S, timeout_s: float | None = None
    ) -> tuple[list[Node], list[str]]:
        """Ask nodes to admit the run: (those that do, reasons of those that do not).

        Args:
            patience_s: how long those that are not there are waited for.
            timeout_s: how long an answer is waited for; by default as long as in a round.
        """
        scenario, rows = self._work.scenario.canonical_json(), self._work.domain
        signed = self._exchange.sender.signed(self._run, scenario, "" if rows is None else rows.digest)
        domain = wire.encode_domain(rows)
        config = {"scenario": scenario, "coordinator": self._run, **signed, **domain.config}
        payload = run_payload(self._run, config, domain.arrays)
        nodes: list[Node] = []
        refusals: list[str] = []
        for node_id, reply in self._prepared(node_ids, payload, patience_s, timeout_s):
            found = reply if isinstance(reply, str) else _node_of(node_id, reply, sites=self._exchange.between_sites)
            if isinstance(found, str):
                refusals.append(found)
            else:
                nodes.append(found)
        return sorted(nodes, key=lambda n: n.node_id), refusals

    def _prepared(
        self, node_ids: Sequence[int], payload: wire.Payload, patience_s: float, timeout_s: float | None
    ) -> Iterator[tuple[int, wire.Payload | str]]:
        """Node by node what it says; one that is not there is waited for and asked once more.

        Flower takes a node whose agent was killed for connected until its last sign of life is a minute old, and lets
        it come back no earlier.
        """
        gone: list[int] = []
        for index, reply in self._exchange.send("query.prepare", [(n, payload) for n in node_ids], timeout_s=timeout_s):
            if reply == NODE_UNAVAILABLE:
                gone.append(node_ids[index])
            else:
                yield node_ids[index], reply
        if not gone:
            return
        back = self._exchange.back(gone, patience_s)
        for index, reply in self._exchange.send("query.prepare", [(n, payload) for n in back], timeout_s=timeout_s):
            yield back[index], reply
        for node_id in set(gone) - set(back):
            yield node_id, NODE_UNAVAILABLE

    def ask(self, kind: str, questions: Sequence[Question], replies: Replies, *, table: RunState | None = None) -> None:
        """Send one wave; a node that lost its table or its run is told again, once.

        Args:
            table: the state whose table the nodes need for the answer; ``None`` where they need none.
        """
        again: list[Question] = []
        for last in (False, True):
            payloads = [(q.node.node_id, self._payload(q, table)) for q in questions]
            for question in questions:
                replies.ask(f"{last}/{question.key}", question.clients)
            for index, reply in self._exchange.send(kind, payloads):
                node, key = questions[index].node, f"{last}/{questions[index].key}"
                node.unanswered |= reply in SILENCES
                if isinstance(reply, str):
                    replies.fail(key, reply)
                elif reply.config.get("status") in ("need_full", "unprepared") and not last:
                    replies.withdraw(key)
                    again.append(questions[index])
                else:
                    if table is not None:
                        version = reply.config.get("version")
                        node.version = version if isinstance(version, int) else -1
                    if (status := reply.config.get("status")) in ("refused", "failed"):
                        self.refusals[f"{status}: {reply.config.get('code')}: {reply.config.get('reason')}"] += 1
                    replies.accept(key, reply)
            if not again:
                return
            for question in again:
                question.node.version = -1
            self.prepare([question.node.node_id for question in again])
            questions, again = again, []

    def _payload(self, question: Question, table: RunState | None) -> wire.Payload:
        config, arrays = dict(question.config), {**question.arrays, "clients": question.clients}
        if table is not None:
            changed = self._rows_missing(question.node, table.round)
            arrays |= wire.encode_parameters(table.parameters, changed)
            config |= {"version": table.round, "base_version": -1 if changed is None else question.node.version}
        return run_payload(self._run, config, arrays)

    def _rows_missing(self, node: Node, current: int) -> Mapping[str, IntArray] | None:
        """Rows of each table that ``node`` lacks; ``None`` where it needs everything."""
        if node.version == current:
            return {s.name: np.empty(0, np.int64) for s in self._work.specs if s.is_table}
        return self.changed if node.version == current - 1 and current > 0 else None


def _node_of(node_id: int, reply: wire.Payload, *, sites: bool) -> Node | str:
    """The node that a reply to an announcement describes; or why it takes no part.

    A site is one client: the shares of noise in a sum are accounted as those of as many parties.
    """
    if reply.config.get("status") != "ready":
        return f"{reply.config.get('code')}: {reply.config.get('reason')}"
    try:
        name, clients = str(reply.config.get("name", "")), max(0, reply.integer("clients"))
    except WireError:
        return "malformed"
    if clients != 1 and (name or (sites and clients)):
        return f"a node answers for {clients} clients, and hosts one"
    if _MADE_UP.fullmatch(name):
        return f"a node calls itself {name!r}, like a client without a name"
    return Node(node_id, clients, name=name)
