"""Flower as the carrier: payloads to nodes and back, with failures told of the node that was asked."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import flwr.app
from flwr.app import Message
from flwr.serverapp import Grid

from common import wire
from common.errors import RoundError, WireError
from server.sender import NOBODY, Sender

POLL_INTERVAL_S, LONGEST_POLL_S = 0.05, 0.5  # each look is a request to the SuperLink: it gets rarer as time goes
SILENCE_S = 30.0
SETTLE_S = 10.0
MOST_TIMES = 3
_SURE = 2
NODE_UNAVAILABLE, NO_REPLY, LOST = "node_unavailable", "no_reply", "lost"
SILENCES = (NO_REPLY, LOST)  # of nodes that are connected
_FAILURES = {5: NODE_UNAVAILABLE, 8: "crashed"}


@dataclass
class _Question:
    """A payload that a node has not answered.

    Attributes:
        sent: how often it was sent.
        quiet_until: when the node is asked whether it still holds it.
        passed: how many messages that were sent after it the node has answered.
    """

    node: int
    payload: wire.Payload
    quiet_until: float
    sent: int = 1
    passed: int = 0


class Exchange:
    """Sends payloads to nodes over a Flower grid and yields what comes back.

    A node between sites answers its messages one after the other. Where it is silent for ``SILENCE_S``, it is sent an
    empty message: an answer to that, and still none to the question, says that the question is lost (the agent or its
    network failed while it held it), and it is sent again. A site that has charged it answers the second with a
    refusal and never computes twice (``client.ledger``).

    Args:
        one_by_one: whether nodes answer in order. Those of a simulation do not.
        clock: seconds that only go up.
    """

    def __init__(
        self,
        grid: Grid,
        timeout_s: float,
        sender: Sender = NOBODY,
        *,
        one_by_one: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._grid = grid
        self.sender = sender
        self._timeout_s = timeout_s
        self._one_by_one = one_by_one
        self._clock = clock

    def wait_for_nodes(self, minimum: int) -> list[int]:
        """Node numbers, once at least ``minimum`` are there; between sites, once for a while no other has come.

        After a fault of the coordinator sites come back one by one, and a run that begins with all of them is spared
        to change its cohort.

        Raises:
            RoundError: they did not come within the round timeout.
        """
        settle_s = SETTLE_S if self._one_by_one else 0.0
        nodes, changed = list[int](), self._clock()
        deadline = changed + self._timeout_s
        while True:
            before, nodes = nodes, sorted(self._grid.get_node_ids())
            changed = changed if nodes == before else self._clock()
            late = self._clock() > deadline
            if len(nodes) >= minimum and (late or self._clock() - changed >= settle_s):
                return nodes
            if late:
                raise RoundError(f"{len(nodes)} of {minimum} nodes came within {self._timeout_s:g} s")
            time.sleep(LONGEST_POLL_S if settle_s else POLL_INTERVAL_S)

    @property
    def between_sites(self) -> bool:
        """Whether nodes are sites, which host one client each, come and go, and answer in order."""
        return self._one_by_one

    def connected(self) -> list[int]:
        """Nodes that Flower takes for connected."""
        return sorted(self._grid.get_node_ids())

    def back(self, nodes: Sequence[int], seconds: float) -> list[int]:
        """Those of ``nodes`` that are connected: at once where all are, else after ``seconds``."""
        deadline = self._clock() + min(seconds, self._timeout_s)
        while True:
            found = sorted(set(nodes) & set(self._grid.get_node_ids()))
            if len(found) == len(nodes) or self._clock() > deadline:
                return found
            time.sleep(LONGEST_POLL_S)

    def send(
        self, kind: str, payloads: Sequence[tuple[int, wire.Payload]], *, timeout_s: float | None = None
    ) -> Iterator[tuple[int, wire.Payload | str]]:
        """Send payload k to its node and yield ``(k, reply)`` as replies come; a failure yields its reason instead.

        Flower reports a dead node as node 1, so replies are matched by the message they answer, never by sender.

        Args:
            timeout_s: in place of the exchange's own, where it is shorter.
        """
        deadline = self._clock() + min(self._timeout_s, timeout_s or self._timeout_s)
        wave = _Wave(self._grid, kind, payloads, self._clock() + SILENCE_S)
        pause_s = POLL_INTERVAL_S
        while wave.open and self._clock() < deadline:
            answered = list(wave.answers(self._clock()))
            yield from answered
            if self._one_by_one:
                yield from wave.remind(self._clock())
            pause_s = POLL_INTERVAL_S if answered else min(LONGEST_POLL_S, pause_s * 1.25)
            if not answered:
                time.sleep(pause_s)
        for index in wave.open:
            yield index, NO_REPLY


class _Wave:
    """Payloads of one kind to several nodes, until all are answered."""

    def __init__(self, grid: Grid, kind: str, payloads: Sequence[tuple[int, wire.Payload]], quiet_until: float) -> None:
        self._grid, self._kind = grid, kind
        self.open = {k: _Question(node, payload, quiet_until) for k, (node, payload) in enumerate(payloads)}
        self._questions: dict[str, int] = {}
        self._reminders: dict[str, int] = {}
        self._unknown: list[int] = []  # questions to nodes that Flower does not know (any more)
        self._push(list(self.open))

    def answers(self, now: float) -> Iterator[tuple[int, wire.Payload | str]]:
        """Replies that have come to open questions."""
        while self._unknown:
            if self.open.pop(unknown := self._unknown.pop(), None) is not None:
                yield unknown, NODE_UNAVAILABLE
        asked = [m for of in (self._questions, self._reminders) for m, k in of.items() if k in self.open]
        replies: Iterable[Message] = self._grid.pull_messages(asked)
        for reply in replies:
            about = str(reply.metadata.reply_to_message_id)
            if (index := self._reminders.pop(about, None)) is not None:
                self._reminded(index, now, failed=reply.has_error())
            elif (index := self._questions.pop(about, None)) is not None and self.open.pop(index, None) is not None:
                yield index, _content(reply)

    def remind(self, now: float) -> Iterator[tuple[int, str]]:
        """Ask silent nodes for a sign of life, and send again what they have lost; yields what is lost for good."""
        waiting = set(self._reminders.values())
        for index, question in list(self.open.items()):
            if question.passed >= _SURE and question.sent >= MOST_TIMES:
                del self.open[index]
                yield index, LOST
            elif question.passed >= _SURE:
                question.sent, question.passed, question.quiet_until = question.sent + 1, 0, now + SILENCE_S
                self._push([index])
            elif index not in waiting and now >= question.quiet_until:
                empty = wire.Payload({"protocol": wire.PROTOCOL, "run": str(question.payload.config["run"])}, {})
                self._keep(self._reminders, self._pushed("query.present", [(question.node, empty)]), [index])

    def _reminded(self, index: int, now: float, *, failed: bool) -> None:
        """A node has answered a reminder; or Flower has in its place, and will say so of the question as well."""
        if index in self.open and failed:
            self.open[index].quiet_until = now + SILENCE_S
        elif index in self.open:
            self.open[index].passed += 1

    def _push(self, indices: Sequence[int]) -> None:
        sent = [(self.open[k].node, self.open[k].payload) for k in indices]
        self._keep(self._questions, self._pushed(self._kind, sent), indices)

    def _keep(self, asked: dict[str, int], names: Sequence[str], indices: Sequence[int]) -> None:
        """Flower gives no name to a message for a node whose key was revoked: it will never be answered."""
        for name, index in zip(names, indices, strict=True):
            if name:
                asked[name] = index
            else:
                self._unknown.append(index)

    def _pushed(self, kind: str, sent: Sequence[tuple[int, wire.Payload]]) -> list[str]:
        messages = [Message(wire.pack(payload, flwr.app), node, kind) for node, payload in sent]
        return list(self._grid.push_messages(messages))


def _content(reply: Message) -> wire.Payload | str:
    if reply.has_error():
        return _FAILURES.get(reply.error.code, "node_error")
    try:
        return wire.unpack(reply.content)
    except WireError:
        return "malformed"
