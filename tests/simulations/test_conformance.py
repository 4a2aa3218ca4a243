"""``fedembed conformance``: what it runs for each mode, what it prints, and how a violation ends."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from common.config import build_scenario
from common.errors import ConformanceError
from common.evaluation.conformance import Bench, failures
from common.privacy.mechanisms.gaussian import Gaussian
from common.work import work_for
from simulations import cli
from simulations.conformance import bench_for, checks_of, conformance, small_specs
from simulations.federation import enrolled_work
from simulations.mutants import all_mutants
from simulations.trial_records import trial_records

BASE = {
    "task": {"family": "spectral", "dimension": 4},
    "data": {"reader": "corpus", "path": "planted", "unit": "record"},
    "vocabulary": {"source": "hashed", "buckets": 60},
    "privacy": {"noise_multiplier": 2.0},
    "federation": {"rounds": 2},
}
WORDS = {
    "task": {"family": "word2vec", "dimension": 4},
    "vocabulary": {"source": "public", "path": "python-stdlib", "max_rows": 200},
    "privacy": {"mode": "example", "noise_multiplier": 2.0, "l2_clip_norm": 0.5},
    "training": {"local_steps": 5, "unit_rate": 0.2, "batch_size": 8},
}


def scenario(*changes: dict[str, dict[str, object]]):
    raw: dict[str, dict[str, object]] = {name: dict(section) for name, section in BASE.items()}
    for change in changes:
        for name, section in change.items():
            raw[name] = {**(raw.get(name, {}) if name not in ("task", "privacy") else {}), **section}
    return build_scenario(raw)


CASES = {
    "central, record units": scenario(),
    "central, sampled clients": scenario(
        {"data": {"unit": "client"}, "federation": {"sampling": "poisson", "rate": 0.5}}
    ),
    "local, record units": scenario({"privacy": {"mode": "local", "noise_multiplier": 2.0}}),
    "local, whole clients": scenario(
        {"data": {"unit": "client"}, "privacy": {"mode": "local", "noise_multiplier": 2.0}}
    ),
    "example": scenario(WORDS),
    "example, selected rows": scenario(WORDS, {"federation": {"rows": "selected"}}),
    "useritem": scenario(
        {"task": {"family": "useritem", "dimension": 4}, "data": {"path": "planted-ratings", "unit": "user"}}
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_a_scenario_configures_conforms(name: str) -> None:
    found = conformance(CASES[name])
    assert failures(found) == []
    assert {finding.test for finding in found} == {"T1", "T2", "T3", "T4", "T5"}
    assert [f.test for f in found] == sorted(f.test for f in found)


@pytest.mark.parametrize(
    ("name", "seen_by"), [("example", ("table_noise", "table_reads")), ("example, selected rows", ("false_positives",))]
)
def test_example_mode_is_tried_with_the_engine_of_its_rows(name: str, seen_by: tuple[str, ...]) -> None:
    """Every fault in how rows are guarded is noticed by the command, not by the test suite alone."""
    checks = {check.name: check for check in checks_of(enrolled_work(CASES[name]))}
    assert ("table_noise" in checks) != ("vote_sensitivity" in checks)
    mutants = [mutant for mutant in all_mutants() if mutant.killed_by in seen_by]
    assert len(mutants) > 1
    for mutant in mutants:
        with mutant.installed():
            found = failures(checks[mutant.killed_by].run(Bench(), 0))
        assert found and all(f.subject.startswith("table engine: ") for f in found), mutant.name


def test_an_encoder_without_tables_is_not_tried_with_an_engine_of_tables() -> None:
    changes = {"task": {"family": "image", "size": 16}, "data": {"reader": "images", "path": "p", "unit": "image"}}
    work = work_for(scenario(WORDS, changes, {"data": {"classes": ["a", "b", "c", "d"]}}), None)
    assert not any(check.name.startswith(("table_", "vote_")) for check in checks_of(work))


def test_mode_none_has_nothing_to_conform_to() -> None:
    assert conformance(scenario({"privacy": {"mode": "none"}})) == []


@pytest.mark.parametrize("name", ["central, record units", "local, whole clients"])
def test_the_noise_is_that_of_the_client_s_and_coordinator_s_own_code(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Gaussian.add_noise
    monkeypatch.setattr(Gaussian, "add_noise", lambda self, p, stddev, source: honest(self, p, stddev * 2 / 3, source))
    work = enrolled_work(CASES[name])
    found = {c.name for c in checks_of(work) if failures(c.run(bench_for(work), 0))}
    assert "noise_scale" in found


def test_the_draw_and_the_divisor_are_those_of_the_coordinator(monkeypatch: pytest.MonkeyPatch) -> None:
    from simulations import conformance as module

    work = enrolled_work(CASES["central, sampled clients"])
    everyone = {c.name: c for c in checks_of(work)}
    monkeypatch.setattr(
        module, "drawn_clients", lambda work, nodes, source: {n.node_id: np.arange(n.clients) for n in nodes}
    )
    assert failures(everyone["poisson_draw"].run(bench_for(work), 0))
    assert failures(everyone["cardinality"].run(bench_for(work), 0)) == []


def test_the_clip_is_that_of_the_client_s_own_code(monkeypatch: pytest.MonkeyPatch) -> None:
    from client import training
    from common.privacy.clipping import ClippedBatch

    monkeypatch.setattr(training, "clip", lambda batch, bound: ClippedBatch(batch, 0, 0))
    for name in ("central, record units", "local, whole clients"):
        work = enrolled_work(CASES[name])
        found = {c.name for c in checks_of(work) if failures(c.run(bench_for(work), 0))}
        assert "sensitivity" in found, name


def written(path: Path) -> str:
    path.write_text(
        """
[task]
family = "spectral"
dimension = 4
[data]
reader = "corpus"
path = "planted"
[vocabulary]
source = "hashed"
buckets = 60
[privacy]
noise_multiplier = 2.0
"""
    )
    return str(path)


def test_the_table_and_the_json_say_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path / "s.toml")
    assert cli.main(["conformance", file]) == 0
    shown = capsys.readouterr().out
    assert cli.main(["conformance", file, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["conforms"] is True and told["mode"] == "central"
    assert f"{len(told['findings'])} tests, no violation" in shown
    assert shown.split()[:4] == ["test", "subject", "statistic", "verdict"]
    assert all(finding["statistic"] in shown for finding in told["findings"])


def test_a_violation_has_an_exit_code_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def bare(self: Gaussian, parameters, stddev, source):  # type: ignore[no-untyped-def]
        return {name: np.asarray(array, dtype=np.float32) for name, array in parameters.items()}

    monkeypatch.setattr(Gaussian, "add_noise", bare)
    file = written(tmp_path / "s.toml")
    assert cli.main(["conformance", file]) == ConformanceError.exit_code == 16
    captured = capsys.readouterr()
    assert "VIOLATION" in captured.out and "Release nothing" in captured.err
    assert cli.main(["conformance", file, "--json"]) == 16
    assert json.loads(capsys.readouterr().out)["conforms"] is False


def test_without_noise_the_command_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["conformance", written(tmp_path / "s.toml"), "--set", "privacy.mode=none"]
    assert cli.main([*words, "--set", "privacy.noise_multiplier="]) == 0
    assert "nothing to conform to" in capsys.readouterr().out


def test_a_refused_scenario_ends_as_everywhere(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["conformance", "no-such-scenario"]) == 3
    assert cli.main(["conformance", "--set", "privacy.mechanism=gausian"]) in (3, 4)
    assert "did you mean" in capsys.readouterr().err


def test_parameters_are_made_small_and_keep_their_names() -> None:
    work = enrolled_work(CASES["example"])
    small = small_specs(work.update_specs)
    assert [s.name for s in small] == [s.name for s in work.update_specs]
    assert all(s.shape[0] <= 64 for s in small if s.is_table)


def test_records_are_made_for_every_kind() -> None:
    keys = [f"k{i}" for i in range(9)]
    for kind in ("text", "interactions", "images"):
        records = trial_records(kind, keys)
        assert len({r.client for r in records}) == 4 and len({(r.client, r.unit) for r in records}) == 48
