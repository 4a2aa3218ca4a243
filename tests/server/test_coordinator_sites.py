"""A coordinator's folder and the sites in it: what is private, who may enrol under which name, what a request is."""

from __future__ import annotations

import base64
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from common.errors import DeploymentError
from server.coordinator import fleet, processes, sites
from server.coordinator.home import INVITATION_FILE, SETTINGS_FILE, Home, make_home, open_home
from server.coordinator.sites import APPROVED, PENDING, REVOKED

IDENTITY, OTHER_IDENTITY = "ab" * 32, "cd" * 32


def key_text(private: Any) -> str:
    return private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()  # type: ignore[no-any-return]


KEY, OTHER_KEY, THIRD_KEY = (key_text(ec.generate_private_key(ec.SECP384R1())) for _ in range(3))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return made(tmp_path)


def made(folder: Path) -> Home:
    return make_home(folder / "c", "trial", ["localhost"], bind="127.0.0.1", port=1000, first_port=2000)


def request(home: Home, **changed: Any) -> Path:
    path = home.folder.parent / "enrolment.json"
    path.write_text(json.dumps({"name": "north", "node_key": KEY, "identity": IDENTITY} | changed))
    return path


def test_secrets_are_for_their_owner_alone(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        home = made(tmp_path)
    finally:
        os.umask(old)
    assert stat.S_IMODE(home.folder.stat().st_mode) == 0o700
    for parts in (
        ("tls", "ca.key"),
        ("tls", "server.key"),
        ("secrets", "executor.secret"),
        ("secrets", "identity.key"),
    ):
        assert stat.S_IMODE(home.inside(*parts).stat().st_mode) == 0o600, parts
    public = home.inside(INVITATION_FILE).read_text()
    for path in (*home.inside("secrets").iterdir(), home.inside("tls", "ca.key")):
        assert path.read_bytes().hex() not in public and "PRIVATE" not in public


def test_an_existing_folder_is_never_touched(home: Home) -> None:
    before = {path: path.read_bytes() for path in home.folder.rglob("*") if path.is_file()}
    with pytest.raises(DeploymentError, match="not empty"):
        made(home.folder.parent)
    assert before == {path: path.read_bytes() for path in home.folder.rglob("*") if path.is_file()}


def test_settings_that_are_wrong(home: Home) -> None:
    good = home.inside(SETTINGS_FILE).read_text()
    for bad in (
        "name =",
        good.replace('name = "trial"', 'name = "../x"'),
        good + "\n[other]\nx = 1\n",
        good + "\nx = 1",
    ):
        home.inside(SETTINGS_FILE).write_text(bad)
        with pytest.raises(DeploymentError):
            open_home(home.folder)
    with pytest.raises(DeploymentError, match="no coordinator"):
        open_home(home.folder.parent)


def test_a_site_enrols_once_and_is_decided_upon(home: Home) -> None:
    first = sites.enroll(home, request(home))
    assert (first.status, sites.enroll(home, request(home))) == (PENDING, first)
    assert sites.decide(home, "north", APPROVED).status == APPROVED
    assert sites.enroll(home, request(home)).status == APPROVED, "asking again takes nothing away"
    assert [site.name for site in sites.sites(home)] == ["north"]
    with pytest.raises(DeploymentError, match="no site 'south'"):
        sites.decide(home, "south", APPROVED)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"node_key": OTHER_KEY}, "another key"),
        ({"identity": "cd" * 32}, "another identity"),
        ({"name": "south"}, "is that of site 'north'"),
        ({"name": "south", "node_key": KEY + " a comment"}, "is that of site 'north'"),
        ({"name": "south", "node_key": OTHER_KEY}, "is that of site 'north'"),
    ],
)
def test_names_keys_and_identities_are_taken_once(home: Home, changed: dict[str, Any], words: str) -> None:
    sites.enroll(home, request(home))
    with pytest.raises(DeploymentError, match=words):
        sites.enroll(home, request(home, **changed))


def test_one_key_has_one_text() -> None:
    """The last digit of base 64 may hold bits that nobody reads: the same key under another text."""
    raw = base64.b64decode(KEY.split()[1])
    assert sites._node_key(f"{KEY.split()[0]}   {base64.b64encode(raw).decode()}  comment", Path("x")) == KEY


def test_a_revoked_key_does_not_come_back(home: Home) -> None:
    sites.enroll(home, request(home))
    sites.decide(home, "north", REVOKED)
    for changed in ({}, {"name": "south"}, {"node_key": OTHER_KEY}, {"identity": OTHER_IDENTITY}):
        with pytest.raises(DeploymentError, match="was revoked"):
            sites.enroll(home, request(home, **changed))
    with pytest.raises(DeploymentError, match="was revoked, and its key stays so") as caught:
        sites.decide(home, "north", APPROVED)
    assert "agent init" in caught.value.hint and "ledger" in caught.value.hint
    before = sites.site_named(home, "north")
    assert sites.decide(home, "north", REVOKED) == before, "revoked twice is revoked once"


def test_a_revoked_name_comes_back_with_new_keys_and_the_old_ones_stay_out(home: Home) -> None:
    """The name is the site's account in its own ledger: under another one, what was spent would not count."""
    sites.enroll(home, request(home))
    sites.decide(home, "north", REVOKED)
    again = sites.enroll(home, request(home, node_key=OTHER_KEY, identity=OTHER_IDENTITY))
    assert (again.status, again.node_key) == (PENDING, OTHER_KEY)
    assert sites.decide(home, "north", APPROVED).status == APPROVED
    assert [(site.name, site.node_key) for site in sites.revoked(home, "north")] == [("north", KEY)]
    for changed in (
        {},
        {"name": "south"},
        {"name": "south", "identity": "12" * 32},
        {"name": "a", "node_key": THIRD_KEY},
    ):
        with pytest.raises(DeploymentError, match="was revoked"):
            sites.enroll(home, request(home, **changed))
    assert [site.node_key for site in sites.sites(home)] == [OTHER_KEY]


@pytest.mark.parametrize(
    "changed",
    [
        {"name": ""},
        {"name": "../north"},
        {"name": ".hidden"},
        {"name": "a" * 64},
        {"name": "a\nb"},
        {"name": "a\x1b[2J"},
        {"node_key": ""},
        {"node_key": "ssh-ed25519 AAAA"},
        {"node_key": key_text(rsa.generate_private_key(65537, 2048))},
        {"identity": ""},
        {"identity": "ab" * 31 + "\x1b["},
        {"identity": "AB" * 32},
        {"padding": "x" * 10_000},
    ],
)
def test_requests_that_are_refused(home: Home, changed: dict[str, Any]) -> None:
    with pytest.raises(DeploymentError):
        sites.enroll(home, request(home, **changed))
    assert not list(home.inside("nodes").iterdir())


@pytest.mark.parametrize("text", ["", "[]", "null", "[" * 9_000, '{"name": "north"'])
def test_files_that_are_no_request(home: Home, text: str) -> None:
    path = home.folder / "x.json"
    path.write_text(text)
    with pytest.raises(DeploymentError):
        sites.enroll(home, path)


class SuperLink:
    """What Flower keeps: a key that was ever registered never comes in again."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.nodes: list[fleet.Node] = []
        self.had: set[str] = set()
        monkeypatch.setattr(fleet, "nodes", lambda environment: list(self.nodes))
        monkeypatch.setattr(fleet, "add", self.add)
        monkeypatch.setattr(fleet, "remove", lambda node, environment: self.nodes.remove(node))

    def add(self, public_key: Path, name: str, environment: object) -> None:
        key = public_key.read_text().strip()
        if key in self.had:
            raise DeploymentError("the SuperLink does not do as told: public key already in use")
        self.had.add(key)
        self.nodes.append(fleet.Node(str(len(self.had)), "online", key))

    @property
    def keys(self) -> list[str]:
        return [node.key for node in self.nodes]


@pytest.fixture
def superlink(monkeypatch: pytest.MonkeyPatch) -> SuperLink:
    return SuperLink(monkeypatch)


def test_the_superlink_lets_in_approved_keys_and_no_others(home: Home, superlink: SuperLink) -> None:
    sites.enroll(home, request(home))
    assert sites.register(home, {}) == [], "pending"
    sites.decide(home, "north", APPROVED)
    assert sites.register(home, {}) == ["north"]
    assert sites.register(home, {}) == [] and sites.registered(home, {}) == {
        "north": {"node-id": "1", "status": "online"}
    }
    sites.decide(home, "north", REVOKED)
    assert sites.register(home, {}) == [] and superlink.nodes == []
    assert sites.register(home, {}) == [], "once it is out, there is nothing to take out"


def test_a_crash_in_the_middle_of_a_registration_leaves_nobody_in(home: Home, superlink: SuperLink) -> None:
    """Flower has the node and our folder has no trace of it: the site can still be revoked, and the key found."""
    sites.enroll(home, request(home))
    sites.decide(home, "north", APPROVED)
    sites.register(home, {})
    for path in home.inside("nodes").iterdir():
        if path.suffix != ".json":
            path.unlink()
    assert sites.register(home, {}) == [] and set(sites.registered(home, {})) == {"north"}
    sites.decide(home, "north", REVOKED)
    sites.register(home, {})
    assert superlink.keys == []


def test_new_keys_of_a_revoked_name_do_not_let_the_old_ones_stay(home: Home, superlink: SuperLink) -> None:
    sites.enroll(home, request(home))
    sites.decide(home, "north", APPROVED)
    sites.register(home, {})
    sites.decide(home, "north", REVOKED)  # the coordinator is down: nobody tells the SuperLink
    sites.enroll(home, request(home, node_key=OTHER_KEY, identity=OTHER_IDENTITY))
    sites.decide(home, "north", APPROVED)
    sites.register(home, {})
    assert superlink.keys == [OTHER_KEY]


def test_what_flower_lists_is_told_by_key(monkeypatch: pytest.MonkeyPatch) -> None:
    private = ec.generate_private_key(ec.SECP384R1())
    pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    listed = [["1", "online", pem], ["2", "unregistered", pem], ["3", "offline", "no key"]]
    monkeypatch.setattr(fleet, "json_output", lambda command, environment, timeout_s: listed)
    assert [(n.number, n.status, n.key) for n in fleet.nodes({})] == [
        ("1", "online", key_text(private)),
        ("3", "offline", ""),
    ]


def test_the_proxy_opens_when_it_is_settled_who_may_pass(home: Home, superlink: SuperLink) -> None:
    """A site that was revoked while the coordinator was down is out before anybody can reach the SuperLink."""
    sites.enroll(home, request(home))
    sites.decide(home, "north", APPROVED)
    sites.register(home, {})
    sites.decide(home, "north", REVOKED)
    first, *_, proxy = processes.programs(home)
    assert (first.name, proxy.name, proxy.behind) == ("superlink", "proxy", "superlink")
    first.settle()
    assert superlink.keys == []


@pytest.mark.parametrize("host", ["::1", "[::1]", "fe80::1%eth0", "localhost:8443", "", "a b", "https://a"])
def test_hosts_that_sites_cannot_be_invited_to(tmp_path: Path, host: str) -> None:
    """An agent takes HOST:PORT; before, it refused the invitation to an IPv6 address and nobody knew why."""
    with pytest.raises(DeploymentError, match="sites cannot be invited to") as caught:
        make_home(tmp_path / "c", "trial", ["localhost", host], bind="::", port=1000, first_port=2000)
    assert "--host" in caught.value.hint and not (tmp_path / "c").exists()
