"""A correct mechanism and broken ones under one audit: the real node and coordinator, one function of them wrong."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from client import training
from common.config import Scenario, build_scenario
from common.evaluation.audit import Outcome, Verdict
from common.evaluation.audit.methods import GDP_THRESHOLD, ONE_RUN_FDP
from common.evaluation.conformance import CHECKS, failures
from common.privacy.clipping import ClippedBatch, canonical, clip
from common.privacy.plan import PrivacyPlan
from common.privacy.private_sum import PrivateSum, Released, release
from common.privacy.rng import NoiseSource
from common.table import FloatArray, IntArray
from common.update import UpdateBatch, scaled
from common.work import Work
from server import rounds, run
from server.rounds import Node
from simulations import conformance
from simulations.audit.planting import Planted, plant
from simulations.audit.scenario import verdicts
from simulations.audit.watching import watch
from simulations.cohort import ASSUMED_CLIENTS, with_cohort
from simulations.conformance import bench_for
from simulations.federation import enrolled_work
from simulations.mutants import all_mutants
from simulations.progress import Silent

DELTA = 1e-5
RATE, SAMPLED_ROUNDS = 0.1, 32  # a power of 2: all signs of alternating canaries cancel
CLIENTS = 4000  # canaries' alone, about; what noise shrinks by where somebody divides it by sqrt(n)
_TINY = 1e-9  # noise that stands for none: a release always adds some
Patch = tuple[Any, str, Any]


@dataclass(frozen=True)
class Mechanism:
    """One mechanism under audit.

    Attributes:
        name: says what is broken.
        patches: (owner, attribute, what stands there).
        rounds: times the claimed number of rounds that really run.
        found: at every epsilon, by some design in some view, in every run; ``None``: reported only.
        designs: whose bounds are shown.
        sampled: sold as Poisson sampling of clients, and accounted so.
        by_sampler: whether the exact test of who takes part (T4) must find it; ``None``: not asked.
    """

    name: str
    patches: tuple[Patch, ...] = ()
    rounds: int = 1
    found: bool | None = True
    designs: tuple[str, ...] = ("dedicated",)
    sampled: bool = False
    by_sampler: bool | None = None


@dataclass(frozen=True)
class Audited:
    """What one audit of one mechanism showed.

    Attributes:
        sums, table: one-run f-DP bound of each design in either view; NaN where a design has none.
        gdp: bound of the threshold test on the sums.
        flagged: whether any test of any design and view rejects the claim.
    """

    sums: dict[str, float]
    table: dict[str, float]
    gdp: dict[str, float]
    flagged: bool


def scenario_of(epsilon: float, rounds_claimed: int, *, sampled: bool = False) -> Scenario:
    """word2vec, whole clients, central noise: two tables, so that a split canary has somewhere to go."""
    federation: dict[str, Any] = {"rounds": rounds_claimed}
    if sampled:
        federation = {"rounds": SAMPLED_ROUNDS, "sampling": "poisson", "rate": RATE}
    return build_scenario(
        {
            "task": {"family": "word2vec", "dimension": 16},
            "data": {"reader": "corpus", "path": "planted", "unit": "client"},
            "vocabulary": {"source": "hashed", "buckets": 60},
            "privacy": {"mode": "central", "epsilon": epsilon, "delta": DELTA, "l2_clip_norm": 0.5},
            "federation": federation,
        }
    )


def audit(
    mechanism: Mechanism, epsilon: float, *, folder: Path, rounds_claimed: int, canaries: int, seed: int
) -> Audited:
    """Plant, train with the broken function in its place, and test the claim of the correct mechanism."""
    scenario = scenario_of(epsilon, rounds_claimed, sampled=mechanism.sampled)
    planted = plant(scenario, folder, Silent(), count=canaries, seed=seed)
    with installed(mechanism.patches):
        seen = watch(_longer(planted, mechanism.rounds) if mechanism.rounds > 1 else planted)
    found = {view.view: view.verdict for view in verdicts(planted, seen, scenario)}
    return Audited(
        sums=_bounds(found["sums"], ONE_RUN_FDP, mechanism.designs),
        table=_bounds(found["table"], ONE_RUN_FDP, mechanism.designs),
        gdp=_bounds(found["sums"], GDP_THRESHOLD, mechanism.designs),
        flagged=any(verdict.outcome is Outcome.VIOLATION_FOUND for verdict in found.values()),
    )


def found_by_sampler(mechanism: Mechanism, epsilon: float) -> bool:
    """Whether T4, which looks at who takes part, rejects the mechanism."""
    work = enrolled_work(with_cohort(scenario_of(epsilon, SAMPLED_ROUNDS, sampled=True), ASSUMED_CLIENTS))
    with installed(mechanism.patches):
        return bool(failures(CHECKS["poisson_draw"].run(bench_for(work), 0)))


def _longer(planted: Planted, times: int) -> Planted:
    """The same noise for more rounds than are claimed."""
    work = planted.work
    federation = work.scenario.federation.model_copy(update={"rounds": times * work.plan.rounds})
    longer = work.scenario.model_copy(update={"federation": federation})
    plan = dataclasses.replace(work.plan, rounds=times * work.plan.rounds, target_epsilon=None)
    return dataclasses.replace(planted, work=dataclasses.replace(work, scenario=longer, plan=plan))


def _bounds(verdict: Verdict, method: str, designs: tuple[str, ...]) -> dict[str, float]:
    found = {e.design: e.bound for e in verdict.evidence if e.method == method}
    return {design: found.get(design, math.nan) for design in designs}


@contextmanager
def installed(patches: tuple[Patch, ...]) -> Iterator[None]:
    """The broken functions stand in their places."""
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in patches]
    for owner, name, by in patches:
        setattr(owner, name, by)
    try:
        yield
    finally:
        for owner, name, honest in before:
            setattr(owner, name, honest)


def _less_noise(factor: float) -> Callable[[PrivateSum, PrivacyPlan, NoiseSource], Released]:
    def released(total: PrivateSum, plan: PrivacyPlan, source: NoiseSource) -> Released:
        return release(total, dataclasses.replace(plan, noise_multiplier=plan.noise_multiplier * factor), source)

    return released


def _not_on_contexts(total: PrivateSum, plan: PrivacyPlan, source: NoiseSource) -> Released:
    """The table that is not released is left without noise."""
    exact = _less_noise(_TINY)(total, plan, source)
    rows = dict(exact.rows)
    ids, values = rows["centre.weight"]
    rows["centre.weight"] = ids, values + source.normal(values.shape, plan.noise_stddev)
    return Released(rows, exact.dense)


def _on_touched_rows(total: PrivateSum, plan: PrivacyPlan, source: NoiseSource) -> Released:
    exact = _less_noise(_TINY)(total, plan, source)
    rows: dict[str, tuple[IntArray | None, FloatArray]] = {}
    for name, (_, values) in exact.rows.items():
        touched = np.flatnonzero(np.abs(values).max(axis=1) > 1e-3 * plan.l2_clip_norm)
        noise = source.normal((len(touched), values.shape[1]), plan.noise_stddev)
        rows[name] = touched.astype(np.int64), values[touched] + noise
    return Released(rows, exact.dense)


def _same_every_round(total: PrivateSum, plan: PrivacyPlan, source: NoiseSource) -> Released:
    return release(total, dataclasses.replace(plan, test_mode=True), NoiseSource.seeded_for_tests(0))


def _weighted(batch: UpdateBatch, bound: float) -> ClippedBatch:
    """As if clients declared ten times as many examples as others."""
    return ClippedBatch(scaled(clip(batch, bound).batch, np.full(batch.count, 10.0)), 0, 0)


def _everybody(work: Work, nodes: Sequence[Node], source: NoiseSource) -> dict[int, IntArray]:
    """No sampling: all take part in every round."""
    return {node.node_id: np.arange(node.clients, dtype=np.int64) for node in nodes}


def _partition() -> Callable[[Work, Sequence[Node], NoiseSource], dict[int, IntArray]]:
    """The clients are shuffled once and take turns, as in an epoch: everybody takes part equally often."""
    rounds = itertools.count()

    def drawn(work: Work, nodes: Sequence[Node], source: NoiseSource) -> dict[int, IntArray]:
        groups, turn = round(1 / RATE), next(rounds)
        shuffled = np.random.default_rng(0).permutation(sum(node.clients for node in nodes))
        taking_part, first, found = shuffled % groups == turn % groups, 0, {}
        for node in nodes:
            found[node.node_id] = np.flatnonzero(taking_part[first : first + node.clients]).astype(np.int64)
            first += node.clients
        return found

    return drawn


def _draws(by: Callable[[Work, Sequence[Node], NoiseSource], dict[int, IntArray]]) -> tuple[Patch, ...]:
    """Another draw for the coordinator, and for the conformance tests of it."""
    return (run, "drawn_clients", by), (conformance, "drawn_clients", by)


def _parts_clipped(batch: UpdateBatch, bound: float) -> ClippedBatch:
    """Repeated rows are summed after their norm was taken: 16 of them have 4 times the clip."""
    return ClippedBatch(canonical(_clip_of("repeated rows not summed")(batch, bound).batch), 0, 0)


def _clip_of(mutant: str) -> Callable[[UpdateBatch, float], ClippedBatch]:
    return next(m.subject.clip for m in all_mutants() if m.name.startswith(mutant))


def _clips(by: Callable[[UpdateBatch, float], ClippedBatch]) -> tuple[Patch, ...]:
    """A wrong clip on clients, and a coordinator that does not look at norms."""
    return (training, "clip", by), (rounds, "NORM_SLACK", 1e6)


def _releases(by: Callable[[PrivateSum, PrivacyPlan, NoiseSource], Released]) -> tuple[Patch, ...]:
    return ((run, "release", by),)


def mechanisms() -> tuple[Mechanism, ...]:
    """The correct one first."""
    return (
        Mechanism("correct", found=False),
        Mechanism("no noise", _releases(_less_noise(_TINY))),
        Mechanism("noise / sqrt(n)", _releases(_less_noise(1 / math.sqrt(CLIENTS)))),
        Mechanism("noise / 10", _releases(_less_noise(0.1))),
        Mechanism("noise / sqrt(2)", _releases(_less_noise(math.sqrt(0.5))), found=None),
        Mechanism("no noise on the second table", _releases(_not_on_contexts), designs=("dedicated", "split")),
        Mechanism("noise on touched rows alone", _releases(_on_touched_rows), designs=("dedicated", "support")),
        Mechanism("the same noise every round", _releases(_same_every_round), designs=("dedicated", "alternating")),
        Mechanism("no clip", _clips(_clip_of("no clip"))),
        Mechanism("clip per table", _clips(_clip_of("clip per table")), found=None, designs=("dedicated", "split")),
        Mechanism("repeated rows counted sqrt(16)", _clips(_parts_clipped), designs=("dedicated", "repeated")),
        Mechanism("weight 10 after the clip", _clips(_weighted)),
        Mechanism("twice the rounds claimed", rounds=2, found=None),
        *_sampled(),
    )


def _sampled() -> tuple[Mechanism, ...]:
    """Sold as Poisson sampling of clients; canaries cannot tell a partition from it, T4 can."""
    both, reused = ("dedicated", "alternating"), _releases(_same_every_round)
    return (
        Mechanism("Poisson", found=False, sampled=True, by_sampler=False),
        Mechanism("everybody, sold as Poisson", _draws(_everybody), sampled=True, by_sampler=True),
        Mechanism("a partition, sold as Poisson", _draws(_partition()), found=None, sampled=True, by_sampler=True),
        Mechanism("Poisson, the same noise every round", reused, designs=both, sampled=True, by_sampler=False),
    )
