"""Before a client gives a key it compares a round's terms with its own work and its own policy."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import numpy as np
import pytest

from client.admission import Admission
from client.policy import Policy
from client.secure_terms import Party, advert_for, refuse_weak_graph
from common.config import build_scenario
from common.errors import PrivacyConfigError, SecAggError
from common.secagg.client import share
from common.secagg.client_state import ClientState
from common.secagg.server import RoundServer
from common.secagg.terms import PhaseTerms, Terms
from common.secure_terms import neighbourhood, round_terms, secure_sum
from common.table import RowDomain
from common.units import ClientStore, Units
from common.work import Work, work_for

CLIENTS = 40
POLICY = Policy(max_epsilon=float("inf"), modes=("distributed",))


def work(**federation: Any) -> Work:
    raw = {
        "task": {"family": "word2vec", "dimension": 2},
        "data": {"unit": "client"},
        "privacy": {"mode": "distributed", "noise_multiplier": 1.0, "l2_clip_norm": 1.0, "delta": 1e-3},
        "federation": {
            "rounds": 3,
            "secure_aggregation": "full",
            "min_clients": 32,
            "max_clients": CLIENTS,
            "colluders": 2,
            **federation,
        },
    }
    return work_for(build_scenario(raw), RowDomain(("wa", "wb", "wc")))


def admitted(which: Work) -> Admission:
    nothing = ClientStore(("c",), np.array([0, 0]), Units(np.array([0]), {}))
    return Admission("run", which, clients=nothing, fingerprints=("f",))


def terms(which: Work, **changes: Any) -> Terms:
    made = round_terms(which, "run", number=1, attempt=1, cohort=CLIENTS)
    return dataclasses.replace(made, **changes)


def advert(which: Work, asked: Terms, policy: Policy = POLICY) -> tuple[Terms, ClientState, bytes]:
    return advert_for(admitted(which), policy, Party.for_a_round("a"), terms_bytes=asked.to_bytes())


def test_the_terms_of_the_run_are_answered() -> None:
    which = work()
    assert advert(which, terms(which))[1].terms == terms(which)


@pytest.mark.parametrize(
    "changes",
    [
        {"run": "another"},
        {"round": 4},
        {"least_cohort": 33},
        {"least_survivors": 31},
        {"roster_hash": bytes(32), "neighbour_threshold": 39, "degree": 39},
        {"phases": (PhaseTerms("values", 32, 16),)},
        {"phases": (PhaseTerms("values", 16, 8),)},
        {"phases": (PhaseTerms("votes", 16, 16),)},
    ],
    ids=str,
)
def test_other_terms_than_the_run_s_are_refused(changes: dict[str, Any]) -> None:
    which = work()
    with pytest.raises(SecAggError) as raised:
        advert(which, terms(which, **changes))
    assert raised.value.code == "other_terms"


@pytest.mark.parametrize(
    ("policy", "code"),
    [
        ({"min_cohort": 33}, "weak_terms"),
        ({"min_survivors": 33}, "weak_terms"),
        ({"roster_required": True}, "roster_required"),
    ],
)
def test_the_policy_s_own_limits_hold(policy: dict[str, Any], code: str) -> None:
    which = work()
    with pytest.raises(SecAggError) as raised:
        advert(which, terms(which), POLICY.model_copy(update=policy))
    assert raised.value.code == code


@pytest.mark.parametrize(
    ("changes", "code"), [({"config_hash": bytes(32)}, "wrong_config"), ({"model_hash": bytes(32)}, "wrong_model")]
)
def test_another_configuration_or_model_is_refused(changes: dict[str, Any], code: str) -> None:
    which = work()
    with pytest.raises(SecAggError) as raised:
        advert(which, terms(which, **changes))
    assert raised.value.code == code


def shared(which: Work, asked: Terms) -> ClientState:
    """A client's state after it shared with a cohort of forty."""
    server, states = RoundServer(asked), {}
    for k in range(CLIENTS):
        party = Party.for_a_round(f"c{k}")
        _, states[k], message = advert_for(admitted(which), POLICY, party, terms_bytes=asked.to_bytes())
        server.accept_advert(f"c{k}", message)
    return share(states[0], server.close_adverts(), entropy=os.urandom)[0]


def test_a_graph_that_lets_the_accounted_colluders_in_is_refused() -> None:
    which = work(min_clients=36, colluders=10)
    state = shared(which, terms(which))
    refuse_weak_graph(which, state)
    assert state.secrets.names
    weak = shared(which, terms(which, degree=14, neighbour_threshold=8))
    with pytest.raises(SecAggError) as raised:
        refuse_weak_graph(which, weak)
    assert raised.value.code == "weak_terms"
    assert not weak.secrets.names


def test_cohorts_that_no_threshold_serves_are_refused() -> None:
    with pytest.raises(PrivacyConfigError, match="drop out"):
        neighbourhood(secure_sum(work(min_clients=20)), 40)
    with pytest.raises(PrivacyConfigError, match="are asked"):
        neighbourhood(secure_sum(work()), 41)
