"""Who takes part in a run: nodes admit it at its beginning, and those that come later join between its rounds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from scipy.stats import binom

from common.errors import PrivacyConfigError, RoundError, SecAggError
from common.secure_terms import neighbourhood
from common.work import Work, refuse_large_delta
from server.delivery import Delivery
from server.exchange import Exchange
from server.progress import Reporter
from server.rounds import Node

JOIN_TIMEOUT_S = 60.0  # the others wait meanwhile; who takes longer is asked again, with its data encoded by then
MOST_SILENT = 2
MOST_OVERFULL = 1e-6  # chance of a round whose cohort is too large, which ends a run


class Enrolment:
    """Asks nodes to admit the run.

    Between sites, one that refuses, or does not answer, is asked again between later rounds, after twice as many
    rounds each time: an agent comes back, the hours of a policy begin. A node that takes part stays in the run. Where
    Flower says that it is gone it is left out of the round at once; one that is connected and silent would hold up
    every round for the whole timeout, and is taken out after ``MOST_SILENT`` rounds, to be asked like a newcomer.
    """

    def __init__(self, work: Work, exchange: Exchange, delivery: Delivery, reporter: Reporter) -> None:
        self._work = work
        self._exchange = exchange
        self._delivery = delivery
        self._reporter = reporter
        self._times: Counter[int] = Counter()
        self._not_before: dict[int, int] = {}

    def begin(self, number: int) -> list[Node]:
        """The nodes that take part from round ``number`` on, the first of this process.

        Raises:
            RoundError: too few.
            PrivacyConfigError, SecAggError: delta, or the graph of secure aggregation, is not for so many clients.
        """
        there = self._exchange.wait_for_nodes(self._work.scenario.federation.min_nodes)
        if self._exchange.between_sites and not self._seats(0, len(there)):
            self._require_clients(len(there))
            self._refuse_unfit(len(there))
        self._reporter.preparing(f"asking {len(there)} node(s) to admit the run")
        nodes: list[Node] = []
        refusals: list[str] = []
        rest = there
        while asked := self._to_ask(nodes, rest):
            rest = rest[len(asked) :]
            nodes = self._enrolled(nodes, asked, number, refusals)
        self._require_enough(nodes, f"of {len(there)} nodes take part: {'; '.join(refusals) or 'empty'}")
        self._refuse_unfit(_clients(nodes))
        return nodes

    def _to_ask(self, nodes: Sequence[Node], rest: list[int]) -> list[int]:
        """Those of ``rest`` to ask next: a site is one client, and no more are asked than fit."""
        return rest[: self._seats(_clients(nodes), len(rest))] if self._exchange.between_sites else rest

    def _require_enough(self, nodes: Sequence[Node], told: str) -> None:
        if len(nodes) < self._work.scenario.federation.min_nodes or not any(n.clients for n in nodes):
            raise RoundError(f"only {len(nodes)} {told}")
        self._require_clients(_clients(nodes))

    def _require_clients(self, enrolled: int) -> None:
        federation = self._work.scenario.federation
        if federation.sampling == "full" and enrolled < federation.min_clients:
            raise RoundError(
                f"federation.min_clients = {federation.min_clients}, and {enrolled} clients are enrolled",
                remedy="Lower federation.min_clients, or bring more clients.",
            )

    def joined(self, nodes: Sequence[Node], number: int) -> list[Node]:
        """``nodes``, and the sites that have come since and admit the run, before round ``number``.

        No more are asked, and reserve a run, than fit. Who is gone gives its seat to who is there.
        """
        if not self._exchange.between_sites:
            return list(nodes)
        found, connected = self._without_silent(nodes, number), self._exchange.connected()
        known = {node.node_id for node in found}
        due = [n for n in connected if n not in known and self._not_before.get(n, 0) <= number]
        present = [node for node in found if node.node_id in connected]
        seats = self._seats(_clients(found), len(due))
        if due and not seats and (seats := self._seats(_clients(present), len(due))):
            found = present
        if not seats:
            return found
        found = self._enrolled(found, due[:seats], number, [], patience_s=0.0, timeout_s=JOIN_TIMEOUT_S)
        more = {node.node_id for node in found} - known
        if more:
            self._reporter.preparing(f"{len(more)} more node(s) take part from round {number} on")
        return found

    def _enrolled(
        self, found: Sequence[Node], node_ids: Sequence[int], number: int, refusals: list[str], **waiting: float
    ) -> list[Node]:
        """``found``, and those of ``node_ids`` that admit the run; the reasons of the others are added to ``refusals``.

        Args:
            waiting: of ``Delivery.prepare``.
        """
        self._note(node_ids, number)
        came, reasons = self._delivery.prepare(node_ids, **waiting)
        connected, known = self._exchange.connected(), list(found)
        for node in came:
            namesakes = [other for other in known if node.name and other.name == node.name]
            if any(other.node_id in connected for other in namesakes):
                reasons.append(f"a node answers as {node.name!r}, which another is")
            else:  # under the name of one that is gone: a site with new keys
                known = [*(other for other in known if other not in namesakes), node]
        for reason in reasons:
            self._reporter.preparing(f"a node does not take part: {reason}")
        refusals += reasons
        return sorted(known, key=lambda n: n.node_id)

    def _without_silent(self, nodes: Sequence[Node], number: int) -> list[Node]:
        """``nodes`` without those that hold rounds up, where enough are left."""
        for node in nodes:
            node.silent, node.unanswered = node.silent + 1 if node.unanswered else 0, False
        silent = [node for node in nodes if node.silent >= MOST_SILENT]
        left = [node for node in nodes if node not in silent]
        least = self._work.scenario.federation.min_nodes
        if not silent or len(left) < least or self._unfit(_clients(left)):
            return list(nodes)
        self._note([node.node_id for node in silent], number)
        self._reporter.preparing(f"{len(silent)} node(s) are left out: they are connected and do not answer")
        return left

    def _seats(self, enrolled: int, wanted: int) -> int:
        """How many clients more, of those that want to, the run is for; 0 where it is for none of these numbers."""
        return next((more for more in range(wanted, 0, -1) if not self._unfit(enrolled + more)), 0)

    def _note(self, node_ids: Sequence[int], number: int) -> None:
        self._times.update(node_ids)
        self._not_before.update({n: number + 2 ** self._times[n] for n in node_ids})

    def _unfit(self, enrolled: int) -> str:
        """Why the run is not for so many clients; empty where it is."""
        federation, secure = self._work.scenario.federation, self._work.plan.secure
        try:
            self._refuse_unfit(enrolled)
        except (PrivacyConfigError, SecAggError) as error:
            return error.message
        if secure is not None and federation.sampling == "poisson":
            odds = float(binom.sf(secure.max_clients, enrolled, federation.rate))
            return "" if odds < MOST_OVERFULL else f"a cohort of {enrolled} clients would exceed max_clients too often"
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
