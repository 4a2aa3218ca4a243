"""``fedembed doctor --home``: a fresh folder is in order, and each thing that is not right is found."""

from __future__ import annotations

import json
import os
import pwd
from pathlib import Path

import pytest

from client.agent import home as agents
from common.deployment.certificates import Certificate, server_certificate
from server.coordinator import home as coordinators
from simulations import cli, doctor, doctor_deployment


@pytest.fixture
def coordinator(tmp_path: Path) -> Path:
    """A coordinator's folder as ``init`` makes it."""
    folder = tmp_path / "coordinator"
    return coordinators.make_home(folder, "c", ["localhost"], bind="127.0.0.1", port=8443, first_port=18000).folder


@pytest.fixture
def agent(coordinator: Path, tmp_path: Path) -> Path:
    """An agent's folder as ``init`` makes it, for an account that is not its owner where root runs this."""
    user = "nobody" if os.geteuid() == 0 else ""
    invitation = coordinator / "invitation.json"
    made = agents.make_home(
        tmp_path / "agent", invitation, name="north", data=("text", "/srv/texts"), user=user, first_port=19100
    )
    return made.folder


def levels(folder: Path) -> dict[str, str]:
    """Topic -> level."""
    return {finding.topic: finding.level for finding in doctor_deployment.examined_folder(folder)}


def test_a_fresh_coordinator_is_in_order(coordinator: Path) -> None:
    expected = {"messages at rest": "note", "server.crt": "ok", "ca.crt": "ok", "keys": "ok"}
    assert levels(coordinator) == expected


@pytest.mark.parametrize(
    ("old", "new", "said"), [('"disk"', '"memory"', "in memory"), ("= false", "= true", "declared encrypted in")]
)
def test_storage_is_said(old: str, new: str, said: str, coordinator: Path) -> None:
    settings = coordinator / "coordinator.toml"
    settings.write_text(settings.read_text().replace(f"database = {old}", f"database = {new}").replace(old, new))
    found = {f.topic: f for f in doctor_deployment.examined_folder(coordinator)}["messages at rest"]
    assert found.level == "ok" and said in found.found


@pytest.mark.parametrize(("days", "level"), [(-1, "missing"), (10, "note"), (200, "ok")])
def test_certificates_are_dated(days: int, level: str, coordinator: Path) -> None:
    tls = coordinator / "tls"
    issuer = Certificate((tls / "ca.crt").read_bytes(), (tls / "ca.key").read_bytes())
    (tls / "server.crt").write_bytes(server_certificate(issuer, ["localhost"], days=days).certificate)
    assert levels(coordinator)["server.crt"] == level


@pytest.mark.parametrize("name", ["tls/ca.key", "tls/server.key", "secrets/identity.key", "secrets/executor.secret"])
def test_a_key_that_others_can_read_is_found(name: str, coordinator: Path) -> None:
    (coordinator / name).chmod(0o640)
    assert levels(coordinator)["keys"] == "missing"


def test_a_fresh_agent_is_in_order(agent: Path) -> None:
    assert levels(agent) == {"keys": "ok", "agent's account": "ok" if os.geteuid() == 0 else "note"}


@pytest.mark.parametrize("name", ["node", "identity.key", "executor.secret"])
def test_an_agent_s_key_that_others_can_read_is_found(name: str, agent: Path) -> None:
    (agent / "keys" / name).chmod(0o604)
    assert levels(agent)["keys"] == "missing"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another account")
@pytest.mark.parametrize("name", ["approved", "approved/bundles.json", "policy.toml", "bin", "tls", "."])
@pytest.mark.parametrize("how", ["owner", "everybody", "group"])
def test_what_the_agent_s_account_must_not_write_is_found(name: str, how: str, agent: Path) -> None:
    path, account = agent / name, pwd.getpwnam("nobody")
    if not path.exists():
        path.write_text("{}")
    if how == "owner":
        os.chown(path, account.pw_uid, -1)
    else:
        os.chown(path, -1, account.pw_gid)
        path.chmod(path.stat().st_mode | (0o020 if how == "group" else 0o002))
    assert levels(agent)["agent's account"] == "missing"


def test_other_folders_are_said_to_be_neither(tmp_path: Path) -> None:
    assert levels(tmp_path) == {str(tmp_path): "missing"}


def test_programs_that_pip_cannot_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_deployment.shutil, "which", lambda name, path: None)
    assert [(f.topic, f.level) for f in doctor_deployment.examined_programs()] == [
        ("nginx", "note"),
        ("setpriv", "note"),
    ]


@pytest.mark.parametrize("variable", [None, "FEDEMBED_COORDINATOR", "FEDEMBED_AGENT"])
def test_the_command_finds_the_folder(
    variable: str | None, coordinator: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "examined", lambda: iter(()))
    (coordinator / "tls" / "ca.key").chmod(0o644)
    if variable is not None:
        monkeypatch.setenv(variable, str(coordinator))
    assert cli.main(["doctor", "--json", *([] if variable else ["--home", str(coordinator)])]) == 1
    found = {entry["topic"]: entry["level"] for entry in json.loads(capsys.readouterr().out)["findings"]}
    assert found["keys"] == "missing" and found["messages at rest"] == "note"
