"""``fedembed audit`` from the command line: verdict, files, exit codes, bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.evaluation.report.audit_record import AuditRecord
from simulations.cli import main

SCENARIO = """
[task]
family = "spectral"
dimension = 4
[data]
reader = "corpus"
path = "planted"
unit = "record"
[vocabulary]
source = "hashed"
buckets = 60
[privacy]
mode = "central"
noise_multiplier = 1.2
delta = 1e-5
[federation]
rounds = 2
"""


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("audits") / "small.toml"
    path.write_text(SCENARIO)
    return path


@pytest.fixture(scope="module")
def release(scenario: Path) -> Path:
    assert main(["simulate", str(scenario), "--out", str(scenario.parent / "run"), "--json"]) == 0
    return scenario.parent / "run" / "release"


def test_a_scenario_is_judged_and_the_record_kept(scenario: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = scenario.parent / "audit"
    labels = scenario.parent / "labels.tsv"
    labels.write_text("".join(f"bucket:{k}\t{'even' if k % 2 else 'odd'}\n" for k in range(60)))
    arguments = ["audit", str(scenario), "--out", str(out), "--canaries", "300", "--seed", "1", "--json"]
    assert main([*arguments, "--references", "4", "--labels", str(labels)]) == 0
    told = json.loads(capsys.readouterr().out)
    record = AuditRecord.model_validate_json((out / "audit.json").read_text())
    assert record.outcome in ("CONSISTENT", "INCONCLUSIVE") and record.outcome == told["record"]["outcome"]
    assert {view.view for view in record.views} == {"sums", "table"} and record.settings["seed"] == 1
    assert all(finding.holds for finding in record.conformance)
    assert {leak.attack for leak in record.leaks} >= {"row_support", "membership", "reference_membership", "attributes"}
    assert record.settings["references"] == 4
    assert [entry.round for entry in record.spend] == [1, 2]
    assert record.spend[1].epsilon["public"] == record.claim.certificate["observers"]["public"]["epsilon"]
    assert record.map is not None and len(record.map.keys) == len(record.map.x) == 60
    assert "no quality task" in record.absent["quality"]
    assert "<html" in (out / "audit.html").read_text()


def test_a_release_alone_proves_no_noise(release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = tmp_path / "labels.tsv"
    keys = next((release / "tables").glob("*.keys.txt")).read_text().split()
    labels.write_text("".join(f"{key}\t{'even' if k % 2 else 'odd'}\n" for k, key in enumerate(keys)))
    assert main(["audit", str(release), "--out", str(tmp_path / "a"), "--labels", str(labels)]) == 0
    text = capsys.readouterr().out
    record = AuditRecord.model_validate_json((tmp_path / "a" / "audit.json").read_text())
    assert [entry.round for entry in record.spend] == [1, 2] and record.map is not None and not record.quality
    assert text.startswith("INCONCLUSIVE") and "attributes" in text and "not run: row_support" in text


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--canaries", "5"], 15, "fewer than"),
        (["--set", "privacy.mode=none", "--set", "privacy.noise_multiplier="], 15, "claims nothing"),
        (["--set", "privacy.mod=none"], 3, "privacy.mod"),
    ],
)
def test_bad_input_has_a_clear_answer(
    arguments: list[str], code: int, says: str, scenario: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", str(scenario), "--out", str(tmp_path / "a"), *arguments]) == code
    assert says in capsys.readouterr().err


def test_labels_and_links_that_do_not_fit_are_refused(
    release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key, other, *_ = next((release / "tables").glob("*.keys.txt")).read_text().split()
    for option, text, says in (
        ("--labels", "a\tb\tc\n", "expected 2 fields"),
        ("--labels", "nobody\tred\n", "labels no key"),
        ("--links", "a\tb\t2\n", "0 or 1"),
        ("--links", "a\tb\t1\n", "0 of them linked"),
        ("--links", f"{key}\t{key}\t1\n", "one key"),
        ("--links", f"{key}\t{other}\t1\n{other}\t{key}\t0\n", "linked and not linked"),
        ("--labels", f"{key}\tred\n{key}\tblue\n", "or two"),
        ("--labels", f"{key}\t \n", "no label"),
    ):
        path = tmp_path / "answers.tsv"
        path.write_text(text)
        assert main(["audit", str(release), "--out", str(tmp_path / "a"), option, str(path)]) != 0
        assert says in capsys.readouterr().err
    assert main(["audit", str(release), "--out", str(tmp_path / "a"), "--links", str(tmp_path / "none")]) != 0


@pytest.mark.parametrize("option", ["--labels", "--links"])
def test_files_of_answers_are_read_before_anything_is_trained(
    option: str, scenario: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing, torn = tmp_path / "none", tmp_path / "torn"
    torn.write_text("a\n")
    for path, code, says in ((missing, 3, "cannot read"), (torn, 15, "fields separated by tabs")):
        assert main(["audit", str(scenario), "--out", str(tmp_path / "a"), option, str(path)]) == code
        told = capsys.readouterr().err
        assert says in told and "planting" not in told
    assert not (tmp_path / "a").exists()


def test_an_altered_release_is_no_evidence(release: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(release, copy)
    certificate = copy / "certificate.json"
    certificate.write_text(certificate.read_text().replace('"delta"', '"Delta"', 1))
    assert main(["audit", str(copy), "--out", str(tmp_path / "a")]) in (9, 16)


@pytest.mark.parametrize(
    "arguments",
    [["--references", "5"], ["--references", "2"], ["--references", "-2"], ["--seed", "-1"], ["--canaries", "many"]],
)
def test_options_that_do_not_belong_to_a_scenario_are_refused(arguments: list[str], scenario: Path) -> None:
    assert main(["audit", str(scenario), *arguments]) == 2


@pytest.mark.parametrize("arguments", [["--canaries", "300"], ["--references", "2"], ["--set", "privacy.epsilon=1"]])
def test_options_that_do_not_belong_to_a_release_are_refused(arguments: list[str], release: Path) -> None:
    assert main(["audit", str(release), *arguments]) == 2
