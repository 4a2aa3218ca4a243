"""``fedembed audit RELEASE``: is the folder whole, does epsilon follow from the events, what do the tables tell."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.evaluation.audit import Outcome
from common.evaluation.report.audit_record import AuditRecord, Claim, FindingRecord
from common.evaluation.view import Candidates, Truth, View
from common.release import Release, load_release, verify
from common.table import EmbeddingTable
from common.units import Units
from simulations.audit.adversary import Adversary
from simulations.audit.attacks import tried
from simulations.audit.pictures import map_of, quality_of, spend_of, with_reasons
from simulations.audit.record import NOT_COVERED, identity, leak_records, not_run_records

INVERTED = 200  # bags of rows that the inverter is tried on
BAG = 8  # rows of a bag
UNMEASURED = "the release holds no figure of quality, so what the protection costs is not known"
NO_CANARIES = (
    "No canaries were in the training data of this release, so nothing is shown about its noise: "
    "`fedembed audit SCENARIO` trains with canaries.",
    "What clients and coordinator saw during training was not looked at: a release does not hold it.",
)


def audit_release(path: Path, *, adversary: Adversary, seed: int = 0) -> AuditRecord:
    """Check a release and attack its main table with what needs nothing else.

    Raises:
        ReleaseError: no release. EvaluationError: a file of answers that does not fit the table.
    """
    started = time.monotonic()
    release, checked = load_release(path), verify(path)
    findings = [
        FindingRecord(test="T5", subject=check.name, statistic=check.detail, holds=check.passed)
        for check in checked.checks
    ]
    main = _main(release) if release.tables else None
    view = View(clients=0, prior=np.empty(0) if main is None else _prior(main), table=main)
    leaks, not_run = tried(view, None, _truth(main, adversary, seed), seed=seed)
    outcome, reason = _judged(checked.passed, release.certificate)
    return AuditRecord(
        identity=identity(str(path), "release", dict(release.scenario)),
        outcome=str(outcome),  # type: ignore[arg-type]
        reason=reason,
        claim=Claim(
            sentence=str(release.certificate.get("sentence", "No claim is stated.")),
            certificate=dict(release.certificate),
        ),
        views=(),
        leaks=leak_records(leaks),
        not_run=not_run_records(not_run),
        conformance=tuple(findings),
        **_pictured(release, main, refuted=not checked.passed),
        settings={"seed": seed, "canaries": 0},
        not_covered=(*NOT_COVERED, *NO_CANARIES),
        seconds=round(time.monotonic() - started, 1),
    )


def _pictured(release: Release, main: EmbeddingTable | None, *, refuted: bool) -> dict[str, Any]:
    """What the page's pictures of cost are made of, all of it from the release."""
    found = {
        "spend": spend_of(release.rounds),
        "quality": quality_of({"released": release.evaluation}, release.certificate),
        "map": map_of(main, release.certificate, refuted=refuted),
    }
    return with_reasons(found, quality=UNMEASURED, table=main)


def _judged(passed: bool, certificate: Any) -> tuple[Outcome, str]:
    """A release alone proves no noise: its accounts are right or wrong, and more cannot be said."""
    if not passed:
        return Outcome.VIOLATION_FOUND, "the release does not verify: it was altered, or its epsilon does not follow"
    if certificate.get("void") is not False:
        return Outcome.INCONCLUSIVE, f"the certificate is void: {certificate.get('void_reason') or 'no claim is made'}"
    return Outcome.INCONCLUSIVE, (
        "digests and epsilon are right, and no canary was in the data, so nothing shows whether the noise was added"
    )


def _main(release: Release) -> EmbeddingTable:
    preferred = str(release.notes.get("main_table"))
    return release.tables[preferred] if preferred in release.tables else next(iter(release.tables.values()))


def _prior(table: EmbeddingTable) -> NDArray[np.float64]:
    """Rows stand in order of public frequency wherever one is known; Zipf's law says how fast it falls."""
    return 1.0 / np.arange(1, len(table) + 1)


def _truth(table: EmbeddingTable | None, adversary: Adversary, seed: int) -> Truth:
    if table is None:
        return adversary.informed(Truth(), None)
    return adversary.informed(Truth(candidates=_bags(table, seed)), table.keys)


def _bags(table: EmbeddingTable, seed: int) -> Candidates:
    """Bags of rows drawn from the prior: documents whose vectors somebody might publish."""
    rng = np.random.default_rng(seed)
    prior, size = _prior(table), min(BAG, len(table))
    rows = [np.sort(rng.choice(len(table), size, replace=False, p=prior / prior.sum())) for _ in range(INVERTED)]
    offsets = np.arange(INVERTED + 1, dtype=np.int64) * size
    return Candidates(Units(offsets, {"rows": np.concatenate(rows).astype(np.int64)}))
