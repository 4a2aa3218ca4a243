"""A site's folder: who may read and write which part, and that no link that the agent leaves leads root astray."""

from __future__ import annotations

import json
import os
import pwd
import stat
from pathlib import Path

import pytest

from client.agent import processes
from client.agent.check import checked
from client.agent.home import ENROLMENT_FILE, AgentHome, _give, hand_over, make_home, open_home, read_invitation
from client.agent.record import activity
from client.node import ACTIVITY_FILE
from common.deployment.certificates import authority
from common.deployment.journal import Journal
from common.errors import ConfigError, DataError, DeploymentError
from common.secagg.keys import Identity

AUTHORITY = authority("trial").certificate.decode()


def invitation(folder: Path, **changed: str) -> Path:
    path = folder / "invitation.json"
    fields = {"coordinator": "c", "address": "localhost:8443", "authority": AUTHORITY, "identity": "ab" * 32}
    path.write_text(json.dumps(fields | changed))
    return path


def made(folder: Path, *, user: str = "") -> AgentHome:
    home = folder / "site"
    return make_home(home, invitation(folder), name="north", data=("text", "/data"), user=user, first_port=1000)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_secrets_and_data_are_for_their_owner_alone(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        home = made(tmp_path)
    finally:
        os.umask(old)
    for part in ("keys", "state", "scratch", "logs"):
        assert mode(home.inside(part)) == 0o700, part
    for name in ("node", "identity.key", "executor.secret"):
        assert mode(home.inside("keys", name)) == 0o600, name
    for name in ("agent.toml", "site.toml", "policy.toml", ENROLMENT_FILE):
        assert mode(home.inside(name)) == 0o644, name


def test_the_request_holds_public_keys_alone(tmp_path: Path) -> None:
    home = made(tmp_path)
    request = json.loads(home.inside(ENROLMENT_FILE).read_text())
    assert set(request) == {"name", "node_key", "identity"}
    identity = Identity.from_pem(home.inside("keys", "identity.key").read_bytes())
    assert request["identity"] == identity.public.hex() and request["node_key"].startswith("ecdsa-sha2-nistp384 ")


def test_an_existing_folder_is_never_touched(tmp_path: Path) -> None:
    home = made(tmp_path)
    before = {path: path.read_bytes() for path in home.folder.rglob("*") if path.is_file()}
    with pytest.raises(DeploymentError, match="not empty"):
        made(tmp_path)
    assert before == {path: path.read_bytes() for path in home.folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "changed",
    [
        {"authority": AUTHORITY + authority("another").certificate.decode()},
        {"authority": ""},
        {"authority": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"},
    ],
)
def test_an_invitation_has_one_authority(tmp_path: Path, changed: dict[str, str]) -> None:
    """Two people compare one fingerprint: a second authority in the file would be trusted and never compared."""
    with pytest.raises(DeploymentError, match="no invitation"):
        read_invitation(invitation(tmp_path, **changed))


def test_what_stands_around_a_certificate_is_not_kept(tmp_path: Path) -> None:
    assert read_invitation(invitation(tmp_path, authority=f"a comment\n{AUTHORITY}\n\n"))["authority"] == AUTHORITY


def test_other_files_are_no_invitation_and_no_home(tmp_path: Path) -> None:
    for text in ("", "[]", '{"coordinator": "c"}'):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(DeploymentError, match="no invitation"):
            read_invitation(tmp_path / "x.json")
    with pytest.raises(DeploymentError, match="no agent"):
        open_home(tmp_path)
    for text in ("coordinator =", 'coordinator = "c"\naddress = "nowhere"', 'coordinator = "c"\nx = 1'):
        (tmp_path / "agent.toml").write_text(text)
        with pytest.raises(DeploymentError):
            open_home(tmp_path)


def test_an_account_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DeploymentError, match="no account"):
        made(tmp_path, user="nobody-of-that-name")


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of what changes hands, in place of changing it."""
    names: list[str] = []
    monkeypatch.setattr(os, "chown", lambda path, uid, gid: names.append(Path(os.readlink(path)).name))
    return names


def give(folder: Path, *names: str, givers: set[int]) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        for name in names:
            _give(name, descriptor, givers, (1, 1))
    finally:
        os.close(descriptor)


def test_no_link_leads_to_a_file_that_changes_hands(tmp_path: Path, given: list[str]) -> None:
    """Before, root gave the agent whatever a link in the agent's own folder pointed to."""
    secret, link, hard, plain = (tmp_path / name for name in ("shadow", "link", "hard", "plain"))
    secret.write_text("secret")
    plain.write_text("x")
    link.symlink_to(secret)
    os.link(secret, hard)
    give(tmp_path, "link", "hard", "plain", "gone", ".", givers={os.geteuid()})
    assert given == ["plain", tmp_path.name], "not what a link names, nor a file with two names"


def test_what_is_somebody_elses_stays_as_it_is(tmp_path: Path, given: list[str]) -> None:
    (tmp_path / "x").write_text("")
    give(tmp_path, "x", ".", givers={os.geteuid() + 1})
    assert given == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_another_account_gets_what_the_one_before_it_had(tmp_path: Path) -> None:
    """A ledger that the new account cannot open would stop the site; one that it began anew would forget."""
    before, after = pwd.getpwnam("daemon"), pwd.getpwnam("nobody")
    home = made(tmp_path, user="daemon")
    foreign = home.inside("state", "foreign")
    for path in (home.inside("state", "ledger.sqlite"), home.inside("scratch", "a", "b"), foreign):
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
        os.chown(path, before.pw_uid, before.pw_gid)
    os.chown(home.inside("scratch", "a"), before.pw_uid, before.pw_gid)
    os.chown(foreign, 4242, 4242)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x").write_text("root's")
    home.inside("state", "link").symlink_to(outside)
    agent = home.inside("agent.toml")
    agent.write_text(agent.read_text().replace('user = "daemon"', 'user = "nobody"'))
    hand_over(open_home(home.folder))
    for name in ("state", "state/ledger.sqlite", "scratch", "scratch/a", "scratch/a/b", "keys/node"):
        assert home.inside(name).stat().st_uid == after.pw_uid, name
    assert foreign.stat().st_uid == 4242 and {outside.stat().st_uid, (outside / "x").stat().st_uid} == {0}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_the_agents_account_gets_its_folders_and_no_logs(tmp_path: Path) -> None:
    account = pwd.getpwnam("nobody")
    home = made(tmp_path, user="nobody")
    home.inside("state", "link").symlink_to(home.inside("policy.toml"))
    hand_over(home)
    for part in ("keys", "state", "scratch"):
        assert home.inside(part).stat().st_uid == account.pw_uid, part
    for name in ("logs", "approved", "bin", "tls", "policy.toml", "site.toml", "agent.toml"):
        assert home.inside(name).stat().st_uid == 0, name


def test_the_agent_inherits_no_secret_of_its_operator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    monkeypatch.setenv("FLWR_INTERNAL_GRPC_FLEET_API", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    home = made(tmp_path)
    found = processes.environment_of(home)
    assert "hidden" not in found.values() and "FLWR_INTERNAL_GRPC_FLEET_API" not in found
    assert found["OMP_NUM_THREADS"] == "1" and found["FLWR_TELEMETRY_ENABLED"] == "0"
    assert found["PATH"].split(":")[0] == str(home.inside("bin")), "our commands before Flower's"


def test_no_command_line_holds_a_secret(tmp_path: Path) -> None:
    home = made(tmp_path)
    words = " ".join(word for program in processes.programs(home) for word in program.command)
    for path in home.inside("keys").iterdir():
        assert path.read_bytes().hex() not in words and path.read_bytes().decode(errors="replace") not in words
    shown = repr(processes.programs(home))
    assert "environment" not in shown


def test_root_runs_nothing_and_nothing_unapproved_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = made(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(DeploymentError, match="root would run"):
        processes._refuse_unfit(home)
    monkeypatch.setattr(os, "geteuid", lambda: 1)
    with pytest.raises(DeploymentError, match="no bundle is approved"):
        processes._refuse_unfit(home)


def test_activity_is_read_whatever_stands_there(tmp_path: Path) -> None:
    home = made(tmp_path)
    assert activity(home)["last_contact"] is None
    journal = Journal(home.inside("state", ACTIVITY_FILE))
    for status in ("ready", "done", "done", "refused"):
        journal.write("answered", {"kind": "train.round", "run": "r", "round": 1, "status": status, "code": "hours"})
    with home.inside("state", ACTIVITY_FILE).open("a") as file:
        file.write("{}\n17\n")
    found = activity(home)
    assert found["rounds_served"] == 1 and found["answers"]["train.round: done"] == 2
    assert [line["code"] for line in found["refusals"]] == ["hours"]


def test_a_planned_run_is_checked_with_its_own_vocabulary(tmp_path: Path) -> None:
    home = made(tmp_path)
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "a.txt").write_text("one two three one two\n")
    site = home.inside("site.toml")
    site.write_text(site.read_text().replace("/data", str(texts)))
    scenario = tmp_path / "words.toml"
    scenario.write_text(
        '[task]\nfamily = "spectral"\ndimension = 2\n[data]\nreader = "text"\nunit = "record"\n'
        '[vocabulary]\npath = "words.tsv"\nmax_rows = 20\n'
        '[privacy]\nmode = "distributed"\nepsilon = 4.0\ndelta = 1e-6\n'
        '[federation]\nrounds = 1\nsecure_aggregation = "full"\nmin_nodes = 3\nmin_clients = 3\nmax_clients = 3\n'
    )
    with pytest.raises(DataError, match=r"vocabulary words\.tsv is not at this site") as caught:
        checked(home, scenario)
    assert "coordinator's operator" in caught.value.hint
    (tmp_path / "words.tsv").write_text("one\t3\ntwo\t2\nthree\t1\n")
    found = checked(home, scenario)
    assert found["run_mode"] == "distributed" and float(found["run_epsilon"]) <= 4.0
    assert found["policy"].startswith("would refuse: "), "the policy allows nothing yet"


@pytest.mark.parametrize(("field", "name"), [("roster", "roster.json"), ("identity", "keys/none.key")])
def test_a_file_that_the_site_file_names_and_is_not_there(tmp_path: Path, field: str, name: str) -> None:
    home = made(tmp_path)
    named = {"identity": "keys/identity.key", "roster": "roster.json", "organiser": "ab" * 32, field: name}
    if field == "identity":
        home.inside("roster.json").write_text("{}")
    with home.inside("site.toml").open("a") as site:
        site.write("[secure_aggregation]\n" + "".join(f'{key} = "{value}"\n' for key, value in named.items()))
    with pytest.raises(ConfigError, match=name) as caught:
        checked(home, None)
    assert "site.toml" in caught.value.hint and "scenario" not in caught.value.hint.lower()
