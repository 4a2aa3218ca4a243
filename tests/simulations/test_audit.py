"""Audits: what canaries send, what an adversary reads of them, and that a broken mechanism is found."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from common.config import Scenario, build_scenario
from common.errors import EvaluationError
from common.evaluation.audit import Outcome
from common.privacy.clipping import canonical, clip
from common.privacy.mechanisms import gaussian
from common.privacy.private_sum import Released
from common.table import FloatArray, IntArray
from common.update import ParameterSpec, squared_norms
from simulations.audit import scenario as audits
from simulations.audit.adversary import Adversary
from simulations.audit.attacks import tried, truth_of
from simulations.audit.canaries import DESIGNS, OVER_NORM, Canaries
from simulations.audit.families import MARK, ordinary
from simulations.audit.planting import Planted, plant, unprotected
from simulations.audit.watching import Watched, watch
from simulations.progress import Silent

ROUNDS, CANARIES = 2, 100
SPECS = (ParameterSpec("a", (30, 4), "rows"), ParameterSpec("b", (30, 3), "rows"), ParameterSpec("c", (5, 2)))


def scenario(task: dict[str, Any], unit: str, mode: str, **sections: dict[str, Any]) -> Scenario:
    raw = {
        "task": task,
        "data": {"reader": "corpus", "path": "planted", "unit": unit},
        "vocabulary": {"source": "hashed", "buckets": 60},
        "privacy": {"mode": mode, "noise_multiplier": 1.2, "delta": 1e-5} | sections.get("privacy", {}),
        "federation": {"rounds": ROUNDS} | sections.get("federation", {}),
        "training": sections.get("training", {}),
    }
    return build_scenario(raw)


SPECTRAL = {"family": "spectral", "dimension": 4}
WORDS = {"family": "word2vec", "dimension": 4}
CLIP = {"l2_clip_norm": 0.5}
ALONE = Adversary(references=0)
CASES = {
    "statistics of records, central": scenario(SPECTRAL, "record", "central"),
    "whole clients, central": scenario(WORDS, "client", "central", privacy=CLIP),
    "statistics of records, distributed": scenario(
        SPECTRAL, "record", "distributed", federation={"secure_aggregation": "full"}
    ),
}


def planted(which: Scenario, out: Path) -> Planted:
    return plant(which, out, Silent(), count=CANARIES, seed=3)


def canaries(count: int = 12) -> Canaries:
    design = np.arange(count) % len(DESIGNS)
    return Canaries(np.arange(count) % 2 == 0, design, SPECS, first_row=24, per_row=3, l2_clip_norm=0.5)


def test_a_clipped_canary_is_read_as_exactly_one() -> None:
    made = canaries()
    for number in (1, 2):
        sent = made.contributions(np.arange(12), number)
        np.testing.assert_allclose(np.sqrt(squared_norms(canonical(sent))), OVER_NORM * 0.5, rtol=1e-5)
        clipped = clip(sent, 0.5).batch
        for k in range(12):
            rows: dict[str, tuple[IntArray | None, FloatArray]] = {
                n: (t.ids[t.offsets[k] : t.offsets[k + 1]], t.values[t.offsets[k] : t.offsets[k + 1]])
                for n, t in clipped.rows.items()
            }
            alone = Released(rows, {n: a[k] for n, a in clipped.dense.items()})
            read = (made.shares(number) * made.projections(alone, number)).sum(axis=0)
            assert read[k] == pytest.approx(1.0, abs=1e-5)
            parts = made.traces(clipped, np.array([k]), np.array([k]))
            np.testing.assert_allclose(parts[:, 0], made.projections(alone, number)[:, k], atol=1e-6)
            assert np.abs(np.delete(read, k)).max() < 0.5  # only random directions of dense arrays overlap


def test_alternating_canaries_change_their_sign() -> None:
    made = canaries()
    chosen = made.of_design("alternating")
    first, second = (made.contributions(chosen, number).rows["a"].values for number in (1, 2))
    np.testing.assert_array_equal(first, -second)
    assert (made.contributions(made.of_design("dedicated"), 2).rows["a"].values >= 0).all()


@pytest.fixture(scope="module", params=CASES, ids=str)
def watched(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Planted, Watched]:
    made = planted(CASES[request.param], tmp_path_factory.mktemp("audit"))
    return made, watch(made)


def test_sums_hold_the_canaries_and_the_accounted_noise(watched: tuple[Planted, Watched]) -> None:
    made, seen = watched
    total, included = (made.canaries.shares(1) * seen.sums).sum(axis=0), made.canaries.included
    wanted = made.work.plan.noise_stddev / made.work.plan.l2_clip_norm * np.sqrt(ROUNDS)
    if made.work.plan.secure is not None:
        wanted = made.work.plan.grid.noise_stddev(len(made.store)) * np.sqrt(ROUNDS)
    assert total[~included].std() == pytest.approx(wanted, rel=0.25)
    error = wanted * np.sqrt(1 / included.sum() + 1 / (~included).sum())
    assert abs(total[included].mean() - total[~included].mean() - ROUNDS) < 5 * error


def test_what_the_coordinator_cannot_see_is_not_in_view(watched: tuple[Planted, Watched]) -> None:
    made, seen = watched
    single = [view.updates is not None for view in seen.view.rounds]
    assert any(single) == (made.work.plan.mode != "distributed")
    assert (seen.updates is None) == (made.work.plan.mode == "distributed")
    assert seen.view.table is not None and len(seen.view.table) == made.real_rows == 60


def test_real_clients_are_as_they_were_and_half_of_the_candidates_are_gone(tmp_path: Path) -> None:
    made = planted(CASES["statistics of records, central"], tmp_path)
    candidates, member = made.asked.candidates, made.asked.member
    assert candidates is not None and member is not None
    trained = {tuple(ordinary(made.store.client(k)).slice(u, u + 1).columns["rows"].tolist())
               for k in range(made.real_clients) for u in range(made.store.client(k).count)}  # fmt: skip
    asked = candidates.rows
    left_out = [tuple(asked.slice(n, n + 1).columns["rows"].tolist()) for n in range(asked.count) if not member[n]]
    assert 0.3 < member.mean() < 0.7
    assert sum(unit in trained for unit in left_out) < 0.2 * len(left_out)  # the same few words may come twice
    marks = [made.store.client(k).columns[MARK] for k in range(made.real_clients)]
    assert all((mark == -1).all() for mark in marks)


def test_attacks_stand_beside_the_unprotected_run(tmp_path: Path) -> None:
    made = planted(CASES["whole clients, central"], tmp_path)
    control = planted(unprotected(CASES["whole clients, central"]), tmp_path)
    np.testing.assert_array_equal(made.canaries.included, control.canaries.included)
    leaks, not_run = tried(watch(made).view, watch(control).view, truth_of(made), names=("row_support", "links"))
    assert {leak.attack for leak in leaks} == {"row_support"} and {n.attack for n in not_run} == {"links"}
    assert all(np.isfinite(leak.control_value) for leak in leaks)


def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Conformance and attacks have tests of their own."""
    monkeypatch.setattr(audits, "conformance", lambda which: [])
    monkeypatch.setattr(audits, "tried", lambda *given: ([], []))


@pytest.mark.parametrize("factor", [0.0, 1 / 3])
def test_noise_that_is_too_small_is_found(factor: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few(monkeypatch)
    honest = gaussian.MECHANISM.add_noise
    broken = type("Broken", (), {"name": "gaussian", "event": gaussian.MECHANISM.event})()
    broken.add_noise = lambda arrays, stddev, source: honest(arrays, stddev * factor + 1e-6, source)
    monkeypatch.setattr(gaussian, "MECHANISM", broken)
    found = audits.audit_scenario(
        CASES["statistics of records, central"], reporter=Silent(), canaries=400, seed=5, adversary=ALONE
    )
    assert found.outcome[0] is Outcome.VIOLATION_FOUND


def test_a_run_in_seeded_test_mode_gets_no_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few(monkeypatch)
    seeded = scenario(SPECTRAL, "record", "central", privacy={"test_mode": True})
    outcome, reason = audits.audit_scenario(
        seeded, reporter=Silent(), canaries=CANARIES, seed=5, adversary=ALONE
    ).outcome
    assert outcome is Outcome.INCONCLUSIVE and "seed" in reason


def test_what_cannot_be_audited_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="claims nothing"):
        audits.audit_scenario(unprotected(CASES["whole clients, central"]), reporter=Silent())
    with pytest.raises(EvaluationError, match="fewer than"):
        plant(CASES["whole clients, central"], tmp_path, Silent(), count=99, seed=0)


def test_claims_of_an_audit_are_those_of_the_masked_sum(tmp_path: Path) -> None:
    which = CASES["statistics of records, distributed"]
    made = planted(which, tmp_path)
    assert made.work.scenario.federation.secure_aggregation == "ideal"
    assert np.isinf(made.work.plan.epsilon("coordinator"))
    plan = audits.claimed_plan(made, which)
    assert np.isfinite(plan.epsilon("coordinator"))
    assert dataclasses.replace(plan, secure=made.work.plan.secure) == made.work.plan


def test_every_array_is_looked_at_and_named() -> None:
    few = audits.apart(["a", "b"])
    assert {name: group.tolist() for name, group in few.items()} == {"split, a alone": [0], "split, b alone": [1]}
    names = [f"layer{k}" for k in range(21)]
    groups = audits.apart(names)
    assert len(groups) == audits.MOST_APART
    np.testing.assert_array_equal(np.sort(np.concatenate(list(groups.values()))), np.arange(21))
    for told, group in groups.items():
        assert told == f"split, {' + '.join(names[k] for k in group)} together"


def test_noise_that_one_of_many_arrays_lacks_shows_in_its_group() -> None:
    """Ten arrays; two neighbours without noise: only the test of their group tells who took part."""
    rng, count = np.random.default_rng(0), 400
    specs = tuple(ParameterSpec(f"layer{k}", (4, 2)) for k in range(10))
    made = Canaries(rng.random(count) < 0.5, np.ones(count, np.int64), specs, 0, 1, l2_clip_norm=1.0)
    parts = made.included * made.shares(1) + rng.normal(0, 3, (10, count))
    parts[:2] = made.included * made.shares(1)[:2]
    plan = SimpleNamespace(sampling="full", mode="central")
    which = SimpleNamespace(canaries=made, work=SimpleNamespace(plan=plan))
    seen = SimpleNamespace(supports=np.zeros((1, count)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audits, "claimed_stddev", lambda planted, view: 3.0)
        scores = {s.design: s for s in audits.scores_of(which, seen, "updates", parts)}  # type: ignore[arg-type]
    assert "split, layer0 + layer1 together" in scores
    for design, found in scores.items():
        parted = found.scores[found.included].min() > found.scores[~found.included].max()
        assert parted == design.startswith("split, layer0 + layer1"), design
