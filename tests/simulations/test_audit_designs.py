"""Canaries of every design go the real way, unit to update to clip; designs that cannot be planted are named."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client import training
from common import families, wire
from common.evaluation.audit import Outcome, Verdict
from common.families import Family
from common.privacy import table_gradients
from common.privacy.clipping import ClippedBatch, canonical, clip
from common.table import RowDomain
from common.units import Interaction, Record, Units
from common.update import ParameterSpec, UpdateBatch, squared_norms
from server import rounds as server_rounds
from simulations.audit import scenario as audits
from simulations.audit.canaries import DESIGNS, OVER_NORM, REPEATS, left_out
from simulations.audit.planting import plant
from simulations.audit.scenario import verdicts
from simulations.audit.watching import watch
from simulations.mutants import all_mutants
from simulations.progress import Silent
from tests.server.test_rounds import machine, reply
from tests.simulations.test_audit import CLIP, ROUNDS, SPECTRAL, WORDS, canaries, scenario

QUIET = {"noise_multiplier": 0.02}
CASES = {
    "statistics, central": scenario(SPECTRAL, "record", "central", privacy=QUIET),
    "local steps, central": scenario(WORDS, "client", "central", privacy=CLIP | QUIET),
    "gradients, example": scenario(
        WORDS,
        "record",
        "example",
        privacy=CLIP | QUIET,
        training={"local_steps": 1, "unit_rate": 1.0, "batch_size": 8, "lr": 0.8},
    ),
}
UNIT_OF = {"gradients, example": 0.1}  # lr / B, by which example mode sends


def traces(name: str, out: Path) -> dict[str, float]:
    """What the sums of all rounds hold of canaries that took part, in clips a round: the mean of each design."""
    made = plant(CASES[name], out, Silent(), count=100, seed=3)
    seen = watch(made)
    total = (made.canaries.shares(1) * seen.sums).sum(axis=0) / ROUNDS / UNIT_OF.get(name, 1.0)
    kinds = {d: made.canaries.of_design(d) for d in DESIGNS if d not in made.left_out}
    return {kind: float(total[of][made.canaries.included[of]].mean()) for kind, of in kinds.items()}


def parts_clipped(batch: UpdateBatch, bound: float) -> ClippedBatch:
    """The norm of the parts that name a row, and not of their sum: sqrt(16) times the clip."""
    apart = next(m for m in all_mutants() if m.name == "repeated rows not summed before the norm").subject.clip
    return ClippedBatch(canonical(apart(batch, bound).batch), 0, 0)


@pytest.mark.parametrize("name", CASES)
def test_a_clip_of_the_parts_is_seen_by_repeated_canaries_alone(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Repeated rows reach the clip as they are: units' statistics, whole clients, gradients of units."""
    monkeypatch.setattr(training, "clip", parts_clipped)
    monkeypatch.setattr(table_gradients, "_repeats_summed", lambda found: found)
    monkeypatch.setattr(server_rounds, "NORM_SLACK", 1e6)
    broken = traces(name, tmp_path)
    assert broken.pop("repeated") == pytest.approx(np.sqrt(REPEATS), abs=0.25)
    assert all(found == pytest.approx(1.0, abs=0.06) for found in broken.values())


def test_the_clip_sums_repeated_rows_before_their_norm(tmp_path: Path) -> None:
    """The same with the real clip."""
    for found in traces("statistics, central", tmp_path).values():
        assert found == pytest.approx(1.0, abs=0.06)


def test_a_repeated_canary_names_its_row_until_the_clip() -> None:
    made = canaries()
    chosen = made.of_design("repeated")
    sent = made.contributions(chosen, 1)
    assert np.diff(sent.rows["a"].offsets).tolist() == [REPEATS] * len(chosen)
    np.testing.assert_array_equal(sent.rows["a"].ids, np.repeat(made.rows[chosen], REPEATS))
    np.testing.assert_allclose(np.sqrt(squared_norms(sent)), OVER_NORM * 0.5 / np.sqrt(REPEATS), rtol=1e-5)
    np.testing.assert_allclose(np.sqrt(squared_norms(canonical(sent))), OVER_NORM * 0.5, rtol=1e-5)
    assert np.diff(clip(sent, 0.5).batch.rows["a"].offsets).tolist() == [1] * len(chosen)


# --- what cannot be planted


def test_what_a_family_cannot_hold_is_named_with_the_reason(tmp_path: Path) -> None:
    table, dense = ParameterSpec("a", (30, 4), "rows"), ParameterSpec("c", (5, 2))
    assert set(left_out([table, dense], rounds=2, family="f")) == {"heavy weight"}
    alone = left_out([dense], rounds=1, family="image")
    assert set(alone) == {"heavy weight", "split", "alternating", "repeated"}
    assert all("'image'" in alone[design] for design in ("heavy weight", "split", "repeated"))
    made = plant(CASES["statistics, central"], tmp_path, Silent(), count=100, seed=3)
    planted = {DESIGNS[number] for number in np.unique(made.canaries.design)}
    assert made.settings["designs_left_out"] == made.left_out
    assert planted.isdisjoint(made.left_out) and planted | set(made.left_out) == {*DESIGNS, "heavy weight"}


def of_interactions() -> list[Family]:
    found = [families.load(name) for name in families.names()]
    return [family for family in found if "interactions" in family.records]


@pytest.mark.parametrize("family", of_interactions(), ids=lambda family: family.name)
def test_no_family_encodes_the_weight_that_a_record_declares(family: Family) -> None:
    """So that no canary can be made of it. A family that begins to must have such a canary."""
    domain, options = RowDomain(tuple("abcdef")), family.Options()

    def encoded(weight: float) -> Units:
        some = [Interaction("u", item, weight=weight) for item in "abc"]
        return family.encode([Record("client", "unit", value) for value in some], domain, options)

    one, heavy = encoded(1.0), encoded(1e30)
    assert set(one.columns) == set(heavy.columns)
    for name, column in one.columns.items():
        np.testing.assert_array_equal(column, heavy.columns[name])


@pytest.mark.parametrize("key", ["num_examples", "num-examples", "weight"])
def test_no_message_carries_a_weight_that_counts(key: str) -> None:
    sums: list[Any] = []
    for extra in ({}, {key: 1000}):
        made, work = machine()
        plain = reply(work, [1.0, 2.0, 3.0], **extra)
        arrays = {**plain.arrays, **{name: np.full(3, 1000.0, np.float32) for name in extra}}
        made.accept("m1", wire.Payload(plain.config, arrays))
        assert made.reasons["ok"] == 3
        sums.append(released(made, work))
    for name, value in sums[0].items():
        np.testing.assert_array_equal(value, sums[1][name])


def released(made: server_rounds.RoundMachine, work: Any) -> dict[str, Any]:
    from common.privacy.private_sum import release
    from common.privacy.rng import NoiseSource

    found = release(made.close(), work.plan, NoiseSource.seeded_for_tests(0))
    return {name: values for name, (_, values) in found.rows.items()} | found.dense


# --- one error rate for the whole audit


def test_all_tests_of_all_views_share_one_error_rate(tmp_path: Path) -> None:
    """Single updates, sums and the table; the sums under two names, but one claim, are one test."""
    which = scenario(WORDS, "client", "local", privacy=CLIP)
    made = plant(which, tmp_path, Silent(), count=100, seed=3)
    views = list(verdicts(made, watch(made), which))
    assert [view.view for view in views] == ["updates", "sums", "sums", "table"]
    assert len({view.claimed_epsilon for view in views}) == 1
    apart = [view.verdict.evidence for k, view in enumerate(views) if k != 2]
    assert sum(e.alpha for evidence in apart for e in evidence) == pytest.approx(0.05)


# --- silence says why


def test_where_rows_are_selected_silence_says_why(tmp_path: Path) -> None:
    steps = {"local_steps": 4, "unit_rate": 0.1, "batch_size": 8}
    few = {"rows": "selected", "rounds": 1}
    which = scenario(WORDS, "record", "example", privacy=CLIP, federation=few, training=steps)
    made = plant(which, tmp_path, Silent(), count=100, seed=3)
    found = list(verdicts(made, watch(made), which))
    assert {view.verdict.outcome for view in found} == {Outcome.INCONCLUSIVE}
    assert all(audits.LONE_ROWS in view.verdict.reason for view in found)
    refuted = dataclasses.replace(found[0].verdict, outcome=Outcome.VIOLATION_FOUND)
    assert audits.explained(refuted, made.work.plan, ["dedicated"]) is refuted


def test_a_design_without_any_trace_is_not_taken_for_silence(tmp_path: Path) -> None:
    """Were it left out, the others would speak for it."""
    which = scenario(WORDS, "client", "central", privacy=CLIP)
    made = plant(which, tmp_path, Silent(), count=100, seed=3)
    fine = Verdict(Outcome.CONSISTENT, "none of 8 tests rejects", 3.0, 1e-5)
    assert audits.explained(fine, made.work.plan, []) is fine
    told = audits.explained(fine, made.work.plan, ["dedicated"])
    assert told.outcome is Outcome.INCONCLUSIVE and "dedicated left no trace" in told.reason
    seen = watch(made)
    mute = np.where(made.canaries.design == DESIGNS.index("dedicated"), 0.0, seen.sums)
    for view, expected in (("sums", ["dedicated", "alternating"]), ("table", ["dedicated"])):
        scores = list(audits.scores_of(made, seen, view, mute * (made.canaries.design != DESIGNS.index("alternating"))))
        assert audits.silent_designs(made.canaries, view, scores) == expected
        assert audits.silent_designs(made.canaries, view, list(audits.scores_of(made, seen, view, seen.sums))) == []
