"""Approval: only bundles that the operator listed, with the installed code, from their own folder; no other task."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flwr.cli.install import install_from_fab
from flwr.supercore.constant import TASK_TYPE_TO_COMMAND
from typer.testing import CliRunner

import common
from client.agent import approval, fork_server, processes
from client.agent.commands import agent_app
from client.agent.fork_server import CODE_VARIABLE, HOME_VARIABLE
from client.agent.home import AgentHome, AgentSettings
from client.agent.task import approved_only, from_its_place
from client.node import BUNDLE_VARIABLE
from common.deployment.bundle import Bundle, read_bundle
from common.deployment.journal import Journal
from common.errors import ConfigError, DeploymentError, UsageError

ROOT = Path(common.__file__).resolve().parent.parent
VERSION, PATH_VERSION = "0.1.0", "0.1.0/../../x"


def packed(*, version: str = VERSION, name: str = "fedembed-app", publisher: str = "p", **files: str) -> bytes:
    """A bundle as Flower packs it; ``files`` are modules of ``client``."""
    described = f'[project]\nname = "{name}"\nversion = "{version}"\ndescription = ""\n'
    described += f'[tool.flwr.app]\npublisher = "{publisher}"\n'
    described += '[tool.flwr.app.components]\nserverapp = "server.app:app"\nclientapp = "client.app:app"\n'
    content = {"pyproject.toml": described, "client/app.py": (ROOT / "client" / "app.py").read_text()}
    content |= {f"client/{module}.py": text for module, text in files.items()}
    listed = "\n".join(f"{n},{hashlib.sha256(t.encode()).hexdigest()},{len(t) * 8}" for n, t in content.items())
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, text in {**content, ".info/CONTENT": listed}.items():
            archive.writestr(zipfile.ZipInfo(path), text)
    return buffer.getvalue()


def installed_here(command: list[str], *, env: dict[str, str], **_: Any) -> subprocess.CompletedProcess[str]:
    """What the process that ``approve`` starts does, without a second to import Flower each time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLWR_HOME", env["FLWR_HOME"])
        try:
            install_from_fab(Path(command[-1]).read_bytes(), skip_prompt=True)
        except Exception as error:
            return subprocess.CompletedProcess(command, 1, "", str(error))
    return subprocess.CompletedProcess(command, 0, "", "")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AgentHome]:
    monkeypatch.setattr(subprocess, "run", installed_here)
    folder = tmp_path / "site"
    for part in ("approved", "bin", "scratch"):
        (folder / part).mkdir(parents=True)
    monkeypatch.setenv(BUNDLE_VARIABLE, "")
    yield AgentHome(folder, AgentSettings(coordinator="c", address="localhost:1"))
    for path in (folder, *folder.rglob("*")):
        if path.is_dir():
            path.chmod(0o755)


def approved(home: AgentHome, content: bytes) -> str:
    bundle = Bundle(content, (("pyproject.toml", ""),))
    approval.approve(home, bundle)
    return bundle.digest


class Installing:
    """Flower's installation, as far as it goes: which contents, and the folder that they went to."""

    def __init__(self, place: Path) -> None:
        self.place, self.contents = place, list[bytes]()

    def __call__(self, content: bytes, **options: Any) -> Path:
        self.contents.append(content)
        return self.place


def test_an_approved_bundle_runs_from_its_own_folder(home: AgentHome) -> None:
    digest = approved(home, packed())
    (place,) = (home.folder / "approved" / "apps").iterdir()
    assert place.name == f"p.fedembed-app.0.1.0.{digest[:8]}" and not approval.foreign_files(place)
    flower, places = Installing(place), list[Path]()
    assert approved_only(flower, home.folder, places)(packed(), skip_prompt=True) == place
    assert places == [place] and os.environ[BUNDLE_VARIABLE] == digest
    assert not any(path.stat().st_mode & stat.S_IWUSR for path in (place, *place.rglob("*")))


@pytest.mark.parametrize(
    "content",
    [packed()[:-1] + b"\x01", packed(extra="x = 1"), packed(version=PATH_VERSION), b"", "a path", None],
    ids=["one byte changed", "another", "a version that is a path", "nothing", "not bytes", "none"],
)
def test_what_is_not_listed_is_not_unpacked(home: AgentHome, content: Any) -> None:
    approved(home, packed())
    flower, places = Installing(home.folder), list[Path]()
    with pytest.raises(DeploymentError, match="not approved") as caught:
        approved_only(flower, home.folder, places)(content, skip_prompt=True)
    assert not flower.contents and not places and not os.environ[BUNDLE_VARIABLE]
    assert str(home.folder) not in str(caught.value), "the text goes to the coordinator"


def test_without_a_list_nothing_runs(home: AgentHome) -> None:
    with pytest.raises(DeploymentError, match="not approved"):
        approved_only(Installing(home.folder), home.folder, [])(packed())


def test_a_bundle_of_other_code_is_not_recorded_for_code_that_never_ran(home: AgentHome) -> None:
    content = packed(app="app = None\n")
    approved(home, content)
    (place,) = (home.folder / "approved" / "apps").iterdir()
    assert approval.foreign_files(place) == ["client/app.py"]
    places: list[Path] = []
    with pytest.raises(DeploymentError, match="not the code that is installed"):
        approved_only(Installing(place), home.folder, places)(content)
    assert not places and not os.environ[BUNDLE_VARIABLE]


@pytest.fixture(autouse=True)
def code_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CODE_VARIABLE, approval.installed_code())


def test_the_fork_server_notes_the_code_before_it_imports_it(home: AgentHome, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def preload() -> None:
        seen.append(os.environ[CODE_VARIABLE])
        raise InterruptedError

    monkeypatch.setenv(HOME_VARIABLE, str(home.folder))
    monkeypatch.delenv(CODE_VARIABLE)
    monkeypatch.setattr(fork_server, "preload", preload)
    with pytest.raises(InterruptedError):
        fork_server.main()
    assert seen == [approval.installed_code()]


def test_a_process_that_does_not_know_its_code_serves_nothing(home: AgentHome, monkeypatch: pytest.MonkeyPatch) -> None:
    approved(home, packed())
    monkeypatch.delenv(CODE_VARIABLE)
    with pytest.raises(DeploymentError, match="restart the agent"):
        approved_only(Installing(home.folder), home.folder, [])(packed())


def test_code_that_was_replaced_under_a_running_agent_serves_nothing(
    home: AgentHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The forks have the old code in memory; the ledger would name the new one's hash."""
    approved(home, packed())
    (place,) = (home.folder / "approved" / "apps").iterdir()
    assert approved_only(Installing(place), home.folder, [])(packed()) == place
    monkeypatch.setattr("client.agent.task.installed_code", lambda: "of the version after an upgrade")
    places: list[Path] = []
    with pytest.raises(DeploymentError, match="restart the agent"):
        approved_only(Installing(place), home.folder, places)(packed())
    assert not places


def test_the_digest_of_the_code_follows_every_file_of_a_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("server", "client", "common"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("")
    monkeypatch.setattr(approval, "installation", lambda: tmp_path)
    found = [approval.installed_code()]
    (tmp_path / "client" / "__init__.py").write_text("x = 1\n")
    found.append(approval.installed_code())
    (tmp_path / "common" / "more.py").write_text("")
    found.append(approval.installed_code())
    (tmp_path / "notes.txt").write_text("no code")
    assert len({*found, approval.installed_code()}) == 3


def test_code_is_loaded_from_the_folder_of_the_bundle_alone() -> None:
    """Publisher, version and hash come beside the bundle, from the coordinator: they could name any folder."""

    def place_of(name: str, version: str, digest: str) -> Path:
        return Path("/approved/apps") / f"{name}.{version}.{digest}"

    loaded: list[tuple[str, ...]] = []
    places = [Path("/approved/apps/a.1.d")]
    load = from_its_place(lambda *_, **__: lambda *names: loaded.append(names), place_of, places)(multi_app=True)
    for names in (("a", "1.d/../../../tmp/x", "e"), ("a", "1", "e"), ("b", "1", "d"), ("../a", "1", "d")):
        with pytest.raises(DeploymentError, match="another folder"):
            load(*names)
    load("a", "1", "d")
    assert loaded == [("a", "1", "d")]
    with pytest.raises(DeploymentError, match="another folder"):
        from_its_place(lambda: lambda *_: None, place_of, [])()("a", "1", "d")


def test_a_revoked_bundle_is_gone(home: AgentHome) -> None:
    first, second = approved(home, packed()), approved(home, packed(extra="x = 1"))
    approval.revoke(home, first[:10])
    assert set(approval.approved_bundles(home.folder)) == {second}
    assert [path.name[-8:] for path in (home.folder / "approved" / "apps").iterdir()] == [second[:8]]
    for digest in (first, ""):
        if digest:
            with pytest.raises(DeploymentError, match="0 approved bundles"):
                approval.revoke(home, digest)
    assert not home.inside("approved").stat().st_mode & stat.S_IWUSR


def test_a_refused_bundle_leaves_the_folder_read_only(home: AgentHome) -> None:
    with pytest.raises(DeploymentError, match="Flower refuses"):
        approval.approve(home, Bundle(b"no zip file", ()))
    assert not home.inside("approved").stat().st_mode & stat.S_IWUSR
    assert not approval.approved_bundles(home.folder)


def test_every_other_kind_of_task_ends_at_once(home: AgentHome) -> None:
    """A coordinator chooses the kind: Flower would start an agent app, whose bundle nobody looks at."""
    approval.write_launchers(home)
    served = {approval.TASK_COMMAND, *approval.OTHER_COMMANDS}
    assert served == set(TASK_TYPE_TO_COMMAND.values()) == {path.name for path in home.inside("bin").iterdir()}
    for name in approval.OTHER_COMMANDS:
        with subprocess.Popen([str(home.inside("bin", name)), "--token", "t"], stderr=subprocess.PIPE) as ended:
            assert b"no such task" in ended.communicate()[1] and ended.returncode == 1


@pytest.mark.parametrize(
    "content",
    [
        packed(version=PATH_VERSION),
        packed(version=".."),
        packed(name="../x"),
        packed(publisher="/etc"),
        packed(publisher=""),
        b"no zip file",
        packed()[:200],
    ],
)
def test_bundles_that_are_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.fab"
    path.write_bytes(content)
    with pytest.raises(DeploymentError):
        read_bundle(path)


@pytest.mark.parametrize("name", ["../evil.py", "/etc/evil.py", "a/../../evil.py", "a\\..\\evil.py", "a\x1b[2J.py"])
def test_files_that_leave_their_folder(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.fab"
    path.write_bytes(packed())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, "")
    with pytest.raises(DeploymentError, match="outside its folder"):
        read_bundle(path)


def test_a_file_twice_and_a_bundle_that_is_one(tmp_path: Path) -> None:
    path = tmp_path / "x.fab"
    path.write_bytes(packed())
    assert [name for name, _ in read_bundle(path).files] == [".info/CONTENT", "client/app.py", "pyproject.toml"]
    assert read_bundle(path).digest == hashlib.sha256(packed()).hexdigest()
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("client/app.py", "")
    with pytest.raises(DeploymentError, match="twice"):
        read_bundle(path)


@pytest.mark.parametrize(("answer", "approves"), [("y\n", True), ("n\n", False), ("", False)])
def test_whoever_does_not_say_yes_has_approved_nothing(
    home: AgentHome, monkeypatch: pytest.MonkeyPatch, answer: str, approves: bool
) -> None:
    content = packed()
    monkeypatch.setattr("common.deployment.bundle.own_bundle", lambda: Bundle(content, ()))
    monkeypatch.setattr("client.agent.home.open_home", lambda path: home)
    done = CliRunner().invoke(agent_app, ["approve-bundle"], input=answer)
    assert isinstance(done.exception, UsageError) is not approves
    assert bool(approval.approved_bundles(home.folder)) is approves


@pytest.mark.parametrize("policy", [None, "max_epsilonn = 1.0\n", "max_epsilon = -1.0\n"])
def test_an_agent_without_a_policy_that_can_be_read_does_not_start(home: AgentHome, policy: str | None) -> None:
    approved(home, packed())
    with_user = AgentHome(home.folder, home.settings.model_copy(update={"user": "nobody"}))
    if policy is not None:
        (home.folder / "policy.toml").write_text(policy)
    with pytest.raises(ConfigError, match="policy"):
        processes.up(with_user, Journal(home.folder / "agent.jsonl"))
