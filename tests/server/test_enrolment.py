"""Nodes that come late: they join between rounds, whatever was agreed for the cohort without them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from client.app import build_app
from client.ledger import Ledger
from client.policy import Policy
from client.session import Session
from client.store import by_client, encode_clients, shard
from common.config import Scenario, build_scenario
from common.errors import PrivacyConfigError, RoundError
from common.table import RowDomain
from common.units import Record
from common.work import Work, work_for
from server import exchange as exchange_module
from server import secure_sums
from server.enrolment import Enrolment
from server.exchange import Exchange
from server.rounds import Node
from server.run import FederatedRun
from simulations.engine import FIRST_NODE_ID, InProcessGrid
from simulations.federation import GivenStore

WORDS = tuple(f"word{chr(97 + i)}" for i in range(12))
DOMAIN = RowDomain(WORDS, np.arange(12, 0, -1).astype(float))
ROUNDS, SITES = 6, 4


def scenario(mode: str, **federation: object) -> Scenario:
    secure = {"secure_aggregation": "full", "max_clients": SITES} if mode == "distributed" else {}
    return build_scenario(
        {
            "task": {"family": "spectral", "dimension": 2},
            "data": {"unit": "client"},
            "privacy": {"mode": mode, "noise_multiplier": 2.0, "delta": 1e-3, "l2_clip_norm": 1.0},
            "federation": {"rounds": ROUNDS, "min_nodes": 3, "min_clients": 3, **secure, **federation},
        }
    )


class Told:
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.ok: list[int] = []

    def preparing(self, message: str) -> None:
        self.said.append(message)

    def round_finished(self, round: int, rounds: int, facts: Any) -> None:
        self.ok.append(facts["ok"])

    def done(self) -> None:
        self.said.append("done")


class LateGrid(InProcessGrid):
    """The last node is there once so many rounds are done."""

    told: Told
    comes_after = 0

    def get_node_ids(self) -> list[int]:
        known = sorted(super().get_node_ids())
        return known if len(self.told.ok) >= self.comes_after else known[:-1]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Told]:
    """Runs a scenario over four sites, one of them late; returns what was told."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(exchange_module, "time", SimpleNamespace(sleep=partial(_pass, clock)))

    def execute(which: Scenario, *, comes_after: int, policies: Sequence[Policy] = ()) -> Told:
        work, told = work_for(which, DOMAIN), Told()
        rng = np.random.default_rng(1)
        records = [Record(f"c{k}", f"c{k}", " ".join(rng.choice(WORDS, 8))) for k in range(SITES) for _ in range(5)]
        store = encode_clients(by_client(records).items(), work.family, work.options, domain=work.domain)
        ledgers = [Ledger.open(tmp_path / f"ledger{k}.sqlite") for k in range(SITES)]
        sessions = [
            Session(GivenStore(shard(store, k, SITES)), ledgers[k], (*policies, *[Policy.permissive()] * SITES)[k])
            for k in range(SITES)
        ]
        grid = LateGrid(build_app(lambda context: sessions[context.node_id - FIRST_NODE_ID]), [{}] * SITES)
        grid.told, grid.comes_after = told, comes_after
        exchange = Exchange(grid, 60.0, one_by_one=True, clock=lambda: clock.now)
        FederatedRun(work, exchange, tmp_path / "state", told).execute()
        assert grid.delivered_errors == []
        for ledger in ledgers:
            ledger.verify()
            ledger.close()
        return told

    return execute


def _pass(clock: Any, seconds: float) -> None:
    clock.now += seconds


@pytest.mark.parametrize("mode", ["local", "distributed"])
@pytest.mark.parametrize("comes_after", [1, 3])
def test_a_site_that_comes_late_is_in_every_round_from_then_on(
    run: Callable[..., Told], mode: str, comes_after: int
) -> None:
    told = run(scenario(mode), comes_after=comes_after)
    assert told.ok == [SITES - 1] * comes_after + [SITES] * (ROUNDS - comes_after)
    assert f"1 more node(s) take part from round {comes_after + 1} on" in told.said


def test_adverts_for_the_cohort_before_do_not_serve_the_new_one(
    run: Callable[..., Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    class WhateverTheyAreFor:
        def __eq__(self, other: object) -> bool:
            return True

    class Stale(secure_sums.SecureSums):
        """Takes adverts for the terms at hand, whatever they were made for."""

        _advertised = property(lambda self: WhateverTheyAreFor(), lambda self, terms: None)

    monkeypatch.setattr("server.run.SecureSums", Stale)
    with pytest.raises(RoundError, match="nothing was opened"):
        run(scenario("distributed"), comes_after=1)


def test_nobody_joins_a_run_that_has_no_room(run: Callable[..., Told]) -> None:
    told = run(scenario("distributed", max_clients=SITES - 1), comes_after=1)
    assert told.ok == [SITES - 1] * ROUNDS
    assert not [line for line in told.said if "more node" in line]


class Nodes:
    """An exchange and a delivery whose nodes say what they are told to say."""

    def __init__(self, *names: str, ready: Callable[[int, int], bool] = lambda node, times: True) -> None:
        self.names, self.ready = names, ready
        self.asked: list[int] = []

    def wait_for_nodes(self, minimum: int) -> list[int]:
        return self.newcomers([])

    def newcomers(self, known: Sequence[int]) -> list[int]:
        return [k for k in range(len(self.names)) if k not in known]

    def prepare(self, node_ids: Sequence[int], *, patience_s: float = 60.0) -> tuple[list[Node], list[str]]:
        self.asked.extend(node_ids)
        said = {n: self.ready(n, self.asked.count(n)) for n in node_ids}
        return [Node(n, 1, name=self.names[n]) for n in node_ids if said[n]], [f"no {n}" for n in said if not said[n]]


def enrolment(nodes: Nodes, work: Work) -> Enrolment:
    return Enrolment(work, nodes, nodes, Told())  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def local() -> Work:
    return work_for(scenario("local", min_nodes=1, min_clients=1), DOMAIN)


def test_one_that_refuses_is_asked_again_ever_more_rarely(local: Work) -> None:
    nodes = Nodes("a", "b", ready=lambda node, times: node == 0)
    made = enrolment(nodes, local)
    known = made.begin(1)
    asked_at = []
    for number in range(1, 40):
        before = len(nodes.asked)
        known = made.joined(known, number)
        asked_at += [number] * (len(nodes.asked) - before)
    assert asked_at == [3, 7, 15, 31]
    assert [node.name for node in known] == ["a"]


def test_one_whose_policy_lets_it_later_joins(local: Work) -> None:
    nodes = Nodes("a", "b", ready=lambda node, times: node == 0 or times == 3)
    made = enrolment(nodes, local)
    known = made.begin(1)
    for number in range(1, 10):
        known = made.joined(known, number)
    assert [node.name for node in known] == ["a", "b"]
    assert nodes.asked.count(1) == 3


def test_nobody_joins_under_the_name_of_another(local: Work) -> None:
    nodes = Nodes("a", "b", "a", ready=lambda node, times: node < 2 or times > 1)
    made = enrolment(nodes, local)
    known = made.begin(1)
    assert len(known) == 2
    assert made.joined(known, 3) == known


def test_a_node_of_many_clients_joins_only_where_all_of_them_fit() -> None:
    work = work_for(scenario("distributed", max_clients=5), DOMAIN)
    nodes = Nodes("", "", "", "", ready=lambda node, times: True)
    made = enrolment(nodes, work)
    three = [Node(n, 1) for n in range(3)]
    nodes.prepare = lambda node_ids, patience_s=60.0: ([Node(n, 3) for n in node_ids], [])  # type: ignore[method-assign, assignment]
    assert made.joined(three, 1) == three


def test_nobody_joins_where_no_threshold_would_hold() -> None:
    work = work_for(scenario("distributed", min_clients=4, max_clients=9), DOMAIN)
    six, five = ([Node(100 + n, 1) for n in range(size)] for size in (6, 5))
    assert enrolment(Nodes("a"), work).joined(six, 1) == six
    assert len(enrolment(Nodes("a"), work).joined(five, 1)) == 6


def test_a_run_begins_with_nobody_beyond_its_room() -> None:
    work = work_for(scenario("distributed", max_clients=3), DOMAIN)
    with pytest.raises(PrivacyConfigError, match="the plan is for"):
        enrolment(Nodes("a", "b", "c", "d"), work).begin(1)


@pytest.mark.parametrize(("enrolled", "joins"), [(998, True), (999, False)])
def test_nobody_joins_where_delta_would_reach_one_in_so_many(local: Work, enrolled: int, joins: bool) -> None:
    known = [Node(9, enrolled)]  # delta is 1/1000
    assert (len(enrolment(Nodes("a"), local).joined(known, 1)) == 2) is joins
