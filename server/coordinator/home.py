"""The coordinator's folder: certificates, secrets, settings, and the invitation that sites begin with."""

from __future__ import annotations

import json
import os
import re
import secrets
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from common.deployment.certificates import Certificate, authority, server_certificate
from common.deployment.settings import NAME, checked_settings, read_settings
from common.errors import DeploymentError
from common.files import disk_errors, write_private, write_whole
from common.secagg.keys import Identity

SETTINGS_FILE, INVITATION_FILE = "coordinator.toml", "invitation.json"
_FOLDERS = ("tls", "secrets", "nodes", "nginx", "state", "runs", "logs", "flower")
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")
_ON_LOOPBACK = ("localhost", "127.0.0.1")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PublicSettings(_Section):
    """What the reverse proxy offers to sites."""

    bind: str = "0.0.0.0"
    port: int = Field(8443, ge=1, le=65535)
    names: tuple[str, ...] = Field(min_length=1)
    max_body_mib: int = Field(256, ge=1)
    requests_per_second: int = Field(200, ge=1)
    timeout_s: int = Field(120, ge=1)

    @property
    def own_address(self) -> str:
        """One under which this machine itself reaches the proxy."""
        return {"0.0.0.0": "127.0.0.1", "::": "::1", "*": "127.0.0.1"}.get(self.bind, self.bind)


class LoopbackSettings(_Section):
    """Ports that are never published."""

    superlink_port: int = Field(18000, ge=1, le=65535)
    health_port: int = Field(18001, ge=1, le=65535)
    metrics_port: int = Field(18002, ge=1, le=65535)


class StorageSettings(_Section):
    """Where Flower keeps messages between coordinator and sites."""

    database: str = Field("disk", pattern="^(disk|memory)$")
    encrypted: bool = False


class Settings(_Section):
    """``coordinator.toml``."""

    name: str = Field(pattern=f"^{NAME.pattern}$")
    public: PublicSettings
    loopback: LoopbackSettings = LoopbackSettings()
    storage: StorageSettings = StorageSettings()


_TEMPLATE = """# The coordinator. `fedembed coordinator up` reads this file when it starts.

name = {name}

[public]                  # what sites reach: a TLS proxy that publishes /v1/fleet/ and nothing else
bind = {bind}             # address to listen on
port = {port}
names = {names}           # as sites know this machine: they stand in the certificate (see `coordinator renew`)
max_body_mib = 256        # largest request
requests_per_second = 200 # from one address; more are told to come back later
timeout_s = 120           # for one request

[loopback]                # never open these to a network: Flower's control interface asks for no password
superlink_port = {superlink_port}
health_port = {health_port}       # grpc.health.v1
metrics_port = {metrics_port}     # http://127.0.0.1:PORT/metrics, for Prometheus

[storage]                 # of messages in transit
database = "disk"         # "memory": nothing of an update reaches the disk; sites' registrations are repeated at start
encrypted = false         # true says: the folder `state` lies on an encrypted file system. Mode "central" needs
                          # this or "memory", because its updates arrive in the clear
"""


@dataclass(frozen=True)
class Home:
    """Paths in the coordinator's folder, and its settings."""

    folder: Path
    settings: Settings

    @property
    def authority_file(self) -> Path:
        return self.folder / "tls" / "ca.crt"

    @property
    def secret_file(self) -> Path:
        return self.folder / "secrets" / "executor.secret"

    @property
    def identity_file(self) -> Path:
        return self.folder / "secrets" / "identity.key"

    def inside(self, *parts: str) -> Path:
        """A path in the folder."""
        return self.folder.joinpath(*parts)

    def identity(self) -> Identity:
        """The key that signs what this coordinator asks of sites."""
        return Identity.from_pem(self.identity_file.read_bytes())


def make_home(folder: Path, name: str, names: list[str], *, bind: str, port: int, first_port: int) -> Home:
    """Write a new coordinator's folder; an existing one is never touched.

    Args:
        names: host names or addresses under which sites reach this machine.
        first_port: of three on loopback.

    Raises:
        DeploymentError: the folder is in use, or a setting is wrong; IPv6 addresses are no names.
        StorageError: it cannot be written.
    """
    if folder.exists() and any(folder.iterdir()):
        raise DeploymentError(f"{folder} is not empty", remedy="Choose another --home, or `up` the one that is there.")
    wrong = [host for host in names if not _HOST.fullmatch(host)]
    if wrong:
        raise DeploymentError(
            f"sites cannot be invited to {wrong[0]!r}: it is no host name and no IPv4 address",
            remedy="Give --host a name, without a port; one that leads to an IPv6 address needs --bind :: too.",
        )
    text = _TEMPLATE.format(
        name=json.dumps(name),
        bind=json.dumps(bind),
        port=port,
        names=json.dumps(names),
        superlink_port=first_port,
        health_port=first_port + 1,
        metrics_port=first_port + 2,
    )
    settings = checked_settings(tomllib.loads(text), Settings, folder / SETTINGS_FILE)
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        for part in _FOLDERS:
            (folder / part).mkdir()
    root = authority(name)
    write_private(folder / "tls" / "ca.key", root.key)
    write_whole(folder / "tls" / "ca.crt", root.certificate)
    home = Home(folder.resolve(), settings)
    write_server_certificate(home)
    write_private(home.secret_file, secrets.token_bytes(32))
    write_private(home.identity_file, Identity.fresh(os.urandom).to_pem())
    write_whole(folder / INVITATION_FILE, (json.dumps(invitation(home), indent=2) + "\n").encode())
    write_whole(folder / SETTINGS_FILE, text.encode())
    return home


def write_server_certificate(home: Home) -> None:
    """Make a new server certificate under the coordinator's own authority, for the names in the settings."""
    tls = home.folder / "tls"
    issuer = Certificate((tls / "ca.crt").read_bytes(), (tls / "ca.key").read_bytes())
    made = server_certificate(issuer, list(dict.fromkeys([*home.settings.public.names, *_ON_LOOPBACK])))
    (tls / "server.key").unlink(missing_ok=True)
    write_private(tls / "server.key", made.key)
    write_whole(tls / "server.crt", made.certificate)


def invitation(home: Home) -> dict[str, Any]:
    """What a site needs to begin: address, authority and the coordinator's public key. None of it is secret."""
    public = home.settings.public
    return {
        "coordinator": home.settings.name,
        "address": f"{public.names[0]}:{public.port}",
        "authority": home.authority_file.read_text(),
        "identity": home.identity().public.hex(),
    }


def open_home(folder: Path) -> Home:
    """Read a coordinator's folder.

    Raises:
        DeploymentError: there is none, or its settings are wrong.
    """
    path = folder / SETTINGS_FILE
    if not path.exists():
        raise DeploymentError(
            f"there is no coordinator in {folder}", remedy="Make one: fedembed coordinator init --home DIR --host NAME"
        )
    return Home(folder.resolve(), read_settings(path, Settings))
