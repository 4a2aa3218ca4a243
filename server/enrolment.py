"""Who takes part in a run: nodes admit it at its beginning, and those that come later join between its rounds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from common.errors import PrivacyConfigError, RoundError, SecAggError
from common.secure_terms import neighbourhood
from common.work import Work, refuse_large_delta
from server.delivery import Delivery
from server.exchange import Exchange
from server.progress import Reporter
from server.rounds import Node


class Enrolment:
    """Asks nodes to admit the run.

    One that refuses or does not answer is asked again between later rounds, after twice as many rounds each time: an
    agent comes back, the hours of a policy begin. A node that takes part stays in the run; where it fails, Flower says
    so in every round, and it takes part again once it is back.
    """

    def __init__(self, work: Work, exchange: Exchange, delivery: Delivery, reporter: Reporter) -> None:
        self._work = work
        self._exchange = exchange
        self._delivery = delivery
        self._reporter = reporter
        self._asked: Counter[int] = Counter()
        self._not_before: dict[int, int] = {}

    def begin(self, number: int) -> list[Node]:
        """The nodes that take part from round ``number`` on, the first of this process.

        Raises:
            RoundError: too few.
            PrivacyConfigError, SecAggError: delta, or the graph of secure aggregation, is not for so many clients.
        """
        federation = self._work.scenario.federation
        node_ids = self._exchange.wait_for_nodes(federation.min_nodes)
        self._reporter.preparing(f"asking {len(node_ids)} node(s) to admit the run")
        self._note(node_ids, number)
        nodes, refusals = self._delivery.prepare(node_ids)
        self._report(refusals)
        if len(nodes) < federation.min_nodes or not any(n.clients for n in nodes):
            raise RoundError(f"only {len(nodes)} of {len(node_ids)} nodes take part: {'; '.join(refusals) or 'empty'}")
        enrolled = _clients(nodes)
        if federation.sampling == "full" and enrolled < federation.min_clients:
            raise RoundError(
                f"federation.min_clients = {federation.min_clients}, and {enrolled} clients are enrolled",
                remedy="Lower federation.min_clients, or bring more clients.",
            )
        self._refuse_unfit(enrolled)
        return nodes

    def joined(self, nodes: Sequence[Node], number: int) -> list[Node]:
        """``nodes``, and those that have come since and admit the run, before round ``number``.

        Nobody is asked, and has to reserve a run, where one client more would not fit.
        """
        found = list(nodes)
        newcomers = self._exchange.newcomers([node.node_id for node in nodes])
        due = [n for n in newcomers if self._not_before.get(n, 0) <= number]
        if not due or self._unfit(_clients(nodes) + 1):
            return found
        self._note(due, number)
        came, refusals = self._delivery.prepare(due, patience_s=0.0)
        for node in came:
            if node.name and node.name in {other.name for other in found}:
                refusals.append(f"a node answers as {node.name!r}, which another is")
            elif reason := self._unfit(_clients([*found, node])):
                refusals.append(reason)
            else:
                found.append(node)
        self._report(refusals)
        if len(found) > len(nodes):
            self._reporter.preparing(f"{len(found) - len(nodes)} more node(s) take part from round {number} on")
        return sorted(found, key=lambda n: n.node_id)

    def _note(self, node_ids: Sequence[int], number: int) -> None:
        self._asked.update(node_ids)
        self._not_before.update({n: number + 2 ** self._asked[n] for n in node_ids})

    def _report(self, refusals: Sequence[str]) -> None:
        for reason in refusals:
            self._reporter.preparing(f"a node does not take part: {reason}")

    def _unfit(self, enrolled: int) -> str:
        """Why the run is not for so many clients; empty where it is."""
        try:
            self._refuse_unfit(enrolled)
        except (PrivacyConfigError, SecAggError) as error:
            return error.message
        return ""

    def _refuse_unfit(self, enrolled: int) -> None:
        """Before anybody is charged. Raises ``PrivacyConfigError``, and ``SecAggError`` where no graph is safe."""
        plan = self._work.plan
        if plan.unit_is_client:
            refuse_large_delta(plan, enrolled)
        if plan.secure is not None and self._work.scenario.federation.sampling == "full":
            neighbourhood(plan.secure, enrolled)


def _clients(nodes: Sequence[Node]) -> int:
    return sum(node.clients for node in nodes)
