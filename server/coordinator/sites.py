"""The sites that a coordinator knows: enrolled with a request, approved by the operator, revoked when they leave."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_public_key

from common.deployment.flower import CONNECTION, json_output
from common.deployment.journal import now
from common.errors import DeploymentError, RoundError
from common.files import atomic_files
from server.coordinator.home import Home

PENDING, APPROVED, REVOKED = "pending", "approved", "revoked"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_IDENTITY = re.compile(r"[0-9a-f]{64}")
_LARGEST_REQUEST = 10_000
_OTHER_NAME = "Have the site take another name: fedembed agent init --name NAME"


@dataclass(frozen=True)
class Site:
    """A site as the coordinator's folder has it.

    Attributes:
        node_key: public key with which its node signs in, one line in OpenSSH's form.
        identity: public key in rosters, hexadecimal.
        status: ``pending``, ``approved`` or ``revoked``.
        since: when the status was given.
    """

    name: str
    node_key: str
    identity: str
    status: str
    since: str


def enroll(home: Home, request: Path) -> Site:
    """Take a site's request (``enrolment.json``) in; it may do nothing before it is approved.

    Raises:
        DeploymentError: not a request, or the name or key is another site's.
    """
    raw = _request(request)
    name, key = str(raw.get("name", "")), _node_key(str(raw.get("node_key", "")), request)
    identity = str(raw.get("identity", ""))
    if not _NAME.fullmatch(name):
        raise DeploymentError(f"{request}: {name!r} is no name for a site", remedy="Letters, digits, '.', '_', '-'.")
    if not _IDENTITY.fullmatch(identity):
        raise DeploymentError(f"{request}: the identity is no public key of 64 hexadecimal digits")
    for other in sites(home):
        if other.name == name and other.identity != identity:
            raise DeploymentError(f"there is a site {name!r} with another identity", remedy=_OTHER_NAME)
        if other.name == name and (other.node_key != key or other.status == REVOKED):
            raise DeploymentError(f"there is a site {name!r} with another key, or a revoked one", remedy=_OTHER_NAME)
        if other.node_key == key and other.name != name:
            raise DeploymentError(
                f"the key in {request} is that of site {other.name!r}", remedy="Every site has its own."
            )
        if other.name == name:
            return other
    site = Site(name, key, identity, PENDING, now())
    _save(home, site)
    return site


def decide(home: Home, name: str, status: str) -> Site:
    """Give a site another status on disk; ``register`` and ``unregister`` carry it to the SuperLink."""
    site = replace(site_named(home, name), status=status, since=now())
    _save(home, site)
    return site


def sites(home: Home) -> Iterator[Site]:
    """Every site, in order of name."""
    for path in sorted(home.inside("nodes").glob("*.json")):
        yield Site(**json.loads(path.read_text()))


def site_named(home: Home, name: str) -> Site:
    """One site. Raises ``DeploymentError`` for a name that nobody has."""
    for site in sites(home):
        if site.name == name:
            return site
    raise DeploymentError(f"there is no site {name!r}", remedy="`fedembed coordinator sites` lists them.")


def register(home: Home, environment: Mapping[str, str]) -> list[str]:
    """Tell the SuperLink, which must be up, of every approved site that it does not know, and of revoked ones.

    Returns the names of those that were registered now.
    """
    known = registered(home, environment)
    fresh = []
    for site in sites(home):
        number = known.get(site.name)
        if site.status == APPROVED and number is None:
            public = home.inside("nodes", f"{site.name}.pub")
            public.write_text(site.node_key + "\n")
            made = _supernode(["register", str(public), CONNECTION, "--name", site.name], environment)
            home.inside("nodes", f"{site.name}.node").write_text(str(made["node-id"]))
            fresh.append(site.name)
        if site.status == REVOKED and number is not None:
            _supernode(["unregister", number["node-id"], CONNECTION], environment)
    return fresh


def registered(home: Home, environment: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """What the SuperLink says of each registered site, by name; Flower's own list has numbers alone."""
    found = {str(node["node-id"]): node for node in _supernode(["list", CONNECTION], environment).get("nodes", [])}
    numbers = {path.stem: path.read_text().strip() for path in home.inside("nodes").glob("*.node")}
    return {name: found[number] for name, number in numbers.items() if number in found}


def _supernode(arguments: list[str], environment: Mapping[str, str]) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = json_output(["flwr", "supernode", *arguments, "--format", "json"], environment)
    except RoundError as error:
        raise DeploymentError(f"the SuperLink does not do as told: {error.message}") from None
    return answer


def _request(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LARGEST_REQUEST:
            raise ValueError("it is too large")
        raw = json.loads(path.read_text())
        if not isinstance(raw, dict):
            raise ValueError("it is no JSON object")
    except (OSError, ValueError, RecursionError) as error:
        raise DeploymentError(
            f"{path} is no enrolment request: {error}", remedy="`fedembed agent init` writes enrolment.json."
        ) from None
    return raw


def _node_key(text: str, path: Path) -> str:
    try:
        key = load_ssh_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise DeploymentError(f"{path}: node_key is no elliptic-curve key in OpenSSH's form")
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()  # one text for one key


def _save(home: Home, site: Site) -> None:
    with atomic_files(home.inside("nodes", f"{site.name}.json")) as (partial,):
        partial.write_text(json.dumps(asdict(site), indent=2) + "\n")
