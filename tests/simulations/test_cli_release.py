"""Commands on a release, on a small one that is written here."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from common.config import Scenario, build_scenario
from common.evaluation.score import Score
from common.privacy.plan import make_plan
from common.release import ReleaseContents, load_release, write_release
from common.table import EmbeddingTable
from simulations import cli
from simulations.commands import output, summary

KEYS = ("cat", "dog", "horse", "car", "bus", "train")
ANIMALS, VEHICLES = (1.0, 0.1, 0.0), (0.0, 0.1, 1.0)


@pytest.fixture(scope="module")
def scenario() -> Scenario:
    return build_scenario(
        {
            "privacy": {"mode": "none"},  # its claim is made and verified at once: nothing is to be accounted
            "data": {"unit": "sentence"},
            "evaluation": {"neighbors_of": ["cat", "unknown", "bus"]},
        }
    )


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory, scenario: Scenario) -> Path:
    """A run's folder with a release of two tables, ``vehicles`` not the main one."""
    folder = tmp_path_factory.mktemp("run")
    plan = make_plan(
        scenario.privacy, scenario.federation, scenario.training, unit="sentence", additive=True, natural_clip=1.0
    )
    rng = np.random.default_rng(0)
    vectors = np.array([ANIMALS] * 3 + [VEHICLES] * 3, dtype=np.float32) + rng.normal(0, 0.01, (6, 3)).astype("f4")
    write_release(
        folder / "release",
        ReleaseContents(
            tables={"rows": EmbeddingTable(KEYS, vectors), "vehicles": EmbeddingTable(KEYS[3:], vectors[3:])},
            certificate=plan.claim(2),
            scenario=scenario.model_dump(mode="json"),
            evaluation=[Score("similarity:x", "spearman", 0.5, 0.4, 0.6, 30, 1.0, True, "random table", 0.0)],
            rounds=[{"round": 1}, {"round": 2}],
        ),
    )
    return folder


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = cli.main([str(word) for word in words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_neighbors_by_run_or_release_folder(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "neighbors", run_folder, "cat", "-k", 2)
    assert code == 0 and err == ""
    assert {line.split()[-1] for line in out.splitlines()[1:]} == {"dog", "horse"}
    assert run(capsys, "neighbors", run_folder / "release", "cat", "-k", 2)[1] == out


def test_neighbors_as_json(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "neighbors", run_folder, "cat", "bus", "-k", 1, "--json")
    found = json.loads(out)["neighbors"]
    assert found["cat"][0][0] in {"dog", "horse"} and found["bus"][0][0] in {"car", "train"}


def test_neighbors_of_another_table(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "neighbors", run_folder, "car", "--table", "vehicles")
    assert code == 0 and "cat" not in out


@pytest.mark.parametrize(
    ("words", "code", "hint"),
    [
        (("neighbors", "cta"), 2, "did you mean 'cat'?"),
        (("neighbors", "cat", "-k", "0"), 2, "at least 1"),
        (("neighbors", "cat", "--table", "row"), 2, "did you mean 'rows'?"),
        (("evaluate",), 2, "names no tasks"),
        (("evaluate", "--task", "similarty"), 3, "similarty"),
        (("export", "--format", "word2vec_tex", "--out", "never"), 3, "did you mean 'word2vec_text'?"),
    ],
)
def test_bad_words(
    words: tuple[str, ...], code: int, hint: str, run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    got, out, err = run(capsys, words[0], run_folder, *words[1:])
    assert got == code and out == "" and hint in err


@pytest.mark.parametrize("command", ["verify", "report", "evaluate"])
def test_no_such_folder(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, command, tmp_path / "absent")
    assert code == 9 and "there is no folder" in err


def test_verify_confirms_and_then_finds_one_flipped_byte(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    code, out, _ = run(capsys, "verify", run_folder, "--json")
    assert (code, json.loads(out)["verified"]) == (0, True)
    copy = tmp_path / "copy"
    shutil.copytree(run_folder / "release", copy)
    file = copy / "tables" / "rows.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    code, out, err = run(capsys, "verify", copy)
    assert code == 9 and "do not rely" in err
    assert any(line.startswith("FAILED") and "rows.safetensors" in line for line in out.splitlines())
    code, out, _ = run(capsys, "verify", copy, "--json")
    assert (code, json.loads(out)["verified"]) == (9, False)


def test_report_names_the_page(
    run_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda address: bool(opened.append(address)))
    code, out, err = run(capsys, "report", run_folder, "--open")
    assert code == 0 and Path(out.strip()).is_file()
    assert opened == [Path(out.strip()).resolve().as_uri()]
    assert "no web browser" in err


def test_export_is_read_back(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from common import formats

    code, out, _ = run(capsys, "export", run_folder, "--format", "word2vec_text", "--out", tmp_path / "v.txt", "--json")
    assert code == 0 and json.loads(out)["rows"] == 6
    read = formats.load("word2vec_text").read
    assert read is not None and read(tmp_path / "v.txt").keys == KEYS


def test_evaluate_scores_a_benchmark_file(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("common.evaluation.quality.similarity")
    benchmark = tmp_path / "pairs.tsv"
    pairs = [(a, b, 9.0 if (a in KEYS[:3]) == (b in KEYS[:3]) else 1.0) for a in KEYS for b in KEYS if a < b]
    benchmark.write_text("".join(f"{a}\t{b}\t{score}\n" for a, b, score in pairs))
    code, out, err = run(capsys, "evaluate", run_folder, "--task", f"similarity:{benchmark}", "--json")
    assert code == 0, err
    scores = json.loads(out)["scores"]
    assert scores and all(score["coverage"] == 1.0 for score in scores)


def test_summary_says_where_what_is_claimed_and_what_it_is_worth(run_folder: Path, scenario: Scenario) -> None:
    release = load_release(run_folder / "release")
    result = SimpleNamespace(
        release=run_folder / "release",
        certificate=release.certificate,
        evaluation=list(release.evaluation),
        seconds=12.0,
        resumed_from_round=0,
    )
    page = "\n".join(summary.lines(result, scenario))  # type: ignore[arg-type]
    assert str(run_folder / "release") in page
    assert "NOT PRIVATE" in page and page.count("not protected: mode none") == 3
    assert "similarity:x" in page and "[0.4, 0.6]" in page and "random table" in page
    assert page.count("  cat  ") == 1 and "no row 'unknown'" in page and "  bus  " in page
    assert "fedembed verify" in page
    assert json.dumps(output.plain(summary.as_json(result)))  # type: ignore[arg-type]


def test_the_claim_says_against_whom_it_holds_and_rounds_up() -> None:
    entries = {"coordinator": {"epsilon": None, "reason": "it is trusted"}, "public": {"epsilon": 2.9963, "reason": ""}}
    page = summary.claim_lines({"sentence": "word " * 50, "delta": 1e-6, "observers": entries})
    assert all(len(line) <= 100 for line in page)
    assert page[-2].split() == ["coordinator", "-", "-", "not", "protected:", "it", "is", "trusted"]
    assert page[-1].split() == ["public", "2.997", "1e-06"]


@pytest.mark.parametrize(
    ("resumed", "said"), [(0, ""), (1, "resumed after round 1"), (2, "nothing was run again"), (3, "nothing was run")]
)
def test_summary_says_what_was_resumed(resumed: int, said: str) -> None:
    assert said in summary._resumption(resumed, 2)


def test_a_shown_epsilon_is_never_too_small() -> None:
    for value in (2.9963, 0.00001, 1.0, 7.12345, 3.0000001):
        assert float(output.epsilon_shown(value)) >= value
    assert output.epsilon_shown(float("inf")) == "unbounded"
    assert output.epsilon_shown(1.0) == "1.000"
