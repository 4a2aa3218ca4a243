"""From an audit to its record: plain data for audit.json and for the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import EvaluationError
from common.evaluation.audit import FALSE_POSITIVE_RATES, CanaryScores, Evidence, Outcome, auc, true_positive_rate
from common.evaluation.conformance import Finding
from common.evaluation.leak import Leak
from common.evaluation.report.audit_record import (
    AuditRecord,
    Claim,
    FindingRecord,
    Identity,
    LeakRecord,
    NotRunRecord,
    TestLine,
    ViewRecord,
)
from simulations.audit.attacks import NotRun
from simulations.audit.pictures import map_of, planned_spend, quality_of, with_reasons
from simulations.audit.scenario import AuditResult, ViewVerdict
from simulations.doctor import version

_SMALL_RATES = (0.001, 0.0025, 0.005, 0.01)  # where a claim's curve bends
_CURVE = 41  # points of a trade-off curve beside them
NOT_COVERED = (
    "An audit tries attacks; it cannot show that none exists. CONSISTENT means that nothing was found that this audit "
    "could have seen.",
    "Attributes of a row and the content of a vector are population signal, which the guarantee does not promise to "
    "hide.",
    "A generator of random numbers that can be predicted, floating-point attacks, side channels, a unit that was "
    "chosen too small, and what preprocessing or tuning runs have told.",
)
OF_SCENARIOS = (
    "The audited run was trained anew, with canaries and without a tenth of the units; it is not the release itself.",
    "This audit itself: how often attacks were right, and everything about the unprotected run, are computed from the "
    "real data without noise. Show it to those who may see such figures; do not publish it with the release.",
)


def record_of(result: AuditResult, name: str) -> AuditRecord:
    """The record of an audit of a scenario called ``name``."""
    outcome, reason = result.outcome
    found = {
        "spend": planned_spend(result.claim),
        "quality": quality_of(result.quality.scores, result.claim),
        "map": map_of(result.table, result.claim, refuted=outcome is Outcome.VIOLATION_FOUND),
    }
    return AuditRecord(
        identity=identity(name, "scenario", result.scenario.model_dump(mode="json")),
        outcome=str(outcome),  # type: ignore[arg-type]
        reason=reason,
        claim=Claim(sentence=str(result.claim["sentence"]), certificate=_finite(result.claim)),
        views=tuple(map(_view, result.views)),
        leaks=leak_records(result.leaks),
        not_run=not_run_records(result.not_run),
        conformance=tuple(map(_finding, result.findings)),
        **with_reasons(found, quality=result.quality.reason, table=result.table),
        settings=result.settings,
        not_covered=(*NOT_COVERED, *OF_SCENARIOS),
        seconds=round(result.seconds, 1),
    )


def identity(name: str, kind: str, scenario: dict[str, Any]) -> Identity:
    """Who audited what, now."""
    return Identity(
        audited=name,
        kind=kind,  # type: ignore[arg-type]
        fedembed=version(),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        scenario=scenario,
    )


def leak_records(leaks: Sequence[Leak]) -> tuple[LeakRecord, ...]:
    """Leaks as plain data."""
    return tuple(LeakRecord(**leak.to_json()) for leak in leaks)


def not_run_records(refused: Sequence[NotRun]) -> tuple[NotRunRecord, ...]:
    """Attacks that did not run, as plain data."""
    return tuple(NotRunRecord(attack=n.attack, sees=n.sees, reason=n.reason) for n in refused)


def _view(found: ViewVerdict) -> ViewRecord:
    verdict, first = found.verdict, found.scores[0] if found.scores else None
    return ViewRecord(
        view=found.view,  # type: ignore[arg-type]
        observer=found.observer,
        claimed_epsilon=found.claimed_epsilon,
        delta=found.delta,
        canaries=sum(len(s.scores) for s in found.scores),
        outcome=str(verdict.outcome),  # type: ignore[arg-type]
        reason=verdict.reason,
        noticed=verdict.noticed,
        auc=None if first is None else auc(first.scores, first.included).value,
        auc_interval=None if first is None else _interval(first),
        tpr_at_fpr={} if first is None else {f"{rate:g}": _rate(first, rate) for rate in FALSE_POSITIVE_RATES},
        trade_off={} if first is None else _trade_off(first, found.claimed_epsilon, found.delta),
        tests=tuple(map(_test, verdict.evidence)),
    )


def _interval(scores: CanaryScores) -> tuple[float, float]:
    found = auc(scores.scores, scores.included)
    return found.low, found.high


def _rate(scores: CanaryScores, rate: float) -> float | None:
    try:
        return true_positive_rate(scores.scores, scores.included, false_positive_rate=rate).value
    except EvaluationError:
        return None  # too few canaries for so small a rate


def _trade_off(scores: CanaryScores, epsilon: float, delta: float) -> dict[str, list[float]]:
    """True positive rates at some false positive rates, measured, and the most that (epsilon, delta) allows."""
    rates = np.union1d(np.linspace(0.0, 1.0, _CURVE), _SMALL_RATES)
    members, others = scores.scores[scores.included], np.sort(scores.scores[~scores.included])[::-1]
    thresholds = others[np.minimum((rates * len(others)).astype(int), len(others) - 1)]
    measured = np.array([np.mean(members > threshold) for threshold in thresholds])
    measured[-1] = 1.0
    return {"fpr": rates.tolist(), "measured": measured.tolist(), "claimed": _allowed(rates, epsilon, delta).tolist()}


def _allowed(rates: NDArray[np.float64], epsilon: float, delta: float) -> NDArray[np.float64]:
    """Kairouz, Oh and Viswanath (2015): TPR <= min(e^eps FPR + delta, 1 - e^-eps (1 - delta - FPR))."""
    grown = math.exp(min(epsilon, 700.0))
    return np.clip(np.minimum(grown * rates + delta, 1 - (1 - delta - rates) / grown), 0.0, 1.0)


def _test(evidence: Evidence) -> TestLine:
    return TestLine(
        method=evidence.method,
        design=evidence.design,
        bound=_number(evidence.bound),
        estimate=_number(evidence.estimate),
        alpha=evidence.alpha,
        guesses=evidence.guesses,
        right=evidence.right,
        cap=_number(evidence.cap),
        attainable=_number(evidence.best_attainable),
        detectable=evidence.smallest_factor,
        refutes=evidence.rejects,
        supplementary=evidence.supplementary,
    )


def _finding(finding: Finding) -> FindingRecord:
    return FindingRecord(
        test=finding.test, subject=finding.subject, statistic=finding.statistic, holds=bool(finding.holds)
    )


def _number(value: float) -> float | str | None:
    if math.isnan(value):
        return None
    return value if math.isfinite(value) else "inf"


def _finite(value: Any) -> Any:
    """JSON's own types: infinite numbers become the string ``inf``."""
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return _number(value) if isinstance(value, float) else value
