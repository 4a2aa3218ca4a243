"""One training run from a scenario to final parameters: resume, draw, exchange, release, step, checkpoint."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import ConfigError, PrivacyConfigError, RoundError
from common.families import AdditiveFamily
from common.privacy.private_sum import Released, release
from common.privacy.rng import NoiseSource
from common.table import IntArray
from common.work import Work
from server.aggregation import denominator, dense_sums, drawn_clients, noise_of_sum
from server.checkpoint import CheckpointDirectory, RunState
from server.delivery import Delivery, Question
from server.enrolment import Enrolment
from server.exchange import Exchange
from server.optimizers import MeanUpdate, apply_step
from server.progress import Reporter
from server.rounds import Node, RoundMachine, cohort_waves
from server.secure_round import Member
from server.secure_sums import SecureSums

CLIENTS_PER_MESSAGE = 1024
MOST_REPORTED = 10
_SAME_FAULTS = "Lower federation.dropout, stragglers or min_clients, or take another seed: simulated faults repeat."


@dataclass(frozen=True)
class Collected:
    """What a round brought.

    Attributes:
        released: the sum over clients.
        noise_stddev: of the noise in every number of it.
        reasons: what became of the clients, counted.
        selected: the rows that it is over, where clients vote on rows.
        losses, norms: of single clients, where the run protects nobody.
    """

    released: Released
    noise_stddev: float
    reasons: Counter[str]
    selected: IntArray | None = None
    losses: Sequence[float] = ()
    norms: Sequence[float] = ()


@dataclass(frozen=True)
class Outcome:
    """What a run ends with.

    Attributes:
        state: final parameters and public history.
        releases: rounds that count against the budget (attempts, where an attempt may have been seen).
        selections: how many of them began with votes on rows.
        clients: number of enrolled clients.
        resumed_from_round: 0 for a fresh run.
    """

    state: RunState
    releases: int
    clients: int
    resumed_from_round: int
    selections: int = 0


class FederatedRun:
    """The coordinator's loop over one scenario.

    Raises (from ``execute``):
        RoundError: too few nodes or usable replies; rerunning the same command resumes.
        PrivacyConfigError: settings whose claim would not hold.
        CheckpointError, StorageError: the output directory cannot be used, or another process works on it.
    """

    def __init__(
        self,
        work: Work,
        exchange: Exchange,
        directory: Path,
        reporter: Reporter,
        witness: Callable[[int, Released], None] = lambda number, released: None,
    ) -> None:
        """``witness`` is told the sum of every round as it left: audits look at what an adversary sees."""
        refuse_leaky_settings(work)
        self._witness = witness
        self._work = work
        self._reporter = reporter
        self._checkpoints = CheckpointDirectory(directory, work.scenario.digest)
        self._run = self._checkpoints.run_id
        self._source = NoiseSource.from_os()
        if work.plan.mode == "none" or work.plan.test_mode:
            self._source = NoiseSource.seeded_for_tests(work.scenario.seed)
        self._delivery = Delivery(work, exchange, self._run)
        self._enrolment = Enrolment(work, exchange, self._delivery, reporter)
        self._secure = SecureSums(work, self._delivery, self._run) if work.plan.mode == "distributed" else None

    def execute(self) -> Outcome:
        """Run every round that is still missing, then return."""
        with self._checkpoints.held():
            return self._executed()

    def _executed(self) -> Outcome:
        state = self._checkpoints.load() or self._initial_state()
        resumed = state.round
        rounds = self._work.scenario.federation.rounds
        nodes: list[Node] = []
        while state.round < rounds and self._affordable(state.round + 1):
            nodes = nodes or self._enrolment.begin(state.round + 1)
            nodes = self._enrolment.joined(nodes, state.round + 1)
            self._round(state, nodes)
        self._reporter.done()
        self._require_result(state)
        releases = self._releases(state)
        return Outcome(state, releases, state.history[-1]["enrolled_clients"], resumed, self._selections())

    def _initial_state(self) -> RunState:
        work = self._work
        values = work.family.initial(work.options, work.specs, work.domain, work.scenario.seed)
        return RunState(0, {n: np.array(v, dtype=np.float32) for n, v in values.items()})

    def _require_result(self, state: RunState) -> None:
        """Refuse to release what was never finished: attempts that died may have used the budget up.

        Raises:
            RoundError: no round was completed, or the last attempt was to turn an additive family's state into a table.
        """
        died = any(entry["round"] > state.round for entry in self._checkpoints.attempts())
        unfinished = state.round < self._work.scenario.federation.rounds and died
        if state.round == 0 or (unfinished and isinstance(self._work.family, AdditiveFamily)):
            raise RoundError(
                f"the budget is spent after {state.round} completed rounds, and there is nothing to release",
                remedy="Start a new run in another --out folder; what was spent stays in the clients' ledgers.",
            )

    def _releases(self, state: RunState) -> int:
        """Rounds that count: with central noise an attempt that crashed was shown to nobody but the coordinator."""
        plan = self._work.plan
        return state.round if plan.mode in ("none", "central") else max(state.round, len(self._checkpoints.attempts()))

    def _selections(self) -> int:
        """Attempts that began with votes on rows: what they showed may have been seen, also where the round failed."""
        votes = self._work.plan.votes
        return 0 if votes is None else sum(votes.selects(entry["round"]) for entry in self._checkpoints.attempts())

    def _affordable(self, number: int) -> bool:
        """Whether round ``number`` fits into the budget. Replays are free only in test mode, which claims nothing."""
        plan = self._work.plan
        if plan.mode in ("none", "central") or plan.test_mode or plan.target_epsilon is None:
            return True
        releases = len(self._checkpoints.attempts()) + 1
        if plan.votes is None or releases > plan.max_rounds():
            return releases <= plan.max_rounds()
        selections = max(plan.selections(releases), self._selections() + plan.votes.selects(number))
        return plan.epsilon("public", releases, selections) <= plan.target_epsilon

    def _round(self, state: RunState, nodes: list[Node]) -> None:
        started = time.monotonic()
        number = state.round + 1
        attempt = self._checkpoints.begin_attempt(number)
        source = self._source.derive("round", number, 0 if self._work.plan.test_mode else attempt)
        drawn = drawn_clients(self._work, nodes, source)
        collect = self._collected_securely if self._secure else self._collected
        try:
            found = collect(state, nodes, drawn, attempt=attempt, source=source)
        finally:
            self._report_refusals(number)
        self._witness(number, found.released)
        step_norm = self._apply(state, found, nodes, final=self._is_last(number))
        state.round, state.selected = number, found.selected
        seconds = time.monotonic() - started
        state.history.append(self._public_facts(found, number, step_norm, seconds, nodes))
        self._save(state)
        rounds = self._work.scenario.federation.rounds
        self._reporter.round_finished(number, rounds, {**found.reasons, "seconds": round(seconds, 3)})

    def _report_refusals(self, number: int) -> None:
        """What sites said in place of an answer: their operators have to be asked, whatever became of the round."""
        for said, times in self._delivery.refusals.most_common(MOST_REPORTED):
            self._reporter.preparing(f"round {number}: {times} node(s) answered {said}")
        self._delivery.refusals.clear()

    def _collected(
        self, state: RunState, nodes: list[Node], drawn: Mapping[int, IntArray], *, attempt: int, source: NoiseSource
    ) -> Collected:
        """Updates as they come, summed, and noised where the plan's mode has the coordinator do it."""
        number = state.round + 1
        machine = RoundMachine(self._work, self._run, number)
        config = {"round": number, "attempt": attempt}
        for wave in cohort_waves(nodes, drawn, CLIENTS_PER_MESSAGE):
            questions = [Question(node, clients, config) for node, clients in wave]
            self._delivery.ask("train.round", questions, machine, table=state)
        private_sum = machine.close()
        self._require_enough(machine, number)
        released = release(private_sum, self._work.plan, source.derive("release"))
        noise = noise_of_sum(self._work, nodes)
        return Collected(released, noise, machine.reasons, losses=machine.losses, norms=machine.norms)

    def _collected_securely(
        self, state: RunState, nodes: list[Node], drawn: Mapping[int, IntArray], *, attempt: int, source: NoiseSource
    ) -> Collected:
        """A sum that holds its noise already, from secure aggregation."""
        members = [Member(node, index) for node in nodes for index in drawn[node.node_id].tolist()]
        if self._secure is None:
            raise PrivacyConfigError(f"mode {self._work.plan.mode!r} has no secure aggregation")
        outcome = self._secure.round(state, members, attempt=attempt, last=self._is_last(state.round + 1))
        noise = self._work.plan.grid.noise_stddev(outcome.survivors)
        return Collected(outcome.released, noise, outcome.reasons, outcome.selected)

    def _save(self, state: RunState) -> None:
        server, rounds = self._work.scenario.server, self._work.scenario.federation.rounds
        if state.round % server.checkpoint_every == 0 or state.round == rounds:
            self._checkpoints.save(state)

    def _is_last(self, number: int) -> bool:
        return number == self._work.scenario.federation.rounds or not self._affordable(number + 1)

    def _require_enough(self, machine: RoundMachine, number: int) -> None:
        federation = self._work.scenario.federation
        usable = machine.reasons["ok"]
        if federation.sampling == "full" and usable < federation.min_clients:
            reasons = ", ".join(f"{k} {v}" for k, v in sorted(machine.reasons.items()))
            raise RoundError(
                f"round {number} had {usable} usable replies, {federation.min_clients} are required ({reasons})",
                remedy=_SAME_FAULTS if federation.dropout or federation.stragglers else None,
            )

    def _apply(self, state: RunState, found: Collected, nodes: list[Node], *, final: bool) -> float:
        """Turn the released sum into new parameters; returns the L2 norm of the change."""
        work, released = self._work, found.released
        if isinstance(work.family, AdditiveFamily):
            noised = dense_sums(work, released)
            new = work.family.server_step(
                state.parameters, noised, work.options, noise_stddev=found.noise_stddev, final=final
            )
            norm = float(np.sqrt(sum(float(np.sum((new[n] - v) ** 2)) for n, v in state.parameters.items())))
            state.parameters = {n: np.asarray(v, dtype=np.float32) for n, v in new.items()}
            self._delivery.changed = None
            return norm
        divisor = np.float32(denominator(work, nodes))
        means = {n: MeanUpdate(ids, values / divisor) for n, (ids, values) in released.rows.items()}
        means |= {n: MeanUpdate(None, value / divisor) for n, value in released.dense.items()}
        self._delivery.changed = apply_step(state.parameters, means, state.optimizer, work.scenario.server)
        return float(np.sqrt(sum(float(np.sum(m.values**2)) for m in means.values()))) * work.scenario.server.lr

    def _public_facts(
        self, found: Collected, number: int, step_norm: float, seconds: float, nodes: list[Node]
    ) -> dict[str, Any]:
        """What may be published of a round: nothing that depends on clients' data except the noised step itself."""
        plan = self._work.plan
        facts: dict[str, Any] = {
            "round": number,
            "step_norm": step_norm,
            "noise_stddev": plan.noise_stddev,
            "enrolled_clients": sum(n.clients for n in nodes),
        }
        if found.selected is not None:
            facts["selected_rows"] = len(found.selected)
        if plan.mode == "none":
            norms = found.norms
            facts["seconds"] = seconds  # how long clients take depends on their data
            facts["replies"] = dict(found.reasons)
            facts["update_norm_mean"] = float(np.mean(norms)) if norms else 0.0
            facts["update_norm_max"] = float(np.max(norms)) if norms else 0.0
            if found.losses:
                facts["loss"] = float(np.mean(found.losses))
            limit = self._work.scenario.privacy.l2_clip_norm
            if limit is not None and norms:
                facts["fraction_over_l2_clip_norm"] = float(np.mean(np.array(norms) > limit))
        return facts


def refuse_leaky_settings(work: Work) -> None:
    """Raise ``ConfigError`` for settings whose effect would be seen, or paid for twice, outside the guarantee."""
    federation, server = work.scenario.federation, work.scenario.server
    if work.plan.mode == "none":
        return
    if federation.sampling == "poisson" and federation.min_clients > 1 and work.plan.mode != "distributed":
        raise PrivacyConfigError(
            "min_clients with sampling = 'poisson' would reveal the size of a cohort that the guarantee keeps secret",
            remedy="Leave min_clients at 1, or use sampling = 'full'.",
        )
    if server.checkpoint_every != 1:
        raise ConfigError("checkpoint_every must be 1 in a private mode: a lost round would be released twice")
