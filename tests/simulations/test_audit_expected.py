"""The noise that canaries ought to hold is that which a correct run gives them, in every mode and view."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from common.config import Scenario
from common.evaluation.audit import Outcome
from common.privacy import dpsgd
from common.privacy.plan import PrivacyPlan
from common.update import UpdateBatch
from simulations.audit import scenario as audits
from simulations.audit.adversary import Adversary
from simulations.audit.expected import claimed_stddev, noise_of_those_left_out
from simulations.audit.planting import plant
from simulations.audit.watching import watch
from simulations.progress import Silent
from tests.simulations.test_audit import CLIP, SPECTRAL, WORDS, few, scenario

EXAMPLE = scenario(
    WORDS,
    "record",
    "example",
    privacy=CLIP,
    training={"local_steps": 4, "unit_rate": 0.1, "batch_size": 8},
    federation={"rounds": 1},
)
CASES = {
    "central": scenario(SPECTRAL, "record", "central"),
    "central, local steps": scenario(WORDS, "client", "central", privacy=CLIP),
    "distributed": scenario(SPECTRAL, "record", "distributed", federation={"secure_aggregation": "full"}),
    "local": scenario(WORDS, "client", "local", privacy=CLIP),
    "example": EXAMPLE,
}


@pytest.mark.parametrize("name", CASES)
def test_noise_is_as_expected_in_every_view(name: str, tmp_path: Path) -> None:
    planted = plant(CASES[name], tmp_path, Silent(), count=150, seed=2)
    seen = watch(planted)
    findings = noise_of_those_left_out(planted, seen)
    assert {f.subject.split(", ")[1] for f in findings} == {"sums"} | (
        {"updates"} if name in ("local", "example") else set()
    )
    assert all(finding.holds for finding in findings), findings
    left_out = ~planted.canaries.included & (planted.canaries.design == 0)
    table = claimed_stddev(planted, "table")
    if planted.work.scenario.task.family == "word2vec":
        assert seen.table[0, left_out].std() * planted.work.plan.l2_clip_norm == pytest.approx(
            table * planted.work.plan.l2_clip_norm, rel=0.3
        )
    else:
        assert table == float("inf")


def less_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """A third of the noise, which no test in seeded mode would see."""
    honest = dpsgd.train_example_mode

    def trained(*given: Any, plan: PrivacyPlan, **named: Any) -> UpdateBatch:
        weaker = dataclasses.replace(plan, noise_multiplier=plan.noise_multiplier / 3)
        return honest(*given, plan=plan if plan.test_mode else weaker, **named)

    monkeypatch.setattr(dpsgd, "train_example_mode", trained)


def audited(which: Scenario) -> audits.AuditResult:
    return audits.audit_scenario(which, reporter=Silent(), canaries=300, seed=4, adversary=Adversary(references=0))


def test_weakened_canaries_do_not_look_strong_where_noise_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sampling at a tenth: no test can refute the claim, and noise that is a third must not pass for evidence."""
    few(monkeypatch)
    honest = audited(EXAMPLE)
    assert honest.outcome[0] is Outcome.INCONCLUSIVE and all(f.holds for f in honest.findings)
    less_noise(monkeypatch)
    broken = audited(EXAMPLE)
    assert all(view.verdict.outcome is not Outcome.CONSISTENT for view in broken.views)
    assert broken.outcome[0] is Outcome.VIOLATION_FOUND  # what was left out holds too little noise
