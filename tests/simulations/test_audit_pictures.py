"""What an audit's pictures are made of: spend by the claim's accountant, scores beside a baseline, a noised table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.config import Scenario, build_scenario
from common.evaluation import Score
from common.table import EmbeddingTable
from simulations.audit import pictures
from simulations.federation import enrolled_work

TABLE = EmbeddingTable(tuple("abcde"), np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32))
SCORE = Score("similarity", "spearman", 0.5, 0.4, 0.6, 20, 1.0, True, "random table", 0.0)


def scenario(**sections: dict[str, Any]) -> Scenario:
    base: dict[str, dict[str, Any]] = {
        "task": {"family": "spectral", "dimension": 4},
        "data": {"reader": "corpus", "path": "planted", "unit": "record"},
        "vocabulary": {"source": "hashed", "buckets": 40},
        "privacy": {"mode": "central", "noise_multiplier": 2.0, "delta": 1e-5},
        "federation": {"rounds": 3},
    }
    return build_scenario({name: base.get(name, {}) | sections.get(name, {}) for name in {**base, **sections}})


def claim(**privacy: Any) -> dict[str, Any]:
    plan = enrolled_work(scenario(privacy=privacy)).plan
    return plan.claim(plan.rounds)


def test_epsilon_over_rounds_ends_at_the_claim_and_only_grows() -> None:
    plan = enrolled_work(scenario()).plan
    spend = pictures.planned_spend(plan.claim(plan.rounds))
    public = [entry.epsilon["public"] for entry in spend]
    assert spend[-1].round == plan.rounds and public == sorted(public) and len(public) == 3
    assert public[-1] == pytest.approx(plan.epsilon("public"))
    assert public[0] == pytest.approx(plan.epsilon("public", spend[0].round))
    assert "coordinator" not in spend[0].epsilon  # mode central trusts it


def test_a_map_is_drawn_of_noised_tables_alone() -> None:
    honest = claim()
    found = pictures.map_of(TABLE, honest, refuted=False)
    assert found is not None and found.keys == TABLE.keys and len(found.x) == len(found.y) == 5
    assert pictures.map_of(TABLE, honest, refuted=True) is None
    void = claim(test_mode=True)
    assert void["void"] and pictures.map_of(TABLE, void, refuted=False) is None
    unprotected = {**honest, "observers": {**honest["observers"], "public": {"epsilon": None}}}
    for nothing in (unprotected, {**honest, "void": True}, {**honest, "void": None}, {}, {"void": False}):
        assert pictures.map_of(TABLE, nothing, refuted=False) is None
    few = EmbeddingTable(("a", "b"), TABLE.vectors[:2])
    assert pictures.map_of(few, honest, refuted=False) is pictures.map_of(None, honest, refuted=False) is None


def test_the_unprotected_run_claims_nothing() -> None:
    found = pictures.quality_of({"audited": [SCORE], "unprotected": [SCORE]}, claim())
    assert [(q.run, q.epsilon) for q in found] == [
        ("audited", claim()["observers"]["public"]["epsilon"]),
        ("unprotected", "inf"),
    ]
    assert pictures.quality_of({"released": [SCORE]}, {**claim(), "void": True})[0].epsilon == "inf"


def test_what_is_missing_says_why() -> None:
    def absent(found: dict[str, Any], table: EmbeddingTable | None = TABLE) -> Any:
        return pictures.with_reasons(found, quality="why", table=table)["absent"]

    nothing: dict[str, Any] = {"spend": (), "quality": (), "map": None}
    assert absent(nothing) == {"spend": pictures.NO_ROUNDS, "quality": "why", "map": pictures.NO_NOISE}
    assert absent(nothing, None)["map"] == pictures.NO_TABLE
    assert absent({"spend": (1,), "quality": (1,), "map": 1}) == {}


def test_tables_are_scored_beside_the_one_before_training(tmp_path: Path) -> None:
    words = enrolled_work(scenario()).domain
    assert words is not None
    table = EmbeddingTable(words.keys, np.random.default_rng(1).standard_normal((40, 4)).astype(np.float32))
    tables = {"audited": table, "unprotected": None}
    assert pictures.measured(scenario(), tables, tmp_path).reason == pictures.NO_TASK
    asked = scenario(evaluation={"tasks": ["isotropy"]})
    found = pictures.measured(asked, tables, tmp_path)
    assert list(found.scores) == ["audited"] and not found.reason
    assert {score.task for score in found.scores["audited"]} == {"isotropy"}
    assert pictures.measured(asked, {"audited": None}, tmp_path).reason == pictures.NO_TABLE
    unfit = scenario(evaluation={"tasks": [f"similarity:{tmp_path / 'none.tsv'}"]})
    assert "could not be measured" in pictures.measured(unfit, tables, tmp_path).reason
