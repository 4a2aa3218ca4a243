"""What a message of a round asks, and what a node answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.admission import Admission
from common import wire
from common.errors import DataError, FedembedError, LedgerError, StorageError, WireError
from common.seeds import public_rng
from common.table import IntArray
from common.work import Work


@dataclass(frozen=True)
class Asked:
    """What a message of a round names: its number, the attempt, and clients by their numbers on this node."""

    round: int
    attempt: int
    clients: IntArray


def asked_of(admitted: Admission, payload: wire.Payload) -> Asked:
    """The round, attempt and clients of a message. Raises ``WireError`` for any that the run does not have."""
    round_number, attempt = payload.integer("round"), payload.integer("attempt")
    chosen = payload.array("clients", np.int64, 1)
    rounds, hosted = admitted.work.plan.rounds, len(admitted.clients)
    if not 1 <= round_number <= rounds or attempt < 1:
        raise WireError(f"the run has rounds 1 to {rounds} and attempts from 1")
    if len(chosen) and (chosen.min() < 0 or chosen.max() >= hosted or len(set(chosen.tolist())) < len(chosen)):
        raise WireError("the round names clients that this node does not host, or one twice")
    return Asked(round_number, attempt, chosen)


def faults(work: Work, names: Sequence[str], round_number: int) -> NDArray[np.int8]:
    """The status of each client under the faults that a scenario asks a simulation to play; shape (clients,)."""
    federation = work.scenario.federation
    status = np.full(len(names), wire.OK, dtype=np.int8)
    if federation.dropout or federation.stragglers:
        for k, name in enumerate(names):
            u = public_rng(work.scenario.seed, "faults", round_number, name).random()
            if u < federation.dropout:
                status[k] = wire.DROPPED
            elif u < federation.dropout + federation.stragglers:
                status[k] = wire.LATE
    return status


def failure_reply(run: str, error: Exception) -> wire.Payload:
    """A refusal for an error.

    What is wrong with this node's own files (their names, columns and line numbers), and whatever else was not raised
    on purpose, is for its operator alone.
    """
    if not isinstance(error, FedembedError):
        return node_reply(run, status="failed", clients=0, code="Error", reason="the node failed; its log says why")
    own = isinstance(error, (DataError, LedgerError, StorageError))
    reason = "the node cannot use its own files; its log says why" if own else str(error)
    return node_reply(run, status="failed", clients=0, code=type(error).__name__, reason=reason)


def node_reply(run: str, arrays: dict[str, Any] | None = None, **config: Any) -> wire.Payload:
    """A message to the coordinator, marked with protocol and run."""
    return wire.Payload({"protocol": wire.PROTOCOL, "run": run, **config}, arrays or {})
