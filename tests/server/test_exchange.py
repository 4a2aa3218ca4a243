"""The exchange between sites: what a node loses is sent again, what it is slow at is not; nothing is taken twice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import SimpleNamespace
from typing import Any

import flwr.app
import pytest
from flwr.app import Error, Message
from flwr.clientapp import ClientApp

from common import wire
from common.errors import RoundError
from server import exchange as exchange_module
from server.exchange import MOST_TIMES, SILENCE_S, Exchange
from server.rounds import run_payload
from simulations.engine import InProcessGrid

NODE = 7
Behaviour = Callable[["Grid", str, int], float | None]


class Grid:
    """Nodes that answer one message after the other, in the seconds that a behaviour says; ``None``: never, and lost.

    A behaviour is told the kind of a message and how many of this kind came before.
    """

    def __init__(self, behaviour: Behaviour, *, online: Callable[[float], bool] = lambda now: True) -> None:
        InProcessGrid(ClientApp(), [{}])  # Flower's messages want to know which task makes them
        self.now, self.behaviour, self.online = 0.0, behaviour, online
        self.free_at: dict[int, float] = {}
        self.sent: list[tuple[str, int]] = []
        self._due: dict[str, tuple[float, Message]] = {}

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def get_node_ids(self) -> list[int]:
        return [NODE] if self.online(self.now) else []

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        return [self._take(message) for message in messages]

    def _take(self, message: Message) -> str:
        kind, node, name = message.metadata.message_type, message.metadata.dst_node_id, f"m{len(self.sent)}"
        before = sum(k == kind and n == node for k, n in self.sent)
        self.sent.append((kind, node))
        message.metadata.__dict__["_message_id"] = name
        if not self.online(self.now):
            self._due[name] = (self.now, Message(Error(5), reply_to=message))
        elif (seconds := self.behaviour(self, kind, before)) is not None:
            self.free_at[node] = max(self.now, self.free_at.get(node, 0.0)) + seconds
            reply = wire.pack(run_payload("run", {"status": "done", "copy": before}, {}), flwr.app)
            self._due[name] = (self.free_at[node], Message(reply, reply_to=message))
        return name

    def pull_messages(self, names: Sequence[str]) -> list[Message]:
        ready = [name for name in names if name in self._due and self._due[name][0] <= self.now]
        return [self._due.pop(name)[1] for name in ready]

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.sent]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    def ask(grid: Grid, *, timeout_s: float = 3600.0, one_by_one: bool = True) -> Any:
        monkeypatch.setattr(exchange_module, "time", SimpleNamespace(sleep=grid.sleep, monotonic=lambda: grid.now))
        made = Exchange(grid, timeout_s, one_by_one=one_by_one, clock=lambda: grid.now)  # type: ignore[arg-type]
        ((index, reply),) = made.send("train.round", [(NODE, run_payload("run", {}, {}))])
        assert index == 0
        return reply

    return ask


def lost_first(copies: int) -> Behaviour:
    """A node that loses so many copies of the question, and answers everything else at once."""
    return lambda grid, kind, before: None if kind == "train.round" and before < copies else 1.0


def test_a_quick_node_is_asked_once(asked: Callable[..., Any]) -> None:
    grid = Grid(lambda *_: 7.0)
    assert asked(grid).config["status"] == "done"
    assert grid.kinds() == ["train.round"]


def test_a_slow_node_gets_one_reminder_and_no_second_copy(asked: Callable[..., Any]) -> None:
    grid = Grid(lambda grid, kind, before: 3000.0 if kind == "train.round" else 0.1)
    assert asked(grid).config["copy"] == 0
    assert grid.kinds() == ["train.round", "query.present"]


def test_what_a_node_has_lost_is_sent_again(asked: Callable[..., Any]) -> None:
    grid = Grid(lost_first(1))
    assert asked(grid).config["copy"] == 1
    assert grid.kinds() == ["train.round", "query.present", "query.present", "train.round"]
    assert grid.now < SILENCE_S + 10


def test_what_a_node_loses_every_time_is_lost(asked: Callable[..., Any]) -> None:
    grid = Grid(lost_first(1000))
    assert asked(grid) == "lost"
    assert grid.kinds().count("train.round") == MOST_TIMES
    assert grid.now < (SILENCE_S + 10) * MOST_TIMES


def test_a_node_that_is_gone_is_told_of_by_flower(asked: Callable[..., Any]) -> None:
    assert asked(Grid(lambda *_: 1.0, online=lambda now: False)) == "node_unavailable"


def test_nodes_that_do_not_answer_in_order_are_never_reminded(asked: Callable[..., Any]) -> None:
    grid = Grid(lost_first(1))
    assert asked(grid, one_by_one=False, timeout_s=600.0) == "no_reply"
    assert grid.kinds() == ["train.round"]


def test_a_node_that_never_answers_anything_is_waited_for_until_the_timeout(asked: Callable[..., Any]) -> None:
    grid = Grid(lambda *_: None)
    assert asked(grid, timeout_s=600.0) == "no_reply"
    assert grid.kinds() == ["train.round", "query.present"]


def test_nodes_whose_keys_were_revoked_are_told_of_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower keeps no message for a node that it does not know, and gives none a name: two share the empty one."""
    grid = Grid(lambda *_: 1.0)
    monkeypatch.setattr(exchange_module, "time", SimpleNamespace(sleep=grid.sleep))
    take = grid._take
    monkeypatch.setattr(grid, "_take", lambda m: "" if m.metadata.dst_node_id != NODE else take(m))
    made = Exchange(grid, 3600.0, one_by_one=True, clock=lambda: grid.now)  # type: ignore[arg-type]
    asked = [(node, run_payload("run", {}, {})) for node in (1, 2, NODE)]
    replies = dict(made.send("train.round", asked))
    assert [replies[0], replies[1]] == ["node_unavailable"] * 2
    assert not isinstance(replies[2], str)
    assert grid.now < 10


def test_a_node_revoked_while_it_is_asked_is_told_of_by_its_reminder(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = Grid(lambda *_: None)
    monkeypatch.setattr(exchange_module, "time", SimpleNamespace(sleep=grid.sleep))
    take = grid._take
    monkeypatch.setattr(grid, "_take", lambda m: "" if m.metadata.message_type == "query.present" else take(m))
    made = Exchange(grid, 3600.0, one_by_one=True, clock=lambda: grid.now)  # type: ignore[arg-type]
    assert dict(made.send("train.round", [(NODE, run_payload("run", {}, {}))])) == {0: "node_unavailable"}
    assert grid.now < SILENCE_S + 10


def test_an_answer_that_was_only_slow_counts_once_though_both_copies_come(asked: Callable[..., Any]) -> None:
    """The question was asked again, and then both copies are answered."""

    class Late(Grid):
        def _take(self, message: Message) -> str:
            name = super()._take(message)
            if message.metadata.message_type == "train.round" and self.kinds().count("train.round") == 1:
                reply = wire.pack(run_payload("run", {"status": "done", "copy": 0}, {}), flwr.app)
                self._due[name] = (SILENCE_S + 3.0, Message(reply, reply_to=message))
            return name

    grid = Late(lambda grid, kind, before: 0.1)
    assert asked(grid).config["status"] == "done"
    assert grid.kinds().count("train.round") == 2


def test_an_answer_can_be_waited_for_less_long(monkeypatch: pytest.MonkeyPatch) -> None:
    for timeout_s, waited_s in ((20.0, 20.0), (None, 600.0), (9e9, 600.0)):
        grid = Grid(lambda *_: None)
        monkeypatch.setattr(exchange_module, "time", SimpleNamespace(sleep=grid.sleep))
        made = Exchange(grid, 600.0, one_by_one=True, clock=lambda grid=grid: grid.now)  # type: ignore[arg-type, misc]
        question = [(NODE, run_payload("run", {}, {}))]
        assert dict(made.send("query.prepare", question, timeout_s=timeout_s)) == {0: "no_reply"}
        assert grid.now == pytest.approx(waited_s, abs=1.0)


def test_the_nodes_that_are_back_are_known_once_all_are(monkeypatch: pytest.MonkeyPatch) -> None:
    for away_s, waited_s in ((20.0, 20.0), (1e9, 60.0)):
        grid = Grid(lambda *_: 1.0, online=lambda now, away_s=away_s: now >= away_s)  # type: ignore[misc]
        monkeypatch.setattr(exchange_module, "time", SimpleNamespace(sleep=grid.sleep))
        made = Exchange(grid, 3600.0, clock=lambda grid=grid: grid.now)  # type: ignore[arg-type, misc]
        assert made.back([NODE], 60.0) == ([NODE] if away_s < 60 else [])
        assert waited_s <= grid.now <= waited_s + 1


@pytest.mark.parametrize(("one_by_one", "found", "seconds"), [(True, 4, 18.0), (False, 3, 0.0)])
def test_sites_that_come_one_after_the_other_are_all_waited_for(
    monkeypatch: pytest.MonkeyPatch, one_by_one: bool, found: int, seconds: float
) -> None:
    grid = Grid(lambda *_: 1.0)
    monkeypatch.setattr(grid, "get_node_ids", lambda: [1, 2, 3] + ([4] if grid.now >= 8.0 else []))
    monkeypatch.setattr(exchange_module, "time", SimpleNamespace(sleep=grid.sleep))
    made = Exchange(grid, 60.0, one_by_one=one_by_one, clock=lambda: grid.now)  # type: ignore[arg-type]
    assert len(made.wait_for_nodes(3)) == found
    assert grid.now == pytest.approx(seconds, abs=1.0)


def test_too_few_sites_are_an_error_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = Grid(lambda *_: 1.0)
    monkeypatch.setattr(exchange_module, "time", SimpleNamespace(sleep=grid.sleep))
    with pytest.raises(RoundError, match="1 of 2"):
        Exchange(grid, 30.0, one_by_one=True, clock=lambda: grid.now).wait_for_nodes(2)  # type: ignore[arg-type]
    assert grid.now == pytest.approx(30.0, abs=2.0)
