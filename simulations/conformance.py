"""Conformance of a scenario: T1 to T5 on the mechanism that it configures, at a small size, in a minute's time."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.training import Randomness, client_updates
from common.config import Scenario
from common.evaluation.conformance import (
    CLAIMS,
    COORDINATOR,
    ENGINE_ROWS,
    EXAMPLE_MODE,
    Bench,
    Check,
    ExampleSetup,
    Finding,
    Setup,
    Subject,
)
from common.families import LocalTraining
from common.privacy.plan import PrivacyPlan
from common.privacy.rng import NoiseSource
from common.table import RowDomain
from common.units import Units
from common.update import Parameters, ParameterSpec, UpdateBatch
from common.work import Work
from server.aggregation import denominator, drawn_clients
from server.rounds import Node
from simulations.cohort import ASSUMED_CLIENTS, with_cohort
from simulations.federation import enrolled_work
from simulations.trial_records import trial_records

MOST_ROWS, MOST_COLUMNS, MOST_DENSE, MOST_STEPS = 64, 32, 2048, 3
_SMALL = {"dimension": 8, "channels": 8, "size": 16}  # options of families that only make a trial slow
_CLAIMED = ("adjacency", "second_accountant")  # the other claims are about plans in general: the tests have them


def conformance(scenario: Scenario) -> list[Finding]:
    """All findings, T1 to T5; none in mode none, where there is nothing to conform to.

    Raises:
        FedembedError: the scenario is refused.
    """
    from simulations.trial import ledger_findings

    work = enrolled_work(with_cohort(scenario, ASSUMED_CLIENTS))
    if work.plan.mode == "none":
        return []
    found = [finding for check in checks_of(work) for finding in check.run(bench_for(work), 0)]
    return sorted([*found, *ledger_findings(work)], key=lambda finding: finding.test)


def checks_of(work: Work) -> list[Check]:
    """The checks that say something about a scenario; in example mode with tables, also those of their engine."""
    plan = work.plan
    stated = [check for check in CLAIMS if check.name in _CLAIMED]
    if plan.mode == "distributed":
        from simulations.secure_conformance import secure_checks_of

        return [*secure_checks_of(work), *stated]
    if plan.mode == "example":
        engine = ENGINE_ROWS[plan.rows] if any(spec.is_table for spec in work.specs) else ()
        source = [check for check in COORDINATOR if check.name in ("secret_source", "tails")]
        return [*EXAMPLE_MODE, *engine, *source, *stated]
    return [*(c for c in COORDINATOR if c.name != "poisson_draw" or plan.sampling == "poisson"), *stated]


def bench_for(work: Work) -> Bench:
    """What a scenario configures, at a small size, in seeded test mode; the client's own code does its part."""
    plan = dataclasses.replace(work.plan, test_mode=True)
    if plan.mode == "distributed":
        return Bench(setup=Setup(plan, work.update_specs))
    if plan.mode == "example":
        return Bench(setup=Setup(plan, work.update_specs), example=example_setup(work))
    subject = Subject(sent=_sent_by(work), draw=_drawn_by(work), divisor=_divided_by(work))
    return Bench(subject, Setup(plan, small_specs(work.update_specs)))


def small_specs(specs: Sequence[ParameterSpec]) -> tuple[ParameterSpec, ...]:
    """The same parameters with few rows and columns; dense ones as short vectors."""

    def small(spec: ParameterSpec) -> ParameterSpec:
        if not spec.is_table:
            return ParameterSpec(spec.name, (min(MOST_DENSE, math.prod(spec.shape)),))
        rows, columns = spec.shape
        return ParameterSpec(spec.name, (min(rows, MOST_ROWS), min(columns, MOST_COLUMNS)), spec.row_domain)

    return tuple(map(small, specs))


def example_setup(work: Work, *, rows: int = MOST_ROWS) -> ExampleSetup:
    """The scenario's family in example mode, with small tables, over made-up records."""
    family, options = work.family, _small_options(work.options)
    domain = None if work.domain is None else RowDomain(work.domain.keys[:rows], np.ones(min(rows, len(work.domain))))
    keys = () if domain is None else domain.keys[: rows // 2]
    records = trial_records(family.records.split("|")[0], keys)

    def encoded(some: Sequence[Any]) -> Units:
        return family.encode(some, domain, options)  # type: ignore[no-any-return]

    rng = np.random.default_rng(1)
    specs = family.specs(options, 0 if domain is None else len(domain))
    steps = min(MOST_STEPS, work.plan.local_steps)
    settings = work.scenario.training
    return ExampleSetup(
        family=family,
        options=options,
        domain=domain,
        parameters={s.name: rng.normal(0, 0.2, s.shape).astype(np.float32) for s in specs},
        plan=dataclasses.replace(work.plan, test_mode=True, local_steps=steps),
        training=LocalTraining(local_steps=steps, local_epochs=1, batch_size=settings.batch_size, lr=settings.lr),
        units=encoded(records[:12]),
        adversaries={"ordinary": encoded(records[:1]), "of everything": encoded(records).as_one()},
    )


def _small_options(options: Any) -> Any:
    fields = type(options).model_fields
    return options.model_copy(
        update={name: min(size, getattr(options, name)) for name, size in _SMALL.items() if name in fields}
    )


def _drawn_by(work: Work) -> Callable[[NoiseSource, int, float], NDArray[np.bool_]]:
    """The coordinator's own draw of a round, over two nodes."""

    def draw(source: NoiseSource, clients: int, rate: float) -> NDArray[np.bool_]:
        nodes = [Node(0, clients // 3), Node(1, clients - clients // 3)]
        drawn = drawn_clients(work, nodes, source.derive("round", int(source.integers(1, 2**62)[0])))
        found = np.zeros(clients, dtype=bool)
        found[np.concatenate([drawn[0], nodes[0].clients + drawn[1]])] = True
        return found

    return draw


def _divided_by(work: Work) -> Callable[[PrivacyPlan, int, int], float]:
    """The coordinator's own divisor."""
    return lambda plan, enrolled, taking_part: denominator(work, [Node(0, enrolled)])


class _Given:
    """A family whose clients' updates are given: everything around them is the client's own code."""

    def __init__(self, specs: Sequence[ParameterSpec], batch: UpdateBatch) -> None:
        self._specs, self._batch = tuple(specs), batch

    def specs(self, options: Any, rows: int) -> tuple[ParameterSpec, ...]:
        return self._specs

    def local_update(self, parameters: Parameters, clients: Sequence[Units], *_: Any, **__: Any) -> UpdateBatch:
        return self._batch


class _GivenUnits(_Given):
    """The same, one contribution for every unit of one client."""

    def contributions(self, parameters: Parameters, units: Units, options: Any) -> UpdateBatch:
        return self._batch

    def statistics_specs(self, options: Any, rows: int) -> tuple[ParameterSpec, ...]:
        return self._specs

    def natural_clip(self, options: Any) -> float:
        return 1.0

    def server_step(self, parameters: Parameters, *_: Any, **__: Any) -> Parameters:
        return parameters


def _sent_by(work: Work) -> Any:
    """What ``client.training`` makes of given contributions: clip, sum, and noise where the client adds it."""

    def sent(batch: UpdateBatch, plan: PrivacyPlan, specs: Sequence[ParameterSpec], source: NoiseSource) -> UpdateBatch:
        kind = _Given if plan.unit_is_client else _GivenUnits
        given = Work(work.scenario, kind(specs, batch), None, None, plan)
        one, units = Units(np.array([0, 0]), {}), Units(np.zeros(batch.count + 1, np.int64), {})
        clients = [one] * batch.count if plan.unit_is_client else [units]
        randomness = [Randomness(0, source.derive("client", k)) for k in range(len(clients))]
        training = LocalTraining(local_steps=1, local_epochs=1, batch_size=1, lr=1.0)
        return client_updates(given, {}, clients, training=training, randomness=randomness)

    return sent
