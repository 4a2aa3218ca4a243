"""Who is asked to take part in a run: no more than fit, ever more rarely, and nobody under another's name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from common.errors import RoundError
from common.work import Work, work_for
from server.delivery import _node_of
from server.enrolment import JOIN_TIMEOUT_S, MOST_SILENT, Enrolment
from server.rounds import Node, run_payload
from tests.server.test_joining import DOMAIN, Told, scenario


class Nodes:
    """An exchange and a delivery whose nodes say what they are told to say."""

    between_sites = True

    def __init__(
        self,
        *names: str,
        ready: Callable[[int, int], bool] = lambda node, times: True,
        there: Sequence[int] | None = None,
    ) -> None:
        self.names, self.ready = names, ready
        self.there = list(range(len(names)) if there is None else there)
        self.asked: list[int] = []
        self.waited: list[float | None] = []

    def wait_for_nodes(self, minimum: int) -> list[int]:
        return self.connected()

    def connected(self) -> list[int]:
        return list(self.there)

    def prepare(
        self, node_ids: Sequence[int], *, patience_s: float = 60.0, timeout_s: float | None = None
    ) -> tuple[list[Node], list[str]]:
        self.asked.extend(node_ids)
        self.waited += [timeout_s] if patience_s == 0 else [None]
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
    assert nodes.waited == [None, *[JOIN_TIMEOUT_S] * 4], "the others do not wait for a newcomer as for a round"


def test_one_whose_policy_lets_it_later_joins(local: Work) -> None:
    nodes = Nodes("a", "b", ready=lambda node, times: node == 0 or times == 3)
    made = enrolment(nodes, local)
    known = made.begin(1)
    for number in range(1, 10):
        known = made.joined(known, number)
    assert [node.name for node in known] == ["a", "b"]
    assert nodes.asked.count(1) == 3


def test_a_node_that_is_connected_and_silent_is_left_out_and_asked_later(local: Work) -> None:
    nodes = Nodes("a", "b")
    made = enrolment(nodes, local)
    known = made.begin(1)
    known[1].silent, known[1].unanswered = MOST_SILENT - 1, False
    assert made.joined(known, 2) == known
    for _ in range(MOST_SILENT - 1):
        known[1].unanswered = True
        assert made.joined(known, 2) == known
    known[1].unanswered = True
    left = made.joined(known, 3)
    assert [node.name for node in left] == ["a"]
    assert [len(made.joined(left, number)) for number in (4, 5, 6, 7)] == [1, 1, 1, 2]


@pytest.mark.parametrize("mode", ["local", "distributed"])
@pytest.mark.parametrize(("sites", "left"), [(3, 3), (4, 3)])
def test_nobody_is_left_out_who_is_needed(mode: str, sites: int, left: int) -> None:
    work = work_for(scenario(mode), DOMAIN)
    known = [Node(n, 1, silent=MOST_SILENT, unanswered=n == 2) for n in range(sites)]
    assert len(enrolment(Nodes("a", "b", "c", "d"), work).joined(known, 5)) == left + (sites == 3)


def test_nobody_joins_under_the_name_of_another(local: Work) -> None:
    nodes = Nodes("a", "b", "a", ready=lambda node, times: node < 2 or times > 1)
    made = enrolment(nodes, local)
    known = made.begin(1)
    assert len(known) == 2
    assert made.joined(known, 3) == known
    assert nodes.asked.count(2) == 2


def test_a_site_with_new_keys_takes_the_place_of_its_old_self(local: Work) -> None:
    nodes = Nodes("a", "b", "a", ready=lambda node, times: node < 2 or times > 1)
    made = enrolment(nodes, local)
    known = made.begin(1)
    nodes.there.remove(0)
    assert [(node.node_id, node.name) for node in made.joined(known, 3)] == [(1, "b"), (2, "a")]


def test_no_more_newcomers_are_asked_than_fit() -> None:
    work = work_for(scenario("distributed"), DOMAIN)
    nodes = Nodes("a", "b", "c", "d", "e")
    known = [Node(n, 1, name=nodes.names[n]) for n in range(3)]
    assert [node.node_id for node in enrolment(nodes, work).joined(known, 1)] == [0, 1, 2, 3]
    assert nodes.asked == [3]


def test_nobody_joins_where_no_threshold_would_hold() -> None:
    work = work_for(scenario("distributed", min_clients=4, max_clients=9), DOMAIN)
    for enrolled, asked in ((6, 0), (5, 1)):
        known = [Node(100 + n, 1) for n in range(enrolled)]
        nodes = Nodes("a", there=[0, *range(100, 100 + enrolled)])
        assert len(enrolment(nodes, work).joined(known, 1)) == enrolled + asked
        assert len(nodes.asked) == asked


def test_a_run_begins_with_as_many_as_fit() -> None:
    work = work_for(scenario("distributed", max_clients=3), DOMAIN)
    nodes = Nodes("a", "b", "c", "d")
    assert len(enrolment(nodes, work).begin(1)) == 3
    assert nodes.asked == [0, 1, 2]


def test_a_run_that_is_for_nobody_who_is_there_says_so() -> None:
    work = work_for(scenario("distributed", min_clients=4, min_nodes=2, max_clients=9), DOMAIN)
    nodes = Nodes("a", "b", "c")
    with pytest.raises(RoundError, match="3 clients are enrolled"):
        enrolment(nodes, work).begin(1)
    assert nodes.asked == [], "nobody reserves a run that cannot begin"


def test_who_refuses_at_the_beginning_gives_its_seat_to_another() -> None:
    work = work_for(scenario("distributed", max_clients=3), DOMAIN)
    nodes = Nodes("a", "b", "c", "d", ready=lambda node, times: node != 0)
    assert [node.node_id for node in enrolment(nodes, work).begin(1)] == [1, 2, 3]
    assert nodes.asked == [0, 1, 2, 3]


def test_a_run_that_too_few_want_says_why() -> None:
    work = work_for(scenario("distributed", max_clients=3), DOMAIN)
    nodes = Nodes("a", "b", "c", "d", ready=lambda node, times: node > 1)
    with pytest.raises(RoundError, match="only 1 of 4 nodes take part: no 0; no 1"):
        enrolment(nodes, work).begin(1)


def test_who_is_gone_gives_its_seat_to_who_is_there() -> None:
    work = work_for(scenario("distributed"), DOMAIN)
    nodes = Nodes("a", "b", "c", "d", "e")
    known = [Node(n, 1, name=nodes.names[n]) for n in range(4)]
    assert enrolment(nodes, work).joined(known, 1) == known
    nodes.there.remove(1)
    assert [node.node_id for node in enrolment(nodes, work).joined(known, 1)] == [0, 2, 3, 4]
    nodes.there.remove(4)
    assert enrolment(nodes, work).joined(known, 1) == known, "without anybody for its seat it keeps it"


def test_cohorts_drawn_by_chance_are_not_filled_beyond_their_size() -> None:
    poisson = {"sampling": "poisson", "rate": 0.5, "min_clients": 3, "max_clients": 12, "min_nodes": 1}
    work = work_for(scenario("distributed", **poisson), DOMAIN)
    joined = {}
    for enrolled in (5, 11, 12, 40):
        nodes = Nodes("a", there=[0, 9])
        joined[enrolled] = len(enrolment(nodes, work).joined([Node(9, enrolled)], 1)) == 2
        assert len(nodes.asked) == joined[enrolled]
    assert joined == {5: True, 11: True, 12: False, 40: False}


@pytest.mark.parametrize(("enrolled", "joins"), [(998, True), (999, False)])
def test_nobody_joins_where_delta_would_reach_one_in_so_many(local: Work, enrolled: int, joins: bool) -> None:
    known, nodes = [Node(9, enrolled)], Nodes("a", there=[0, 9])  # delta is 1/1000
    assert (len(enrolment(nodes, local).joined(known, 1)) == 2) is joins
    assert len(nodes.asked) == joins


def test_the_nodes_of_a_simulation_stay_as_they_are(local: Work) -> None:
    nodes = Nodes("a", "b")
    nodes.between_sites = False
    known = [Node(0, 5, silent=9, unanswered=True)]
    assert enrolment(nodes, local).joined(known, 1) == known
    assert nodes.asked == []


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        ({"clients": 1}, None),
        ({"clients": 1, "name": "north"}, None),
        ({"clients": 0}, None),
        ({"clients": 2}, "answers for 2 clients"),
        ({"clients": 2**40}, "answers for"),
        ({"clients": 2, "name": "north"}, "answers for 2 clients"),
        ({"clients": 0, "name": "north"}, "answers for 0 clients"),
        ({"clients": "many"}, "malformed"),
        ({}, "malformed"),
        ({"clients": 1, "name": "1003.0"}, "calls itself '1003.0'"),
    ],
)
def test_a_site_is_one_client_and_says_so(says: dict[str, Any], reason: str | None) -> None:
    """Two shares of noise known to one site are one party less to hide behind than is accounted."""
    reply = run_payload("run", {"status": "ready", **says}, {})
    found = _node_of(7, reply, sites=True)
    assert (reason in found) if reason and isinstance(found, str) else reason is None and isinstance(found, Node)


def test_a_node_of_a_simulation_hosts_many() -> None:
    found = _node_of(7, run_payload("run", {"status": "ready", "clients": 500}, {}), sites=False)
    assert isinstance(found, Node) and found.clients == 500
