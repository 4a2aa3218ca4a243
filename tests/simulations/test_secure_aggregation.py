"""Mode distributed through Flower's messages: the protocol gives the integers of a sum in the clear, or nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

from client.app import build_app as build_client_app
from client.ledger import Ledger
from client.policy import Policy
from client.secure import SecretStates
from client.session import Session
from client.store import shard
from common.config import Scenario, build_scenario
from common.errors import PrivacyConfigError, RoundError
from common.release import load_release
from server.app import build_app as build_server_app
from server.progress import LogReporter
from server.run import Outcome
from simulations.engine import InProcessGrid, run_in_process
from simulations.federation import GivenStore, enrolled_work, prepared_clients, run_simulation

CLIENTS = 12
BY_CLIENT: dict[str, Any] = {
    "task": {"family": "word2vec", "dimension": 4},
    "data": {"reader": "corpus", "path": "planted", "unit": "client", "partition": "uniform", "clients": CLIENTS},
    "vocabulary": {"path": "python-stdlib", "max_rows": 40},
    "privacy": {
        "mode": "distributed",
        "noise_multiplier": 1.0,
        "l2_clip_norm": 1.0,
        "delta": 1e-3,
        "test_mode": True,
    },
    "federation": {"rounds": 2, "secure_aggregation": "full", "min_clients": 8, "max_clients": CLIENTS},
}
BY_RECORD: dict[str, Any] = {
    **BY_CLIENT,
    "task": {"family": "spectral", "dimension": 4, "start": "python-stdlib"},
    "data": {**BY_CLIENT["data"], "unit": "record"},
    "privacy": {"mode": "distributed", "epsilon": 3.0, "delta": 1e-5, "test_mode": True},
}


def scenario(base: dict[str, Any], **federation: Any) -> Scenario:
    return build_scenario({**base, "federation": {**base["federation"], **federation}})


def tables(chosen: Scenario, folder: Path) -> dict[str, np.ndarray]:
    result = run_simulation(chosen, out=folder, engine="local", reporter=LogReporter())
    return {name: table.vectors for name, table in load_release(result.release).tables.items()}


@pytest.mark.parametrize("base", [BY_CLIENT, BY_RECORD], ids=["unit client", "unit record"])
def test_the_protocol_gives_the_integers_of_a_sum_in_the_clear(base: dict[str, Any], tmp_path: Path) -> None:
    faults = {"dropout": 0.1, "stragglers": 0.05, "min_clients": 7}
    full = tables(scenario(base, **faults), tmp_path / "full")
    ideal = tables(scenario(base, **faults, secure_aggregation="ideal"), tmp_path / "ideal")
    for name, vectors in full.items():
        assert np.array_equal(vectors, ideal[name])
        assert np.any(vectors)


def distributed_run(
    chosen: Scenario,
    folder: Path,
    *,
    nodes: int = 3,
    spoil: Callable[[int, str, Message], Message | None] = lambda node, kind, reply: reply,
) -> Outcome:
    """Several nodes, each with a ledger and a folder of its own, whose every message is served by a new session."""
    store = prepared_clients(enrolled_work(chosen), folder, LogReporter())
    ledgers = [Ledger.open(folder / f"ledger-{k}.sqlite") for k in range(nodes)]

    def session(context: Any) -> Session:
        k = int(context.node_config["k"])
        state_dir = folder / f"node-{k}"
        state_dir.mkdir(exist_ok=True)
        own = GivenStore(shard(store, k, nodes))
        return Session(own, ledgers[k], Policy.permissive(), simulated=True, state_dir=state_dir)

    app = build_client_app(session, lambda error: None)

    def spoiled(message: Message, context: Any) -> Message:
        return spoil(int(context.node_config["k"]), message.metadata.message_type, app(message, context))

    outcomes: list[Outcome] = []
    config = {
        "scenario": chosen.canonical_json(),
        "out": str(folder),
        "benchmarks": "{}",
        "simulation": "of many a node",
    }
    grid = InProcessGrid(spoiled, [{"k": k} for k in range(nodes)], run_config=config, byte_exact=True)  # type: ignore[arg-type]
    try:
        run_in_process(build_server_app(lambda folder: LogReporter(), outcomes.append), grid, config)
    finally:
        for ledger in ledgers:
            ledger.close()
    return outcomes[0]


def test_sessions_that_live_for_one_message_keep_their_secrets_on_disk_and_erase_them(tmp_path: Path) -> None:
    outcome = distributed_run(scenario(BY_CLIENT), tmp_path)
    assert outcome.state.round == 2
    for k in range(3):
        (kept,) = (tmp_path / f"node-{k}").glob("secagg-*.bin")
        assert kept.stat().st_mode & 0o777 == 0o600
        states = SecretStates.of_run(tmp_path / f"node-{k}", kept_run(tmp_path)).states
        assert {key[:2] for key in states} == {(2, 1)}  # what was left of round 1 is gone
        assert all(state.secrets.names == () for state in states.values())


def kept_run(folder: Path) -> str:
    return (folder / "state" / "run-id").read_text().split()[0]


def test_too_few_survivors_open_nothing_and_are_charged(tmp_path: Path) -> None:
    def silent(node: int, kind: str, reply: Message) -> Message:
        if node == 0 and kind == "train.mask":
            raise RuntimeError("the node dies")
        return reply

    with pytest.raises(RoundError, match="nothing was opened"):
        distributed_run(scenario(BY_CLIENT, min_clients=9), tmp_path, spoil=silent)
    with Ledger.open(tmp_path / "ledger-1.sqlite") as ledger:
        charges = sum(entry.kind == "charge" for entry in ledger.rows())
    assert charges == CLIENTS // 3


def test_a_run_goes_on_after_a_round_that_failed(tmp_path: Path) -> None:
    dead = {"now": True}

    def flapping(node: int, kind: str, reply: Message) -> Message:
        if dead["now"] and node != 2 and kind == "query.confirm":
            raise RuntimeError("the node dies")
        return reply

    chosen = scenario(BY_CLIENT, min_clients=9)
    with pytest.raises(RoundError, match="nothing was opened"):
        distributed_run(chosen, tmp_path, spoil=flapping)
    dead["now"] = False
    assert distributed_run(chosen, tmp_path).state.round == 2


def test_a_node_that_lost_its_secrets_is_a_dropout(tmp_path: Path) -> None:
    def forgetful(node: int, kind: str, reply: Message) -> Message:
        if node == 1 and kind == "query.share":
            for path in (tmp_path / "node-1").glob("secagg-*.bin"):
                path.unlink()
        return reply

    outcome = distributed_run(scenario(BY_CLIENT, rounds=1, min_clients=8), tmp_path, spoil=forgetful)
    assert outcome.state.round == 1


def test_a_coordinator_that_dies_before_its_checkpoint_can_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Adverts for the round after came with the lost round's replies: they give way."""
    from server.run import FederatedRun

    original, died = FederatedRun._save, []

    def dies(self: FederatedRun, state: Any) -> None:
        if not died:
            died.append(1)
            raise RuntimeError("the coordinator dies")
        original(self, state)

    monkeypatch.setattr(FederatedRun, "_save", dies)
    chosen = scenario(BY_CLIENT)
    with pytest.raises(RuntimeError, match="dies"):
        distributed_run(chosen, tmp_path)
    assert distributed_run(chosen, tmp_path).state.round == 2


def test_a_cohort_that_no_threshold_serves_is_refused_before_anybody_is_charged(tmp_path: Path) -> None:
    with pytest.raises(PrivacyConfigError, match="could open each other's secrets"):
        distributed_run(scenario(BY_CLIENT, min_clients=5), tmp_path)
    assert not (tmp_path / "state" / "journal.jsonl").exists()
