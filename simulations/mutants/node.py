"""A node's part in secure aggregation gone wrong: its own checks left out, its states shared, kept or served twice."""

from __future__ import annotations

import fcntl
import os
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from client import gate, secure, secure_hops, secure_terms
from client.policy import Policy
from client.secure import SecretStates
from client.secure_terms import Party
from common.secagg.client_state import ClientLimits
from common.secagg.terms import Terms
from server.secure_round import Hops
from simulations.mutants import broken
from simulations.protocol_checks.node import honest_terms

_LIMITS, _MOVE, _SAVE = ClientLimits, SecretStates.move, SecretStates.save


def _any_terms(admitted: Any, policy: Policy, party: Party, *, terms_bytes: bytes) -> Any:
    """Whatever the coordinator names is taken for the terms of the run."""
    terms = secure_terms.Terms.from_bytes(terms_bytes)
    limits = ClientLimits(policy.min_cohort, policy.min_survivors, roster_required=policy.roster_required)
    given: dict[str, Any] = {"identity": party.identity, "limits": limits, "entropy": os.urandom}
    return (terms, *secure_terms.advertise(terms_bytes, party.name, **given))


def _no_limits(**named: Any) -> ClientLimits:
    """The operator's policy is not looked at."""
    return _LIMITS(**(named | {"least_cohort": 2, "least_survivors": 2, "roster_required": False}))


def _blind_to(field: str) -> SimpleNamespace:
    """Terms in which one field is taken for what the node expects, whatever it is."""

    def read(data: bytes) -> Terms:
        return replace(Terms.from_bytes(data), **{field: getattr(honest_terms(), field)})

    return SimpleNamespace(from_bytes=read)


def _nothing(*given: Any, **named: Any) -> None:
    """A limit that is not looked at."""


def _any_graph(*given: Any, **named: Any) -> bool:
    return True


def _begin_again(self: SecretStates, key: Any, state: Any) -> None:
    """The last state counts, whatever was answered before."""
    for old in [k for k in self.states if k[2] == key[2]]:
        self.states.pop(old).abort()
    self.states[key] = state


def _begin_beside(self: SecretStates, key: Any, state: Any) -> None:
    """What earlier rounds left stays."""
    if key in self.states:
        raise secure.SecAggError("replay", "already answered")
    self.states[key] = state


def _move_under_any(self: SecretStates, key: Any, hop: Any, *, config: bytes) -> bytes:
    """Keys serve whatever configuration the coordinator has moved on to."""
    return _MOVE(self, key, hop, config=self.states[key].terms.config_hash)


def _save_spent(self: SecretStates) -> None:
    """States that were used up come back with the next process."""
    for state in self.states.values():
        state.secrets.step = state.step
    _SAVE(self)


def _readable(path: Any, flags: int, mode: int = 0o777) -> int:
    """Whoever has an account on the machine may read the secrets."""
    return os.open(path, flags, 0o644)


def _no_lock(file: Any, operation: int) -> None:
    """Two processes at a time."""


def _altered(module: Any, **changes: Any) -> SimpleNamespace:
    """What stands for a module in one other module, with a function of its own."""
    return SimpleNamespace(**(vars(module) | changes))


MUTANTS = (
    broken(
        "terms of another run answered",
        "node_refuses_other_terms",
        owner=secure_terms,
        attribute="advert_for",
        by=_any_terms,
    ),
    *(
        broken(
            f"terms with any {field}",
            "node_refuses_other_terms",
            owner=secure_terms,
            attribute="Terms",
            by=_blind_to(field),
        )
        for field in ("run", "round", "phases", "least_cohort", "least_survivors", "roster_hash")
    ),
    broken(
        "a policy that is not asked",
        "node_keeps_its_policy",
        owner=secure_terms,
        attribute="ClientLimits",
        by=_no_limits,
    ),
    broken(
        "a graph that is not looked at",
        "node_counts_colluders",
        owner=secure_terms,
        attribute="withstands",
        by=_any_graph,
    ),
    broken(
        "noise that allows for fewer colluders than the operator wants",
        "node_demands_colluders",
        owner=gate,
        attribute="check_colluders",
        by=_nothing,
    ),
    broken(
        "a run whose vectors are larger than the operator lets out",
        "node_limits_what_it_sends",
        owner=gate,
        attribute="check_upload",
        by=_nothing,
    ),
    broken(
        "more vectors in a message than the operator lets out",
        "node_limits_what_it_sends",
        owner=secure_hops,
        attribute="check_upload",
        by=_nothing,
    ),
    broken(
        "replies of any size", "coordinator_limits_replies", owner=Hops, attribute="_most_bytes", by=lambda *_: 2**62
    ),
    broken("a round answered twice", "node_answers_once", owner=SecretStates, attribute="begin", by=_begin_again),
    broken("unfinished rounds kept", "node_erases_old_rounds", owner=SecretStates, attribute="begin", by=_begin_beside),
    broken(
        "keys of another configuration",
        "node_keeps_to_its_configuration",
        owner=SecretStates,
        attribute="move",
        by=_move_under_any,
    ),
    broken("spent states written", "node_file_is_its_own", owner=SecretStates, attribute="save", by=_save_spent),
    broken(
        "secrets that others may read",
        "node_file_is_its_own",
        owner=secure,
        attribute="os",
        by=_altered(os, open=_readable),
    ),
    broken(
        "states without a lock",
        "node_file_is_its_own",
        owner=secure,
        attribute="fcntl",
        by=_altered(fcntl, flock=_no_lock),
    ),
)
