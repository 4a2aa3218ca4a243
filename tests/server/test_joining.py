"""Sites that come late, fall silent or refuse, over a whole run: what the rounds and the ledgers then hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

from client.app import build_app
from client.ledger import Ledger
from client.policy import Policy
from client.session import Session
from client.store import by_client, encode_clients, shard
from common.config import Scenario, build_scenario
from common.errors import CheckpointError, RoundError
from common.table import RowDomain
from common.units import Record
from common.work import work_for
from server import exchange as exchange_module
from server import secure_sums
from server.checkpoint import CheckpointDirectory
from server.exchange import Exchange
from server.run import FederatedRun, Outcome
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
        self.charged: list[tuple[int, int]] = []  # of every site: rounds reserved, rounds charged
        self.outcome: Outcome | None = None
        self.then: dict[int, Callable[[], None]] = {}  # what happens once so many rounds are done
        self.sessions: list[Session] = []

    def preparing(self, message: str) -> None:
        self.said.append(message)

    def round_finished(self, round: int, rounds: int, facts: Any) -> None:
        self.ok.append(facts["ok"])
        self.then.get(round, lambda: None)()

    def done(self) -> None:
        self.said.append("done")


class LateGrid(InProcessGrid):
    """The last node is there once so many rounds are done."""

    told: Told
    comes_after = 0
    mute: tuple[int, ...] = ()  # rounds in which the last node answers reminders alone

    def get_node_ids(self) -> list[int]:
        known = sorted(super().get_node_ids())
        return known if len(self.told.ok) >= self.comes_after else known[:-1]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        return [reply for reply in super().pull_messages(message_ids) if not self._is_lost(reply)]

    def _is_lost(self, reply: Message) -> bool:
        of_last = reply.metadata.src_node_id == FIRST_NODE_ID + SITES - 1
        muted = len(self.told.ok) + 1 in self.mute
        return of_last and muted and reply.metadata.message_type in ("train.round", "train.mask")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Told]:
    """Runs a scenario over four sites, one of them late; returns what was told."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(exchange_module, "time", SimpleNamespace(sleep=partial(_pass, clock)))

    def execute(
        which: Scenario,
        *,
        comes_after: int,
        policies: Sequence[Policy] = (),
        mute: tuple[int, ...] = (),
        told: Told | None = None,
    ) -> Told:
        work, told = work_for(which, DOMAIN), told or Told()
        rng = np.random.default_rng(1)
        records = [Record(f"c{k}", f"c{k}", " ".join(rng.choice(WORDS, 8))) for k in range(SITES) for _ in range(5)]
        store = encode_clients(by_client(records).items(), work.family, work.options, domain=work.domain)
        ledgers = [Ledger.open(tmp_path / f"ledger{k}.sqlite") for k in range(SITES)]
        sessions = [
            Session(GivenStore(shard(store, k, SITES)), ledgers[k], (*policies, *[Policy.permissive()] * SITES)[k])
            for k in range(SITES)
        ]
        told.sessions = sessions
        grid = LateGrid(build_app(lambda context: sessions[context.node_id - FIRST_NODE_ID]), [{}] * SITES)
        grid.told, grid.comes_after, grid.mute = told, comes_after, mute
        exchange = Exchange(grid, 60.0, one_by_one=True, clock=lambda: clock.now)
        told.outcome = FederatedRun(work, exchange, tmp_path / "state", told).execute()
        assert grid.delivered_errors == []
        for ledger in ledgers:
            ledger.verify()
            kinds = Counter(entry.kind for entry in ledger.rows())
            told.charged.append((sum(entry.rounds or 0 for entry in ledger.rows()), kinds["charge"]))
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
    assert told.charged == [(ROUNDS, ROUNDS)] * (SITES - 1) + [(ROUNDS, ROUNDS - comes_after)]
    assert told.outcome is not None and told.outcome.clients == SITES


def test_a_site_that_refuses_is_asked_again_and_charged_nothing(run: Callable[..., Told]) -> None:
    strict = Policy.permissive().model_copy(update={"max_rounds": ROUNDS - 1})
    told = run(scenario("local"), comes_after=0, policies=[*[Policy.permissive()] * 3, strict])
    assert told.ok == [SITES - 1] * ROUNDS
    assert told.charged[-1] == (0, 0), "one that refuses has reserved nothing, however often it was asked"
    refusals = [line for line in told.said if line.startswith("a node does not take part: rounds")]
    assert len(refusals) == 2, "asked at the beginning, and before round 3; not before round 7"


def test_a_run_whose_rounds_are_done_needs_nobody_for_its_end(run: Callable[..., Told], tmp_path: Path) -> None:
    run(scenario("local"), comes_after=0)
    work, empty = work_for(scenario("local"), DOMAIN), InProcessGrid(build_app(lambda context: None), [])  # type: ignore[arg-type, return-value]
    outcome = FederatedRun(work, Exchange(empty, 1.0, one_by_one=True), tmp_path / "state", Told()).execute()
    assert (outcome.state.round, outcome.clients) == (ROUNDS, SITES)


def test_one_process_at_a_time_computes_a_run(tmp_path: Path) -> None:
    work, grid = work_for(scenario("local"), DOMAIN), InProcessGrid(build_app(lambda context: None), [])  # type: ignore[arg-type, return-value]
    with CheckpointDirectory(tmp_path / "state", work.scenario.digest).held():
        second = FederatedRun(work, Exchange(grid, 1.0, one_by_one=True), tmp_path / "state", Told())
        with pytest.raises(CheckpointError, match="another process"):
            second.execute()


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


@pytest.mark.parametrize("mode", ["local", "distributed"])
def test_a_site_that_falls_silent_holds_up_two_rounds_and_no_more(run: Callable[..., Told], mode: str) -> None:
    """Under secure aggregation it goes on to answer every other hop."""
    told = run(scenario(mode), comes_after=0, mute=(2, 3, 4, 5, 6))
    assert told.ok == [SITES, *[SITES - 1] * (ROUNDS - 1)]
    assert told.said.count("1 node(s) are left out: they are connected and do not answer") == 1
    assert told.charged[-1] == (ROUNDS, 3), "questions that it lost were asked again, and charged once"


@pytest.mark.parametrize("mode", ["local", "distributed"])
def test_what_a_site_says_in_place_of_an_answer_is_reported(run: Callable[..., Told], mode: str) -> None:
    told = Told()

    def lower() -> None:
        told.sessions[-1].policy = Policy.permissive().model_copy(update={"max_epsilon": 1e-3})

    told.then[2] = lower
    run(scenario(mode), comes_after=0, told=told)
    assert told.ok == [SITES] * 2 + [SITES - 1] * (ROUNDS - 2)
    (first, *_) = [line for line in told.said if line.startswith("round 3:")]
    assert first.startswith("round 3: 1 node(s) answered refused: budget: epsilon would rise from")
