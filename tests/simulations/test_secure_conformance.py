"""Conformance of scenarios in mode distributed: the client's own code under the checks of secure sums."""

from __future__ import annotations

import numpy as np
import pytest

from common.config import build_scenario
from common.evaluation.conformance import Bench, failures
from common.privacy import distributed
from common.work import Work
from simulations.federation import enrolled_work
from simulations.secure_conformance import secure_checks_of


def work(task: dict[str, object], unit: str, **federation: object) -> Work:
    clip = {"l2_clip_norm": 0.5} if task["family"] == "word2vec" else {}
    terms = {"rounds": 2, "secure_aggregation": "full", "min_clients": 6, "max_clients": 9, "colluders": 1}
    return enrolled_work(
        build_scenario(
            {
                "task": task,
                "data": {"reader": "corpus", "path": "planted", "unit": unit},
                "vocabulary": {"source": "hashed", "buckets": 60},
                "privacy": {"mode": "distributed", "noise_multiplier": 2.0, "delta": 1e-5, **clip},
                "federation": terms | federation,
                "seed": 3,
            }
        )
    )


CASES = {
    "record units": ({"family": "spectral", "dimension": 4}, "record", {}),
    "whole clients, statistics": ({"family": "spectral", "dimension": 4}, "client", {"bits": 16}),
    "whole clients, local steps": ({"family": "word2vec", "dimension": 4}, "client", {}),
}


@pytest.mark.parametrize("name", CASES)
def test_what_a_scenario_configures_conforms(name: str) -> None:
    task, unit, federation = CASES[name]
    which = work(task, unit, **federation)
    found = [finding for check in secure_checks_of(which) for finding in check.run(Bench(), 0)]
    assert failures(found) == [] and {f.test for f in found} == {"T1", "T2", "T3", "T5"}


@pytest.mark.parametrize("name", CASES)
def test_the_noise_is_that_of_the_client_s_own_code(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = distributed._share
    monkeypatch.setattr(distributed, "_share", lambda grid, source: honest(grid, source) * 2 // 3)
    task, unit, federation = CASES[name]
    found = {c.name for c in secure_checks_of(work(task, unit, **federation)) if failures(c.run(Bench(), 0))}
    assert "secure_noise" in found


def test_the_bound_is_that_of_the_client_s_own_code(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = distributed.client_vector
    monkeypatch.setattr(
        distributed,
        "client_vector",
        lambda plan, specs, integers, source: honest(plan, specs, np.where(integers, integers * 2, 0), source),
    )
    task, unit, federation = CASES["whole clients, local steps"]
    found = {c.name for c in secure_checks_of(work(task, unit, **federation)) if failures(c.run(Bench(), 0))}
    assert "secure_sensitivity" in found
