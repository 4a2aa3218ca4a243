"""What a node's own policy limits before anything is charged or computed: colluders, and the size of what it sends.

And what a coordinator limits of what it takes in.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from client import secure_hops
from client.ledger import Ledger
from client.policy import Policy
from client.session import Session
from common import wire
from common.config import Scenario, build_scenario
from common.evaluation.conformance import Finding
from common.secagg.sizes import answer_bytes, vector_bytes
from common.secure_terms import phases_of
from common.table import RowDomain
from common.units import ClientStore, Units
from common.work import work_for
from server.delivery import Question
from server.rounds import Node
from server.secure_round import REPLY_BYTES, HopReplies, Hops, Member
from simulations.protocol_checks.trial import trial_terms

_COLLUDERS, _CLIENTS = 2, 2
_DOMAIN = RowDomain(("wa", "wb", "wc"))
_TERMS: dict[str, Any] = {
    "task": {"family": "word2vec", "dimension": 1024},
    "data": {"unit": "client"},
    "privacy": {"mode": "distributed", "noise_multiplier": 1.0, "l2_clip_norm": 1.0, "delta": 1e-3},
    "federation": {"rounds": 1, "min_clients": 10, "max_clients": 12, "secure_aggregation": "full"},
}


def node_demands_colluders() -> list[Finding]:
    """A run whose noise allows for fewer colluders than the operator wants, and one that allows for so many."""
    found = []
    for least, expected in ((_COLLUDERS, "ready"), (_COLLUDERS + 1, "colluders")):
        with _node(min_colluders=least) as node:
            got = _admitted(node)
        found.append(Finding("P", f"at least {least} colluders", f"{got}, must be {expected}", got == expected))
    return found


def node_limits_what_it_sends() -> list[Finding]:
    """A run whose vector is larger than the operator lets out, and a round that asks for two where one is let out."""
    one = vector_bytes(phases_of(work_for(_scenario(), _DOMAIN), 1)[0])
    found = []
    for most, expected in ((one - 1, "message_bytes"), (one, "ready")):
        with _node(max_message_bytes=most) as node:
            got = _admitted(node)
            found.append(Finding("P", f"{most} bytes let out", f"{got}, must be {expected}", got == expected))
            if got == "ready":
                asked, charges = _asked_for_two(node), sum(n for _, n in node.ledger.accounts())
                found.append(
                    Finding("P", "two vectors", f"{asked}, {charges} charged", (asked, charges) == ("message_bytes", 0))
                )
    return found


def coordinator_limits_replies() -> list[Finding]:
    """A reply that is larger than what was asked for can be, to a hop of the protocol and to one with vectors."""
    terms, found = trial_terms(6), []
    member, phase = Member(Node(1, 1), 0), terms.phases[0]
    for kind, most in (("train.mask", vector_bytes(phase)), ("query.share", answer_bytes(terms, 1))):
        for over, expected in ((0, "malformed"), (1, "too large")):
            hops = Hops(_Flood(most + REPLY_BYTES + over), "trial", terms, [member])  # type: ignore[arg-type]
            hops.ask(kind, [member.name], lambda *_: None, config={"phase": phase.name})
            subject = f"{kind}, {over} bytes over the limit"
            found.append(Finding("P", subject, str(dict(hops.reasons)), hops.reasons == Counter({expected: 1})))
    return found


class _Flood:
    """Nodes that answer with zeros, so many bytes of them."""

    def __init__(self, size: int) -> None:
        self._size = size

    def ask(self, kind: str, questions: Sequence[Question], replies: HopReplies, *, table: object = None) -> None:
        for question in questions:
            replies.ask(f"False/{question.key}", question.clients)
            replies.accept(f"False/{question.key}", wire.Payload({}, {"zeros": np.zeros(self._size, np.uint8)}))


class _Nothing:
    """Two clients without data."""

    def store(self, scenario: Scenario, domain: RowDomain | None) -> ClientStore:
        return ClientStore(("a", "b"), np.zeros(_CLIENTS + 1, np.int64), Units(np.array([0]), {}))

    def fingerprints(self, store: ClientStore) -> tuple[str, ...]:
        return ("a", "b")


@contextmanager
def _node(**limits: int) -> Iterator[Session]:
    with tempfile.TemporaryDirectory() as name, Ledger.open(Path(name) / "ledger.sqlite") as ledger:
        yield Session(_Nothing(), ledger, Policy.permissive().model_copy(update=limits))


def _scenario() -> Scenario:
    return build_scenario({**_TERMS, "federation": _TERMS["federation"] | {"colluders": _COLLUDERS}})


def _admitted(node: Session) -> str:
    """``ready``, or the code of the refusal."""
    domain = wire.encode_domain(_DOMAIN)
    config = {"run": "run", "scenario": _scenario().canonical_json(), "coordinator": "anybody", **domain.config}
    reply = node.prepare(wire.Payload(config, domain.arrays))
    return str(reply.config.get("code", reply.config["status"]))


def _asked_for_two(node: Session) -> str:
    """What a message that asks for two clients' vectors is answered: a status, the code of a refusal, or an error."""
    arrays = {"clients": np.arange(_CLIENTS), **wire.encode_blobs([b""] * _CLIENTS)}
    payload = wire.Payload({"run": "run", "round": 1, "attempt": 1, "phase": "values"}, arrays)
    try:
        reply = secure_hops.mask(node, payload)
    except Exception as error:  # a node whose check is left out goes on to a message that holds no model
        return type(error).__name__
    return str(reply.config.get("code", reply.config["status"]))


LIMITS = (node_demands_colluders, node_limits_what_it_sends, coordinator_limits_replies)
