"""``fedembed doctor``: healthy here, and each missing thing is found."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from simulations import cli, doctor


def test_this_installation_is_healthy(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["healthy"]
    topics = {entry["topic"] for entry in found["findings"]}
    assert {"fedembed", "python", "flwr", "torch", "opacus", "device", "free disk", "telemetry"} <= topics


def test_a_missing_requirement_ends_in_1(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "requirements", lambda: ["no-such-distribution>=1"])
    assert cli.main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "X no-such-distribution" in out and "pip install 'no-such-distribution>=1'" in out


@pytest.mark.parametrize(
    ("requirement", "level"),
    [("numpy>=2.0", "ok"), ("numpy<1", "missing"), ("numpy>=999", "missing"), ("no-such-distribution", "missing")],
)
def test_versions_are_compared(requirement: str, level: str) -> None:
    assert doctor.examined_requirement(requirement).level == level


def test_extras_are_not_required() -> None:
    assert all("extra" not in r for r in doctor.requirements())
    assert any(r.startswith("torch") for r in doctor.requirements())


def test_a_checkout_that_is_not_installed_knows_its_version_and_requirements(
    monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    def absent(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doctor.metadata, "version", absent)
    monkeypatch.setattr(doctor.metadata, "requires", absent)
    assert f'version = "{doctor.version()}"' in (root / "pyproject.toml").read_text()
    assert any(r.startswith("flwr") for r in doctor.requirements())


@pytest.mark.parametrize(("value", "level"), [("0", "ok"), ("1", "note"), (None, "note")])
def test_telemetry(value: str | None, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLWR_TELEMETRY_ENABLED", raising=False)
    if value is not None:
        monkeypatch.setenv("FLWR_TELEMETRY_ENABLED", value)
    assert doctor._examined_telemetry().level == level


def test_a_full_disk_is_worth_a_note(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=1))
    assert doctor._examined_disk(tmp_path).level == "note"
