"""``fedembed audit SCENARIO``: what was claimed against whom, what an adversary could show, and the verdict."""

from __future__ import annotations

import secrets
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.config import Scenario
from common.errors import EvaluationError
from common.evaluation.audit import CanaryScores, Outcome, Verdict, alpha_of_each, audited
from common.evaluation.conformance import Finding
from common.evaluation.leak import Leak
from common.privacy.plan import PrivacyPlan
from common.table import EmbeddingTable, IntArray
from server.progress import Reporter
from simulations.audit.adversary import Adversary
from simulations.audit.attacks import NotRun, tried, truth_of
from simulations.audit.canaries import DESIGNS, Canaries
from simulations.audit.expected import claimed_stddev, noise_of_those_left_out
from simulations.audit.pictures import Quality, measured
from simulations.audit.planting import Planted, plant, unprotected
from simulations.audit.references import halves, with_references
from simulations.audit.watching import Watched, watch
from simulations.conformance import conformance

CANARIES = 1000
MOST_APART = 8  # tests of single arrays, or of neighbours: every test takes its share of the error rate
LONE_ROWS = (
    "rows are selected by what several clients hold, and a row that one canary alone holds hardly ever is: "
    "tests T1 to T5 judge the vote and its noise"
)
_SEED_BITS = 53  # what every reader of JSON keeps whole


@dataclass(frozen=True)
class ViewVerdict:
    """What canaries showed to one adversary.

    Attributes:
        view: ``sums`` of every round, the final ``table``, or single ``updates``.
        observer: whose claim is tested.
        claimed_epsilon, delta: the claim.
        scores: of the canaries, design by design.
        verdict: with all evidence.
    """

    view: str
    observer: str
    claimed_epsilon: float
    delta: float
    scores: tuple[CanaryScores, ...]
    verdict: Verdict


@dataclass(frozen=True)
class AuditResult:
    """An audit of a scenario.

    Attributes:
        scenario: as it was given.
        claim: of the audited run (``PrivacyPlan.claim``).
        views: canaries, view by view, the one that sees most first.
        leaks: attacks on the real clients, each beside chance and the unprotected control.
        not_run: attacks that had nothing to look at.
        findings: conformance, T1 to T5.
        quality: of the audited table and of the unprotected one.
        table: of the audited run, real rows alone; ``None`` where the family has none.
        settings: canaries, seed and what else made this run.
        seconds: how long it took.
    """

    scenario: Scenario
    claim: dict[str, Any]
    views: tuple[ViewVerdict, ...]
    leaks: tuple[Leak, ...]
    not_run: tuple[NotRun, ...]
    findings: tuple[Finding, ...]
    quality: Quality
    table: EmbeddingTable | None
    settings: dict[str, Any]
    seconds: float

    @property
    def outcome(self) -> tuple[Outcome, str]:
        """VIOLATION FOUND if any view or check says so; else what the view says that sees most, and why."""
        broken = [finding for finding in self.findings if not finding.holds]
        if broken:
            first = broken[0]
            return Outcome.VIOLATION_FOUND, (
                f"{len(broken)} conformance tests fail, among them {first.test}, {first.subject}: {first.statistic}"
            )
        if not self.views:
            return Outcome.INCONCLUSIVE, "nothing is claimed against anybody who could be audited"
        refuted = [view for view in self.views if view.verdict.outcome is Outcome.VIOLATION_FOUND]
        judged = refuted[0] if refuted else self.views[0]
        return judged.verdict.outcome, f"{judged.view}: {judged.verdict.reason}"


def audit_scenario(
    scenario: Scenario,
    *,
    reporter: Reporter,
    canaries: int = CANARIES,
    seed: int | None = None,
    adversary: Adversary | None = None,
) -> AuditResult:
    """Train ``scenario`` with canaries, train it again without protection, and compare. The data are read anew.

    Args:
        canaries: how many are planted of every design.
        seed: of who is planted and left out; from the operating system where none is given, so that nobody can choose
            it after the fact. It is written into the result.
        adversary: what attacks have beside what the run shows.

    Raises:
        FedembedError: the scenario cannot be run, or cannot be audited.
    """
    started, adversary = time.monotonic(), adversary or Adversary()
    if scenario.privacy.mode == "none":
        raise EvaluationError(
            "mode 'none' claims nothing, so there is nothing to audit", remedy="Set privacy.mode and epsilon."
        )
    adversary.readable()
    chosen = secrets.randbits(_SEED_BITS) if seed is None else seed
    with tempfile.TemporaryDirectory() as name:  # clients that an earlier audit encoded may be out of date
        reporter.preparing("planting canaries")
        planted = plant(scenario, Path(name), reporter, count=canaries, seed=chosen)
        truth = adversary.informed(truth_of(planted), planted.real_keys)
        watched = watch(planted, reporter)
        reporter.preparing("training once more without protection, for the attacks' control")
        control = plant(unprotected(scenario), Path(name), reporter, count=canaries, seed=chosen)
        unprotected_view = watch(control, reporter).view
        reporter.preparing("scoring both tables")
        tables = {"audited": watched.view.table, "unprotected": unprotected_view.table}
        quality = measured(scenario, tables, Path(name))
    views = tuple(verdicts(planted, watched, scenario))
    half = halves(planted, count=adversary.references, seed=chosen)
    known = with_references(watched.view, planted, chosen=half, reporter=reporter)
    beside = with_references(unprotected_view, control, chosen=half, reporter=reporter)
    reporter.preparing("attacking both")
    leaks, not_run = tried(known, beside, truth)
    reporter.preparing("conformance")
    plan = claimed_plan(planted, scenario)
    return AuditResult(
        scenario=scenario,
        claim=plan.claim(plan.rounds),
        views=views,
        leaks=tuple(_of_claim(leak, plan) for leak in leaks),
        not_run=tuple(not_run),
        findings=(*conformance(scenario), *noise_of_those_left_out(planted, watched)),
        quality=quality,
        table=watched.view.table,
        settings=planted.settings
        | {"references": len(half), "seed": chosen, "seed_from": "operating system" if seed is None else "caller"},
        seconds=time.monotonic() - started,
    )


def claimed_plan(planted: Planted, scenario: Scenario) -> PrivacyPlan:
    """The plan of the audited run, its sum masked as the scenario says: in an audit the same integers are added up."""
    plan = planted.work.plan
    if plan.secure is None:
        return plan
    return replace(plan, secure=replace(plan.secure, aggregation=scenario.federation.secure_aggregation))


def _of_claim(leak: Leak, plan: PrivacyPlan) -> Leak:
    """Single updates are seen by the coordinator: where nothing is claimed against it, nothing is promised there."""
    trusted = leak.sees == "updates" and not np.isfinite(plan.epsilon("coordinator"))
    return replace(leak, promised=leak.promised and not trusted)


def verdicts(planted: Planted, watched: Watched, scenario: Scenario) -> Iterator[ViewVerdict]:
    """The verdict of every view against whose observers anything is claimed; they share one error rate."""
    plan = claimed_plan(planted, scenario)
    shown = [("sums", observer, watched.sums) for observer in ("coordinator", "other_clients")]
    shown.append(("table", "public", watched.table))
    if watched.updates is not None:
        shown.insert(0, ("updates", "coordinator", watched.updates))
    claims = [(view, observer, parts, plan.epsilon(observer)) for view, observer, parts in shown]
    tested = [claim for claim in claims if np.isfinite(claim[3])]  # nothing is claimed against the others
    alpha = alpha_of_each([(view, epsilon) for view, _, _, epsilon in tested])
    for view, observer, parts, epsilon in tested:
        scores = tuple(scores_of(planted, watched, view, parts))
        if scores:
            verdict = audited(scores, claimed_epsilon=epsilon, delta=plan.delta, alpha=alpha, test_mode=plan.test_mode)
        else:
            verdict = Verdict(
                Outcome.INCONCLUSIVE, "no trace of any canary differs from any other", epsilon, plan.delta
            )
        yield ViewVerdict(
            view,
            observer,
            epsilon,
            plan.delta,
            scores,
            explained(verdict, plan, silent_designs(planted.canaries, view, scores)),
        )


def explained(verdict: Verdict, plan: PrivacyPlan, silent: Sequence[str]) -> Verdict:
    """``verdict``; designs without any trace say nothing, and where rows are selected, silence says why.

    Args:
        silent: designs whose canaries all look alike.
    """
    if silent and verdict.noticed is not None:
        verdict = replace(verdict, noticed=None)
    if verdict.outcome is Outcome.CONSISTENT and silent:
        reason = f"no test rejects the claim, but canaries of {', '.join(silent)} left no trace: they say nothing"
        verdict = replace(verdict, outcome=Outcome.INCONCLUSIVE, reason=reason)
    if verdict.outcome is not Outcome.INCONCLUSIVE or plan.rows != "selected" or plan.test_mode:
        return verdict
    return replace(verdict, reason=f"{verdict.reason}; {LONE_ROWS}")


def silent_designs(canaries: Canaries, view: str, scores: Sequence[CanaryScores]) -> list[str]:
    """Designs that were planted for a view, and are not among its scores."""
    heard = {one.design for one in scores}
    return [name for name in DESIGNS if _shows(canaries, name, view) and name not in heard]


def _shows(canaries: Canaries, design: str, view: str) -> bool:
    """Whether a design was planted, and could be seen there: alternating signs cancel in the table."""
    return len(canaries.of_design(design)) > 0 and not (view == "table" and design == "alternating")


def scores_of(planted: Planted, watched: Watched, view: str, parts: NDArray[np.float64]) -> Iterator[CanaryScores]:
    """Scores of every design that left any trace: rows that no round selected hold the same number for all.

    Args:
        parts: shape (arrays, m), trace of each canary in every array over all rounds; one array where they were mixed.
    """
    canaries, chance = planted.canaries, sampled(planted.work.plan)
    shares = canaries.shares(1) if len(parts) == len(canaries.specs) else np.ones((1, len(canaries)))
    for name in DESIGNS:
        chosen = canaries.of_design(name)
        if _shows(canaries, name, view):
            total = (shares * parts)[:, chosen].sum(axis=0)
            yield from _scored(canaries, chosen, total, CanaryKind(name, view, claimed_stddev(planted, view), chance))
    if len(parts) > 1:
        split = canaries.of_design("split")
        for name, places in apart([spec.name for spec in canaries.specs]).items():
            yield from _scored(
                canaries, split, parts[places][:, split].sum(axis=0), CanaryKind(name, view, sampled=chance)
            )
    if view == "sums":
        everyone, support = np.arange(len(canaries)), watched.supports.sum(axis=0)
        yield from _scored(canaries, everyone, support, CanaryKind("support", view, sampled=chance))


def apart(arrays: Sequence[str]) -> dict[str, IntArray]:
    """Name of a test -> the arrays whose sum it looks at: one each, or, of more than eight, neighbours together."""
    groups = np.array_split(np.arange(len(arrays)), min(len(arrays), MOST_APART))
    named = {" + ".join(arrays[k] for k in group): group for group in groups}
    return {f"split, {name} {'alone' if len(group) == 1 else 'together'}": group for name, group in named.items()}


@dataclass(frozen=True)
class CanaryKind:
    """Which canaries, seen where; ``claimed_stddev`` is ``None`` for designs that only add alarms."""

    design: str
    view: str
    claimed_stddev: float | None = None
    sampled: bool = False


def sampled(plan: PrivacyPlan) -> bool:
    """Whether chance decides in which sums a canary that is in the data takes part."""
    return plan.sampling != "full" or (plan.mode == "example" and plan.unit_rate < 1)


def _scored(
    canaries: Canaries, chosen: IntArray, total: NDArray[np.float64], kind: CanaryKind
) -> Iterator[CanaryScores]:
    if np.ptp(total) > 0:
        yield CanaryScores(
            total,
            canaries.included[chosen],
            kind.design,
            kind.view,
            claimed_stddev=kind.claimed_stddev,
            supplementary=kind.claimed_stddev is None,
            sampled=kind.sampled,
        )
