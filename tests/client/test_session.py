"""A node's part: what it refuses, and that spend is durable before anything is computed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import client.session as session_module
from client.answers import failure_reply
from client.ledger import Ledger
from client.policy import Policy
from client.session import Session
from client.store import by_client, encode_clients
from common import wire
from common.config import Scenario, build_scenario
from common.errors import ConfigError, DataError, LedgerError, WireError
from common.table import RowDomain
from common.units import ClientStore, Record
from common.work import Work, work_for

DOMAIN = RowDomain(("wa", "wb", "wc", "wd"))
LOCAL = {"mode": "local", "noise_multiplier": 4.0, "l2_clip_norm": 1.0, "delta": 1e-5}


def scenario(**sections: object) -> Scenario:
    base = {"task": {"family": "word2vec", "dimension": 2}, "data": {"unit": "client"}, "privacy": LOCAL}
    return build_scenario({**base, "federation": {"rounds": 2}, **sections})


class Given:
    """Two clients; the second account is opened under another name."""

    def __init__(self, work: Work) -> None:
        records = [Record(f"c{k}", f"c{k}", "wa wb wc wd wa wb") for k in range(2) for _ in range(3)]
        self.clients = encode_clients(by_client(records).items(), work.family, work.options, domain=DOMAIN)

    def store(self, scenario: Scenario, domain: RowDomain | None) -> ClientStore:
        return self.clients

    def fingerprints(self, store: ClientStore) -> tuple[str, ...]:
        return ("account-0", "account-1")


def payload(which: Scenario, config: dict[str, object], arrays: dict[str, np.ndarray] | None = None) -> wire.Payload:
    return wire.Payload({"protocol": wire.PROTOCOL, "run": "r", **config}, arrays or {})


def preparation(which: Scenario) -> wire.Payload:
    domain = wire.encode_domain(DOMAIN)
    config = {"scenario": which.canonical_json(), "coordinator": "somebody", **domain.config}
    return payload(which, config, dict(domain.arrays))


def instruction(which: Scenario, *, round_number: int = 1, attempt: int = 1, clients: tuple[int, ...] = (0, 1)):
    work = work_for(which, DOMAIN)
    arrays = wire.encode_parameters(work.family.initial(work.options, work.specs, DOMAIN, 0), None)
    config = {"round": round_number, "attempt": attempt, "version": round_number - 1, "base_version": -1}
    return payload(which, config, {**arrays, "clients": np.array(clients, np.int64)})


def session(tmp_path: Path, which: Scenario, policy: Policy | None = None) -> Session:
    ledger = Ledger.open(tmp_path / "ledger.sqlite")
    return Session(Given(work_for(which, DOMAIN)), ledger, policy or Policy.permissive())


def test_a_round_is_computed_and_charged(tmp_path: Path) -> None:
    which = scenario()
    node = session(tmp_path, which)
    assert node.prepare(preparation(which)).config["status"] == "ready"
    reply = node.train(instruction(which))
    assert reply.config["status"] == "done"
    batch = wire.decode_updates(reply, work_for(which, DOMAIN).update_specs, 2)
    assert all(len(table.ids) == 2 * len(DOMAIN) for table in batch.rows.values()), "noise is on every row"
    assert node.ledger.spent("account-0", "client").total() == 2


def test_a_replayed_attempt_computes_nothing(tmp_path: Path) -> None:
    """A second noised answer to the same question would halve the noise."""
    which = scenario()
    node = session(tmp_path, which)
    node.prepare(preparation(which))
    node.train(instruction(which))
    with pytest.raises(LedgerError, match="replay"):
        node.train(instruction(which))
    with pytest.raises(LedgerError, match="replay"):
        node.train(instruction(which, clients=(1,)))


def test_the_charge_is_on_disk_before_the_computation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    which = scenario()
    node = session(tmp_path, which)
    node.prepare(preparation(which))

    def dies(*_: object, **__: object) -> None:
        with Ledger.open(tmp_path / "ledger.sqlite", create=False) as other:
            assert [charges for _, charges in other.accounts()] == [1, 1]
        raise KeyboardInterrupt

    monkeypatch.setattr(session_module, "client_updates", dies)
    with pytest.raises(KeyboardInterrupt):
        node.train(instruction(which))


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        ({"modes": ("example",)}, "mode"),
        ({"families": ("spectral",)}, "family"),
        ({"units": ("sentence",)}, "unit"),
        ({"max_rounds": 1}, "rounds"),
        ({"max_delta": 1e-7}, "delta"),
        ({"max_epsilon": 0.5}, "epsilon"),
    ],
)
def test_the_policy_refuses_before_anything_is_reserved(tmp_path: Path, limits: dict, code: str) -> None:  # type: ignore[type-arg]
    which = scenario()
    node = session(tmp_path, which, Policy.permissive().model_copy(update=limits))
    reply = node.prepare(preparation(which))
    assert (reply.config["status"], reply.config["code"]) == ("refused", code)
    assert list(node.ledger.accounts()) == []


def test_earlier_runs_count_against_the_limit(tmp_path: Path) -> None:
    which = scenario()
    alone = work_for(which, DOMAIN).plan.epsilon("public")
    policy = Policy.permissive().model_copy(update={"max_epsilon": alone * 1.2})
    node = session(tmp_path, which, policy)
    assert node.prepare(preparation(which)).config["status"] == "ready"
    second = preparation(which)
    reply = node.prepare(wire.Payload({**second.config, "run": "another"}, second.arrays))
    assert (reply.config["status"], reply.config["code"]) == ("refused", "budget")


@pytest.mark.parametrize("order", [[(1, 3), (2, 7), (1, 1), (2, 1)], [(2, 2), (1, 2), (1, 1), (2, 1), (1, 5)]])
def test_no_order_of_attempts_goes_over_the_limit(tmp_path: Path, order: list[tuple[int, int]]) -> None:
    which = scenario()
    alone = work_for(which, DOMAIN).plan.epsilon("public")
    node = session(tmp_path, which, Policy.permissive().model_copy(update={"max_epsilon": alone * 1.01}))
    node.prepare(preparation(which))
    outcomes = [node.train(instruction(which, round_number=r, attempt=a)).config["status"] for r, a in order]
    assert outcomes == ["done", "done"] + ["refused"] * (len(order) - 2)


def test_preparing_again_costs_nothing_under_a_tight_limit(tmp_path: Path) -> None:
    """A coordinator that died asks again: its own reservation must not refuse it."""
    which = scenario()
    alone = work_for(which, DOMAIN).plan.epsilon("public")
    node = session(tmp_path, which, Policy.permissive().model_copy(update={"max_epsilon": alone * 1.01}))
    assert [node.prepare(preparation(which)).config["status"] for _ in range(3)] == ["ready"] * 3
    assert node.train(instruction(which)).config["status"] == "done"


def test_other_terms_under_the_same_run_are_another_account(tmp_path: Path) -> None:
    """Prepared with much noise, then with little: the answers must not be charged to the cheap account."""
    cheap = scenario(privacy={**LOCAL, "noise_multiplier": 40.0})
    dear = scenario()
    limit = work_for(dear, DOMAIN).plan.epsilon("public") * 0.9
    node = session(tmp_path, cheap, Policy.permissive().model_copy(update={"max_epsilon": limit}))
    node.prepare(preparation(cheap))
    assert node.prepare(preparation(dear)).config["status"] == "refused"
    assert node.admitted is not None
    assert node.admitted.work.plan.noise_multiplier == 40.0
    node.policy = Policy.permissive()
    node.prepare(preparation(dear))
    node.train(instruction(dear))
    assert node.ledger.epsilon("account-0", "client", 1e-5) > limit


def test_a_device_that_is_not_there_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    which = scenario(training={"device": "cuda"})
    node = session(tmp_path, which)
    node.prepare(preparation(which))
    with pytest.raises(ConfigError, match="no usable GPU"):
        node.train(instruction(which))
    assert [charges for _, charges in node.ledger.accounts()] == [0, 0]


def test_test_mode_needs_the_policys_permission_and_is_booked_as_unprotected(tmp_path: Path) -> None:
    which = scenario(privacy={**LOCAL, "test_mode": True})
    node = session(tmp_path, which, Policy.permissive().model_copy(update={"test_mode": False}))
    reply = node.prepare(preparation(which))
    assert (reply.config["status"], reply.config["code"]) == ("refused", "test_mode")
    node.policy = Policy.permissive()
    assert node.prepare(preparation(which)).config["status"] == "ready"
    assert node.ledger.epsilon("account-0", "client", 1e-5) == float("inf")


def test_a_message_over_the_limit_is_refused(tmp_path: Path) -> None:
    which = scenario()
    node = session(tmp_path, which, Policy.permissive().model_copy(update={"max_message_bytes": 1}))
    assert node.prepare(preparation(which)).config["code"] == "message_bytes"


def test_a_lowered_limit_holds_for_a_run_taken_up_again(tmp_path: Path) -> None:
    which = scenario()
    first = session(tmp_path, which)
    first.state_dir = tmp_path
    first.prepare(preparation(which))
    second = session(tmp_path, which, Policy.permissive().model_copy(update={"max_epsilon": 0.5}))
    second.state_dir = tmp_path
    assert second.train(instruction(which)).config["status"] == "refused"


def test_repeated_attempts_cannot_go_over_the_limit(tmp_path: Path) -> None:
    which = scenario()
    alone = work_for(which, DOMAIN).plan.epsilon("public")
    node = session(tmp_path, which, Policy.permissive().model_copy(update={"max_epsilon": alone * 1.01}))
    node.prepare(preparation(which))
    outcomes = [node.train(instruction(which, attempt=a)).config["status"] for a in range(1, 5)]
    assert outcomes == ["done", "done", "refused", "refused"]


@pytest.mark.parametrize(
    "change",
    [
        {"round_number": 3},
        {"round_number": 0},
        {"attempt": 0},
        {"attempt": -1},
        {"clients": (0, 5)},
        {"clients": (0, 0)},
        {"clients": (-1,)},
    ],
)
def test_impossible_instructions_are_refused_and_cost_nothing(tmp_path: Path, change: dict) -> None:  # type: ignore[type-arg]
    which = scenario()
    node = session(tmp_path, which)
    node.prepare(preparation(which))
    with pytest.raises(WireError):
        node.train(instruction(which, **change))
    assert [charges for _, charges in node.ledger.accounts()] == [0, 0]


def test_a_run_that_was_not_admitted_is_not_computed(tmp_path: Path) -> None:
    which = scenario()
    assert session(tmp_path, which).train(instruction(which)).config["status"] == "unprepared"


def test_a_site_takes_up_its_run_in_a_new_process(tmp_path: Path) -> None:
    which = scenario()
    first, second = session(tmp_path, which), session(tmp_path, which)
    first.state_dir = second.state_dir = tmp_path
    first.prepare(preparation(which))
    assert second.train(instruction(which)).config["status"] == "done"
    with pytest.raises(LedgerError, match="replay"):
        first.train(instruction(which))


@pytest.mark.parametrize("error", [MemoryError("shape (12000,)"), KeyError("12000"), DataError("line 12000")])
def test_the_text_of_an_error_that_may_speak_of_the_data_stays_at_home(error: Exception) -> None:
    reply = failure_reply("run", error)
    assert reply.config["status"] == "failed" and "12000" not in str(reply.config) + str(reply.arrays)
    assert "12000" in str(failure_reply("run", ConfigError("rounds = 12000")).config)  # public: the coordinator's own
