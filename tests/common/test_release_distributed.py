"""A release of mode distributed: its claim is recomputed from the scenario and the tables."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.config import build_scenario
from common.privacy.claim import plan_of
from common.privacy.plan_sizing import sized
from common.release import verify, write_release
from common.release.contents import ReleaseContents
from common.table import EmbeddingTable, RowDomain
from common.work import work_for

from .test_release import edit

KEYS = tuple(f"word{i}" for i in range(20))


def scenario(**privacy: Any) -> Any:
    return build_scenario(
        {
            "task": {"family": "spectral", "dimension": 6},
            "data": {"unit": "record"},
            "privacy": {"mode": "distributed", **privacy},
            "federation": {"rounds": 2, "secure_aggregation": "full", "min_clients": 4, "max_clients": 8},
        }
    )


def write(folder: Path, **privacy: Any) -> Path:
    made = scenario(**privacy)
    plan = work_for(made, RowDomain(KEYS)).plan
    vectors = np.random.default_rng(3).standard_normal((len(KEYS), 6)).astype(np.float32)
    contents = ReleaseContents(
        tables={"rows": EmbeddingTable(KEYS, vectors)},
        certificate=plan.claim(2),
        scenario=made.model_dump(mode="json"),
        evaluation=[],
        rounds=[{"round": k, "step_norm": 1.0, "noise_stddev": plan.noise_stddev} for k in (1, 2)],
        model={},
        model_config={"family": "spectral"},
        notes={},
    )
    write_release(folder, contents)
    return folder


@pytest.fixture(scope="module", params=[{"noise_multiplier": 4.0}, {"epsilon": 2.0}], ids=["noise", "epsilon"])
def pristine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("releases") / "release", **request.param)


def forged(pristine: Path, tmp_path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """The report on a copy whose certificate is changed, with every digest made right again."""
    copy = Path(shutil.copytree(pristine, tmp_path / "release"))
    edit(copy, "certificate.json", change)
    return verify(copy)


def test_an_honest_release_is_confirmed(pristine: Path) -> None:
    report = verify(pristine)
    assert report.passed, [c for c in report.checks if not c.passed]
    assert any(c.name == "claim agrees with the tables" for c in report.checks)


def test_a_whole_claim_of_a_smaller_update_is_told_by_the_tables(pristine: Path, tmp_path: Path) -> None:
    """The dimension enters the sensitivity; every inner check of such a claim passes."""

    def smaller(claim: dict[str, Any]) -> dict[str, Any]:
        plan = plan_of(claim)
        open_ = dataclasses.replace(plan, target_epsilon=None, secure=dataclasses.replace(plan.secure, dimension=0))
        changed = dataclasses.replace(sized(open_, 60), target_epsilon=plan.target_epsilon)
        return json.loads(json.dumps(changed.claim(2)))

    report = forged(pristine, tmp_path, smaller)
    assert [c.name for c in report.checks if not c.passed and "tables" in c.name] == ["claim agrees with the tables"]


def test_a_claim_of_other_terms_is_told_by_the_scenario(pristine: Path, tmp_path: Path) -> None:
    def other(claim: dict[str, Any]) -> dict[str, Any]:
        plan = plan_of(claim)
        changed = dataclasses.replace(plan, secure=dataclasses.replace(plan.secure, survivors=8))
        return json.loads(json.dumps(changed.claim(2)))

    report = forged(pristine, tmp_path, other)
    assert not report.passed and any(not c.passed and "scenario" in c.name for c in report.checks)


@pytest.mark.parametrize("junk", [None, 0, -1, 1e308, "x", [], {}, True, 2**70])
def test_junk_in_the_terms_never_raises(pristine: Path, tmp_path: Path, junk: Any) -> None:
    def spoil(claim: dict[str, Any], name: str | None) -> dict[str, Any]:
        if name is None:
            return {**claim, "secure_sum": junk}
        return {**claim, "secure_sum": {**claim["secure_sum"], name: junk}}

    for number, name in enumerate((None, "dimension", "bits", "survivors", "max_clients", "scale", "aggregation")):
        report = forged(pristine, tmp_path / str(number), lambda claim, name=name: spoil(claim, name))
        assert not report.passed
