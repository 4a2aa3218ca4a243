"""The benchmark of the quality tasks at its tiny size: every task is asked something that it can answer."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from common.evaluation import quality
from simulations import benchmarks
from simulations.benchmarks import _evaluation_side, evaluation
from simulations.benchmarks._evaluation_side import EvaluationJob, keys_of
from simulations.benchmarks._harness import missed
from simulations.benchmarks._peers import run_ours


def test_quick_runs_every_task_and_claims_no_bar() -> None:
    rows = benchmarks.load("evaluation").run(quick=True)
    measured = {row.measure.partition(":")[0] for row in rows}
    assert {"similarity", "isotropy", "hubness", "dimension", "bias", "drift", "neighbors"} <= measured
    assert {name for name in quality.names() if quality.load(name).needs == "table"} <= measured
    assert len(rows) == 2 * len(measured) and all(row.holds is None and row.value >= 0 for row in rows)


def test_a_task_in_its_own_process() -> None:
    found = run_ours(evaluation.MODULE, asdict(EvaluationJob("isotropy", 500, 4, 10)))
    assert 0 < found["seconds"] < 60 and 10**7 < found["peak_bytes"] < 2**31


@pytest.mark.parametrize(("gib", "fails"), [(3.9, False), (4.1, True)])
def test_the_bar_is_four_gib(gib: float, fails: bool) -> None:
    found = {"seconds": 1.0, "peak_bytes": gib * 2**30}
    assert missed(evaluation.listed("knn", found, judged=True)) is fails
    assert not missed(evaluation.listed("knn", found, judged=False))


def test_keys_are_different_words() -> None:
    keys = keys_of(30_000)
    assert len(set(keys)) == 30_000 and all(len(key) == 6 and key.isalpha() for key in keys)
    assert keys[0] == "waaaaa" and keys[27] == "waaabb"


def test_files_name_keys_of_the_table(tmp_path) -> None:  # type: ignore[no-untyped-def]
    for task in _evaluation_side.FILES:
        file = _evaluation_side.benchmark_file(EvaluationJob(task, 900, 4, 30), keys_of(900), tmp_path)
        assert file is not None and file.stat().st_size > 100
    assert _evaluation_side.benchmark_file(EvaluationJob("isotropy", 900, 4, 30), keys_of(900), tmp_path) is None
