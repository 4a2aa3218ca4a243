"""A correct mechanism and broken ones under one audit: the real node and coordinator, one function of them wrong."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client import training
from common.config import Scenario, build_scenario
from common.evaluation.audit import Outcome, Verdict, audited
from common.evaluation.audit.methods import ONE_RUN_FDP
from common.privacy.clipping import ClippedBatch, clip
from common.privacy.plan import PrivacyPlan
from common.privacy.private_sum import PrivateSum, Released, release
from common.privacy.rng import NoiseSource
from common.table import FloatArray, IntArray
from common.update import UpdateBatch, scaled
from server import rounds, run
from simulations.audit.planting import Planted, plant
from simulations.audit.scenario import scores_of
from simulations.audit.watching import Watched, watch
from simulations.mutants import all_mutants
from simulations.progress import Silent

DELTA = 1e-5
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
    """

    name: str
    patches: tuple[Patch, ...] = ()
    rounds: int = 1
    found: bool | None = True


@dataclass(frozen=True)
class Audited:
    """What one audit of one mechanism showed.

    Attributes:
        sums, table: best one-run f-DP bound of the dedicated canaries in either view.
        gdp: bound of their threshold test on the sums.
        flagged: whether any test of any design and view rejects the claim.
    """

    sums: float
    table: float
    gdp: float
    flagged: bool


def scenario_of(epsilon: float, claimed_rounds: int) -> Scenario:
    """word2vec, whole clients, central noise: two tables, so that a split canary has somewhere to go."""
    return build_scenario(
        {
            "task": {"family": "word2vec", "dimension": 16},
            "data": {"reader": "corpus", "path": "planted", "unit": "client"},
            "vocabulary": {"source": "hashed", "buckets": 60},
            "privacy": {"mode": "central", "epsilon": epsilon, "delta": DELTA, "l2_clip_norm": 0.5},
            "federation": {"rounds": claimed_rounds},
        }
    )


def audit(
    mechanism: Mechanism, epsilon: float, *, folder: Path, rounds_claimed: int, canaries: int, seed: int
) -> Audited:
    """Plant, train with the broken function in its place, and test the claim of the correct mechanism."""
    planted = plant(scenario_of(epsilon, rounds_claimed), folder, Silent(), count=canaries, seed=seed)
    if mechanism.rounds > 1:
        planted = _longer(planted, mechanism.rounds)
    with _installed(mechanism.patches):
        seen = watch(planted)
    views = {"sums": seen.sums, "table": seen.table}
    verdicts = {view: _verdict(planted, seen, view, parts, epsilon) for view, parts in views.items()}
    return Audited(
        sums=_bound(verdicts["sums"], ONE_RUN_FDP),
        table=_bound(verdicts["table"], ONE_RUN_FDP),
        gdp=_bound(verdicts["sums"], "gdp_threshold"),
        flagged=any(v.outcome is Outcome.VIOLATION_FOUND for v in verdicts.values()),
    )


def _longer(planted: Planted, times: int) -> Planted:
    """The same noise for more rounds than are claimed."""
    work = planted.work
    federation = work.scenario.federation.model_copy(update={"rounds": times * work.plan.rounds})
    longer = work.scenario.model_copy(update={"federation": federation})
    plan = dataclasses.replace(work.plan, rounds=times * work.plan.rounds, target_epsilon=None)
    return dataclasses.replace(planted, work=dataclasses.replace(work, scenario=longer, plan=plan))


def _verdict(planted: Planted, seen: Watched, view: str, parts: NDArray[np.float64], epsilon: float) -> Verdict:
    scores = tuple(scores_of(planted, seen, view, parts))
    return audited(scores, claimed_epsilon=epsilon, delta=DELTA)


def _bound(verdict: Verdict, method: str) -> float:
    found = [e.bound for e in verdict.evidence if e.method == method and e.design == "dedicated"]
    return found[0] if found else math.nan


@contextmanager
def _installed(patches: tuple[Patch, ...]) -> Iterator[None]:
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
        Mechanism("noise / 10", _releases(_less_noise(0.1))),
        Mechanism("noise / sqrt(2)", _releases(_less_noise(math.sqrt(0.5))), found=None),
        Mechanism("no noise on the second table", _releases(_not_on_contexts)),
        Mechanism("noise on touched rows alone", _releases(_on_touched_rows)),
        Mechanism("the same noise every round", _releases(_same_every_round)),
        Mechanism("no clip", _clips(_clip_of("no clip"))),
        Mechanism("clip per table", _clips(_clip_of("clip per table")), found=None),
        Mechanism("weight 10 after the clip", _clips(_weighted)),
        Mechanism("twice the rounds claimed", rounds=2, found=None),
    )
