"""A site's folder: keys, the coordinator's certificate, policy and data description, and who may write which part."""

from __future__ import annotations

import json
import os
import pwd
import secrets
import stat
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from pydantic import BaseModel, ConfigDict, Field

from common.deployment.settings import NAME, checked_settings, read_settings
from common.errors import DeploymentError
from common.files import disk_errors, write_private, write_whole
from common.secagg.keys import Identity

AGENT_FILE, SITE_FILE, POLICY_FILE, ENROLMENT_FILE = "agent.toml", "site.toml", "policy.toml", "enrolment.json"
_OPERATORS_FOLDERS = ("keys", "tls", "approved", "bin")  # the agent's processes read these
_AGENTS_FOLDERS = ("state", "scratch")  # and write these alone; others do not look into them: encoded data are there
_LOGS = "logs"  # the operator's: the agent's processes are handed open files and cannot choose where they lead


class AgentSettings(BaseModel):
    """``agent.toml``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    coordinator: str = Field(min_length=1)
    address: str = Field(pattern=r"^[^:/\s]+:\d+$")
    user: str = ""
    runtime_port: int = Field(19100, ge=1, le=65535)
    health_port: int = Field(19101, ge=1, le=65535)
    metrics_port: int = Field(19102, ge=1, le=65535)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    memory_mib: int = Field(0, ge=0)
    gpu_memory_mib: int = Field(0, ge=0)


_AGENT = """# The agent. `fedembed agent up` reads this file when it starts.

coordinator = {coordinator}
address = {address}
user = {user}             # account that the agent's processes run as; needed where root starts them
runtime_port = {runtime_port}      # on loopback, between the agent's own processes
health_port = {health_port}       # grpc.health.v1, on loopback
metrics_port = {metrics_port}      # http://127.0.0.1:PORT/metrics, on loopback
device = "auto"           # "cpu" or "cuda" overrule what a run asks for
memory_mib = 0            # most memory of the process that trains; 0: no bound
gpu_memory_mib = 0        # most memory of the GPU; 0: no bound. Where it does not suffice, the CPU goes on
"""

_SITE = """# This site's data. Nothing that a coordinator sends replaces these settings.
# `fedembed agent check` reads the data and says, in counts alone, what would be trained on.

name = {name}

[data]
reader = {reader}         # `fedembed list readers`
path = {path}

# With a roster (`fedembed roster`), take the comments away:
# [secure_aggregation]
# identity = "keys/identity.key"
# roster = "roster.json"
# organiser = ""           # the organiser's public key, which you were told on another way
"""

_POLICY = """# What this site takes part in. Every message is checked against it before anything is computed; a refusal
# is a normal answer that names its reason. `fedembed agent status` shows refusals, and what is spent and left.

max_epsilon = 0.0                  # TO BE DECIDED BY YOU: limit on everything ever spent on these data. 0 refuses all
max_delta = 1e-5
modes = ["distributed", "local", "example"]  # "central" trusts the coordinator with single updates
units = ["client", "record"]      # privacy units that a run may protect
coordinators = [{identity}]       # public keys whose runs are looked at; that of the invitation
min_cohort = 3                     # secure aggregation: fewest clients that begin a round
min_survivors = 3                  # secure aggregation: fewest clients in a sum that is opened
roster_required = false            # secure aggregation among identities of a signed roster alone
max_rounds = 1000
max_message_bytes = 268435456
"""


@dataclass(frozen=True)
class AgentHome:
    """Paths in a site's folder, and its settings."""

    folder: Path
    settings: AgentSettings

    def inside(self, *parts: str) -> Path:
        """A path in the folder."""
        return self.folder.joinpath(*parts)

    @property
    def user(self) -> str | None:
        """Account that the agent's processes run as; ``None``: whoever starts them."""
        return self.settings.user or None


def make_home(
    folder: Path, invitation: Path, *, name: str, data: tuple[str, str], user: str, first_port: int
) -> AgentHome:
    """Write a new site's folder; an existing one is never touched.

    Args:
        data: reader and path.
        user: account for the agent's processes; empty: ours.
        first_port: of three on loopback.

    Raises:
        DeploymentError: the folder is in use, the name is none, the invitation cannot be read, or there is no such
            account.
        StorageError: the folder cannot be written.
    """
    if folder.exists() and any(folder.iterdir()):
        raise DeploymentError(f"{folder} is not empty", remedy="Choose another --home, or `up` the one that is there.")
    if not NAME.fullmatch(name):
        raise DeploymentError(f"{name!r} is no name for a site", remedy="Letters, digits, '.', '_', '-'; 63 at most.")
    invited = read_invitation(invitation)
    text = _AGENT.format(
        coordinator=json.dumps(invited["coordinator"]),
        address=json.dumps(invited["address"]),
        user=json.dumps(user),
        runtime_port=first_port,
        health_port=first_port + 1,
        metrics_port=first_port + 2,
    )
    home = AgentHome(folder.resolve(), checked_settings(tomllib.loads(text), AgentSettings, folder / AGENT_FILE))
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for part in (*_OPERATORS_FOLDERS, *_AGENTS_FOLDERS, _LOGS):
            (folder / part).mkdir()
    _write(home.inside("tls", "ca.crt"), invited["authority"])
    enrolment = {"name": name, **_make_keys(home)}
    _write(home.inside(ENROLMENT_FILE), json.dumps(enrolment, indent=2) + "\n")
    reader, path = data
    _write(
        home.inside(SITE_FILE), _SITE.format(name=json.dumps(name), reader=json.dumps(reader), path=json.dumps(path))
    )
    _write(home.inside(POLICY_FILE), _POLICY.format(identity=json.dumps(invited["identity"])))
    _write(home.inside(AGENT_FILE), text)
    hand_over(home)
    return home


def read_invitation(path: Path) -> dict[str, str]:
    """A coordinator's invitation. Raises ``DeploymentError`` for anything else."""
    fields = ("coordinator", "address", "authority", "identity")
    try:
        raw = json.loads(path.read_text())
        found = {field: str(raw[field]) for field in fields}
        one = x509.load_pem_x509_certificates(found["authority"].encode())
        if len(one) != 1:
            raise ValueError("an invitation has one authority: its fingerprint is all that two people compare")
        return {**found, "authority": one[0].public_bytes(Encoding.PEM).decode()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DeploymentError(
            f"{path} is no invitation ({type(error).__name__})",
            remedy="The coordinator's operator has invitation.json in the coordinator's folder.",
        ) from None


def open_home(folder: Path) -> AgentHome:
    """Read a site's folder. Raises ``DeploymentError``: there is none, or its settings are wrong."""
    path = folder / AGENT_FILE
    if not path.exists():
        raise DeploymentError(
            f"there is no agent in {folder}", remedy="Make one: fedembed agent init --home DIR --invitation FILE"
        )
    return AgentHome(folder.resolve(), read_settings(path, AgentSettings))


def hand_over(home: AgentHome) -> None:
    """Give the agent's account what it writes and the keys it uses; the rest stays the operator's, and readable.

    Raises:
        DeploymentError: there is no such account.
    """
    for part in ("approved", "bin", "tls"):
        home.inside(part).chmod(0o755)
    for part in ("keys", _LOGS):
        home.inside(part).chmod(0o700)
    if os.geteuid() == 0 or home.inside("state").stat().st_uid == os.geteuid():
        for part in _AGENTS_FOLDERS:
            home.inside(part).chmod(0o700)
    if home.user is None:
        return
    try:
        account = pwd.getpwnam(home.user)
    except KeyError:
        raise DeploymentError(
            f"there is no account {home.user!r} on this machine", remedy=f"Make it: useradd --system {home.user}"
        ) from None
    if os.geteuid() != 0:
        if account.pw_uid != os.geteuid():
            raise DeploymentError(
                "only root can run the agent as another account", remedy="Start it as root, or leave `user` empty."
            )
        return
    givers = {os.geteuid(), home.inside("state").lstat().st_uid}  # ours, and of the account that it was before
    for part in ("keys", *_AGENTS_FOLDERS):
        for _, _, files, folder in os.fwalk(home.inside(part), follow_symlinks=False):
            for name in (".", *files):
                _give(name, folder, givers, (account.pw_uid, account.pw_gid))


def _give(name: str, folder: int, givers: set[int], account: tuple[int, int]) -> None:
    """Change the owner of a file in an open folder, or of the folder itself, and of nothing that a link leads to.

    The agent's account may have put anything there since: what is neither ours nor that of the account that the agent
    had before, or has more names than one, stays as it is. It is looked at and given by one descriptor, so that no
    other file can take its place in between.
    """
    try:
        descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=folder)
    except FileNotFoundError:
        return
    try:
        found = os.fstat(descriptor)
        only = stat.S_ISDIR(found.st_mode) or (found.st_nlink == 1 and not stat.S_ISLNK(found.st_mode))
        if found.st_uid in givers and only:
            os.chown(f"/proc/self/fd/{descriptor}", *account)
    finally:
        os.close(descriptor)


def _make_keys(home: AgentHome) -> dict[str, str]:
    """The node's key (P-384, OpenSSH's form, as Flower takes it), the identity for rosters, the executor's secret."""
    node = ec.generate_private_key(ec.SECP384R1())
    write_private(home.inside("keys", "node"), node.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    public = node.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    identity = Identity.fresh(os.urandom)
    write_private(home.inside("keys", "identity.key"), identity.to_pem())
    write_private(home.inside("keys", "executor.secret"), secrets.token_bytes(32))
    return {"node_key": public, "identity": identity.public.hex()}


def _write(path: Path, text: str) -> None:
    write_whole(path, text.encode())
    path.chmod(0o644)
