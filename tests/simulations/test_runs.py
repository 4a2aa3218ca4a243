"""Finding a scenario, choosing a folder, and what simulate and plan hand on."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from common.config import Scenario, build_scenario
from common.errors import ConfigError, UsageError
from simulations import cli, runs
from simulations.commands import plan_table
from simulations.progress import Bar, Lines, Silent, facts_shown, reporter


def test_without_a_name_the_embedded_default_is_read() -> None:
    assert runs.find_scenario() == runs.find_scenario("default")
    assert runs.DEFAULT_SCENARIO in runs.shipped_scenarios()


@pytest.mark.parametrize("name", runs.shipped_scenarios())
def test_every_shipped_scenario_is_valid_and_explains_itself(name: str) -> None:
    assert isinstance(runs.find_scenario(name), Scenario)


def test_a_file_wins_by_its_form(tmp_path: Path) -> None:
    file = tmp_path / "default.toml"
    file.write_text("seed = 41\n[privacy]\nepsilon = 1.0\n")
    assert runs.find_scenario(file).seed == 41
    assert runs.find_scenario(str(file), ["seed=42"]).seed == 42


def test_an_unknown_name_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'default'") as caught:
        runs.find_scenario("defualt")
    assert "default" in caught.value.hint


@pytest.mark.parametrize("name", ["absent.toml", "some/folder/default", "../default"])
def test_a_missing_file_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="no scenario file"):
        runs.find_scenario(name)


def test_the_same_command_names_the_same_folder() -> None:
    one, other = build_scenario({"privacy": {"epsilon": 1.0}}), build_scenario({"privacy": {"epsilon": 2.0}})
    assert runs.default_out(None, one) == runs.default_out("default", one)
    assert runs.default_out(None, one) != runs.default_out(None, other)
    assert runs.default_out("some/where/mine.toml", one).name.startswith("mine-")


def test_overrides_do_not_go_with_a_scenario_object() -> None:
    scenario = build_scenario({"privacy": {"epsilon": 1.0}})
    with pytest.raises(UsageError, match="overrides"):
        runs.plan(scenario, overrides=["seed=1"])


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(UsageError, match="did you mean 'local'"):
        runs.simulate(engine="loca")


def test_simulate_hands_on_what_was_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: dict[str, Any] = {}

    def fake(scenario: Scenario, **given: Any) -> SimpleNamespace:
        seen.update(given, scenario=scenario)
        given["reporter"].round_finished(1, 2, {"loss": 0.5})
        return SimpleNamespace(
            release=tmp_path, certificate={"sentence": "s"}, evaluation=[], seconds=1.5, resumed_from_round=0
        )

    monkeypatch.setattr("simulations.federation.run_simulation", fake)
    words = ["simulate", "--set", "privacy.epsilon=1.5", "--seed", "9", "--out", str(tmp_path), "--json"]
    assert cli.main(words) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {
        "release": str(tmp_path),
        "certificate": {"sentence": "s"},
        "evaluation": [],
        "seconds": 1.5,
        "resumed_from_round": 0,
    }
    assert "round 1/2  loss 0.5" in captured.err
    assert (seen["scenario"].privacy.epsilon, seen["scenario"].seed) == (1.5, 9)
    assert (seen["out"], seen["engine"]) == (tmp_path, "local")


def test_plan_runs_nothing_and_shows_epsilon_per_observer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "words.tsv").write_text("one\t3\ntwo\t2\n")
    file = tmp_path / "mine.toml"
    file.write_text(
        '[task]\nfamily = "spectral"\ndimension = 2\n[data]\nunit = "record"\npath = "absent"\n'
        '[vocabulary]\npath = "words.tsv"\n[privacy]\nnoise_multiplier = 5.0\n'
    )
    monkeypatch.chdir(tmp_path)
    assert cli.main(["plan", str(file)]) == 0
    page = capsys.readouterr().out
    assert "noise multiplier" in page
    assert "coordinator    unbounded" in page
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.toml", "words.tsv"]
    assert cli.main(["plan", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["epsilon"]["coordinator"] == "inf"


def test_plan_table_groups_numbers_and_rounds_epsilon_up() -> None:
    page = plan_table.lines(
        {
            "rows": 12345,
            "download_bytes_per_round": 256_000,
            "epsilon": {"public": 2.99631},
            "epsilon_per_round": [{"public": 1.00001}, {"public": 2.99631}],
        }
    )
    assert page[0].split() == ["rows", "12,345"]
    assert page[1].endswith("256.0 kB")
    assert [line.split() for line in page[-2:]] == [["1", "1.001"], ["2", "2.997"]]


def test_lines_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines()
    lines.preparing("reading")
    lines.round_finished(2, 3, {"ok": 7, "seconds": 1.23456})
    lines.done()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert [line.split("] ")[1] for line in captured.err.splitlines()] == ["reading", "round 2/3  ok 7  seconds 1.235"]


def test_the_reporter_follows_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(reporter(), Lines)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert isinstance(reporter(), Bar)
    assert isinstance(reporter(json_output=True), Lines)


def test_the_bar_survives_an_early_end(capsys: pytest.CaptureFixture[str]) -> None:
    bar = Bar()
    bar.done()
    bar.preparing("reading [brackets]")
    bar.round_finished(1, 2, {})
    bar.done()
    bar.done()
    captured = capsys.readouterr()
    assert captured.out == "" and "round 1/2" in captured.err


def test_silence(capsys: pytest.CaptureFixture[str]) -> None:
    silent = Silent()
    silent.preparing("x")
    silent.round_finished(1, 1, {})
    silent.done()
    assert capsys.readouterr() == ("", "")


def test_facts_are_short() -> None:
    assert facts_shown({"loss": 1 / 3, "ok": 5}) == "loss 0.3333  ok 5"
