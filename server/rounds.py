"""The round: who is asked, and which replies count.

``RoundMachine`` is pure: it is told what was asked and what came back, and it ends with one private sum and a count
of reasons.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from common import wire
from common.errors import WireError
from common.privacy.private_sum import PrivateSum
from common.table import IntArray
from common.update import UpdateBatch, scaled, squared_norms
from common.work import Work

# A reply's norm may exceed the clip by float32 rounding alone.
NORM_SLACK = 1e-4


@dataclass
class Node:
    """What the server knows of a Flower node: how many clients it hosts and which table version it holds.

    Attributes:
        name: its client's in the roster of secure aggregation, where there is one.
        unanswered: whether it left a question of this round without an answer though it was connected.
        silent: rounds in a row in which it did.
    """

    node_id: int
    clients: int
    version: int = -1
    name: str = ""
    unanswered: bool = False
    silent: int = 0


class RoundMachine:
    """Accepts replies of one round and phase; everything else is counted under a reason and changes nothing."""

    def __init__(self, work: Work, run: str, round_number: int) -> None:
        self._work = work
        self._run = run
        self._round = round_number
        self._asked: dict[str, IntArray] = {}
        self._answered: set[str] = set()
        self._closed = False
        self._sum = PrivateSum(work.update_specs)
        self.reasons: Counter[str] = Counter()
        self.losses: list[float] = []
        self.norms: list[float] = []  # both are filled only where the run protects nobody

    def ask(self, message_id: str, clients: IntArray) -> None:
        """Remember that ``clients`` (node-local numbers) were asked under ``message_id``."""
        self._asked[message_id] = clients

    def withdraw(self, message_id: str) -> None:
        """Forget a question that the node could not take up; it is asked again under another id."""
        self._asked.pop(message_id, None)

    def accept(self, message_id: str, payload: wire.Payload) -> None:
        """Take one reply: valid contributions enter the sum, every other client is counted with a reason."""
        asked = self._asked.get(message_id)
        if asked is None or self._closed:
            self.reasons["late" if asked is not None else "foreign"] += 1
            return
        if message_id in self._answered:
            self.reasons["duplicate"] += 1
            return
        self._answered.add(message_id)
        try:
            if payload.text("run") != self._run:
                self.reasons["other_run"] += len(asked)
            elif payload.text("status") != "done":
                self.reasons[_refusal(payload)] += len(asked)
            elif payload.integer("round") != self._round:
                self.reasons["other_round"] += len(asked)
            else:
                self._add(payload, asked)
        except WireError:
            self.reasons["malformed"] += len(asked)

    def fail(self, message_id: str, reason: str) -> None:
        """The carrier reports that no reply will come."""
        asked = self._asked.get(message_id)
        if asked is not None and message_id not in self._answered:
            self._answered.add(message_id)
            self.reasons[reason] += len(asked)

    def _add(self, payload: wire.Payload, asked: IntArray) -> None:
        if not np.array_equal(payload.array("clients", np.int64, 1), asked):
            raise WireError("the reply names other clients than were asked")
        status = payload.array("status", np.int8, 1)
        if len(status) != len(asked) or (len(status) and not 0 <= status.min() <= status.max() < 5):
            raise WireError("the reply has no valid status for each client")
        computed = status[(status == wire.OK) | (status == wire.LATE)]
        batch = wire.decode_updates(payload, self._work.update_specs, len(computed)) if len(computed) else None
        for code, number in zip(*np.unique(status[status != wire.OK], return_counts=True), strict=True):
            self.reasons[wire.STATUS_NAMES[code]] += int(number)
        if batch is not None:
            self._add_valid(batch, computed == wire.OK)
        if self._work.plan.mode == "none" and "loss" in payload.arrays:
            losses = payload.array("loss", np.float32, 1)
            self.losses.extend(float(value) for value in losses[np.isfinite(losses)])

    def _add_valid(self, batch: UpdateBatch, keep: np.ndarray) -> None:
        with np.errstate(over="ignore", invalid="ignore"):
            squares = squared_norms(batch)
        finite = np.isfinite(squares)
        self.reasons["non_finite"] += int(np.sum(keep & ~finite))
        keep = keep & finite
        plan = self._work.plan
        if plan.mode == "central" and plan.unit_is_client:
            fits = squares <= (plan.l2_clip_norm * (1 + NORM_SLACK)) ** 2
            self.reasons["over_norm"] += int(np.sum(keep & ~fits))
            keep = keep & fits
        if plan.mode == "none":
            self.norms.extend(np.sqrt(squares[keep]).tolist())
        self.reasons["ok"] += int(keep.sum())
        self._sum.add(batch if keep.all() else scaled(batch, keep.astype(np.float64)))

    def close(self) -> PrivateSum:
        """End the round. Messages without a reply count as ``no_reply``; later ones as ``late``."""
        for message_id, clients in self._asked.items():
            if message_id not in self._answered:
                self.reasons["no_reply"] += len(clients)
        self._closed = True
        self.reasons = +self.reasons
        return self._sum


def _refusal(payload: wire.Payload) -> str:
    status = str(payload.config["status"])
    return status if status in {"refused", "failed", "need_full", "unprepared"} else "malformed"


def cohort_waves(
    nodes: Sequence[Node], drawn: Mapping[int, IntArray], clients_per_message: int
) -> Iterator[list[tuple[Node, IntArray]]]:
    """Cut every node's drawn clients into messages, and send at most one a node at a time: memory stays bounded."""
    pieces = {n.node_id: _pieces(drawn[n.node_id], clients_per_message) for n in nodes}
    for wave in range(max((len(p) for p in pieces.values()), default=0)):
        yield [(n, pieces[n.node_id][wave]) for n in nodes if wave < len(pieces[n.node_id])]


def _pieces(clients: IntArray, size: int) -> list[IntArray]:
    return [clients[i : i + size] for i in range(0, len(clients), size)]


def run_payload(run: str, config: Mapping[str, Any], arrays: Mapping[str, Any]) -> wire.Payload:
    """A payload of this run: protocol and run are part of every message."""
    return wire.Payload({"protocol": wire.PROTOCOL, "run": run, **config}, arrays)
