"""What a node itself must keep to in secure aggregation: terms, policy, graph, and the states between two hops."""

from __future__ import annotations

import fcntl
import stat
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from client import secure, secure_terms
from client.admission import Admission
from client.policy import Policy
from client.secure_terms import Party
from common.config import build_scenario
from common.evaluation.conformance import Finding
from common.secagg.client_state import ClientState, Stage
from common.secagg.terms import Terms
from common.secure_terms import round_terms
from common.table import RowDomain
from common.units import ClientStore, Units
from common.work import Work, work_for
from simulations.protocol_checks.attempts import refused
from simulations.protocol_checks.trial import Trial, trial_terms

_COHORT, _POLICY = 12, Policy(max_epsilon=float("inf"), modes=("distributed",))
_KEY = (3, 1, 0)  # the round and attempt of the trial's terms, and a client


def node_refuses_other_terms() -> list[Finding]:
    """Terms of another run or round, of other vectors, of fewer clients than the noise is for, or of a roster."""
    work = _work()
    honest = honest_terms()
    others: tuple[dict[str, Any], ...] = (
        {"run": "other"},
        {"round": 2},
        {"phases": (replace(honest.phases[0], length=honest.phases[0].length + 1),)},
        {"least_cohort": honest.least_cohort + 1},
        {"least_survivors": honest.least_survivors - 1},
        {"roster_hash": bytes(32), "neighbour_threshold": honest.degree},
    )
    return [
        refused(f"terms with another {next(iter(change))}", "other_terms", _advert(work, replace(honest, **change)))
        for change in others
    ]


def honest_terms() -> Terms:
    """Those that the node of these checks derives itself."""
    return round_terms(_work(), "run", number=1, attempt=1, cohort=_COHORT)


def node_keeps_its_policy() -> list[Finding]:
    """Terms of the run that its operator does not allow."""
    work = _work()
    honest = honest_terms()
    stricter = {"min_cohort": _COHORT, "min_survivors": _COHORT}
    found = [
        refused(f"less than {name}", "weak_terms", _advert(work, honest, _POLICY.model_copy(update={name: least})))
        for name, least in stricter.items()
    ]
    required = _POLICY.model_copy(update={"roster_required": True})
    return [*found, refused("no roster", "roster_required", _advert(work, honest, required))]


def node_counts_colluders() -> list[Finding]:
    """A graph in which the colluders that are accounted for may open its secrets."""
    trial = Trial(34, terms=trial_terms(34, degree=4, least_survivors=10, least_cohort=20)).advertise()
    trial.share()
    state = trial.states[trial.names[0]]
    return [refused("few neighbours", "weak_terms", lambda: secure_terms.refuse_weak_graph(_work(), state))]


def node_answers_once() -> list[Finding]:
    """A round that it has answered in is begun again."""
    states = secure.SecretStates("run")
    states.begin(_KEY, _past())
    return [refused("an attempt once more", "replay", lambda: states.begin(_KEY, _begun()))]


def node_keeps_to_its_configuration() -> list[Finding]:
    """Keys that were made under another configuration of the run."""
    states = secure.SecretStates("run")
    states.begin(_KEY, _begun())

    def hop() -> None:
        states.move(_KEY, lambda state: (state, b"answer"), config=bytes(32))

    return [refused("another configuration's keys", "wrong_config", hop)]


def node_erases_old_rounds() -> list[Finding]:
    """The secrets of a round that did not end, once the next one begins."""
    states, left = secure.SecretStates("run"), _past()
    states.begin(_KEY, left)
    states.begin((4, 1, 0), _begun())
    kept = len(left.secrets.names) + (_KEY in states.states)
    return [Finding("P", "an unfinished round", f"{kept} secrets or states left", kept == 0)]


def node_file_is_its_own() -> list[Finding]:
    """States between two processes: readable by nobody else, without those that are spent, one process at a time."""
    with tempfile.TemporaryDirectory() as name:
        folder, locked = Path(name), False
        with secure.held_states(folder, "run") as states:
            states.begin(_KEY, _begun())
            states.states[(3, 1, 1)] = _spent()
            with (folder / secure.LOCK_FILE).open("w") as other:
                try:
                    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    locked = True
        path = next(folder.glob("secagg-*.bin"))
        mode, kept = stat.S_IMODE(path.stat().st_mode), len(secure.SecretStates.of_run(folder, "run").states)
    return [
        Finding("P", "mode of the states' file", oct(mode), mode == 0o600),
        Finding("P", "states in the file", f"{kept}, must be 1", kept == 1),
        Finding("P", "another process meanwhile", "waits" if locked else "goes on", locked),
    ]


def _work() -> Work:
    raw: dict[str, Any] = {
        "task": {"family": "word2vec", "dimension": 2},
        "data": {"unit": "client"},
        "privacy": {"mode": "distributed", "noise_multiplier": 1.0, "l2_clip_norm": 1.0, "delta": 1e-3},
        "federation": {
            "secure_aggregation": "full",
            "rounds": 1,
            "min_clients": 10,
            "max_clients": _COHORT,
            "colluders": 2,
        },
    }
    return work_for(build_scenario(raw), RowDomain(("wa", "wb", "wc")))


def _advert(work: Work, terms: Terms, policy: Policy = _POLICY) -> Callable[[], None]:
    nothing = ClientStore(("c",), np.array([0, 0]), Units(np.array([0]), {}))
    admitted = Admission("run", work, clients=nothing, fingerprints=("f",))
    party = Party.for_a_round("a")

    def attempt() -> None:
        secure_terms.advert_for(admitted, policy, party, terms_bytes=terms.to_bytes())

    return attempt


def _begun() -> ClientState:
    return Trial(5).advertise().states["client-000"]


def _past() -> ClientState:
    """A state whose shares have been sent."""
    return replace(_begun(), stage=Stage.SHARED)


def _spent() -> ClientState:
    """A state from which the client has moved on."""
    state = _begun()
    state.secrets.step += 1
    return state


NODE = (
    node_refuses_other_terms,
    node_keeps_its_policy,
    node_counts_colluders,
    node_answers_once,
    node_keeps_to_its_configuration,
    node_erases_old_rounds,
    node_file_is_its_own,
)
