"""The sites that a coordinator knows: enrolled with a request, approved by the operator, revoked when they leave."""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_public_key

from common.deployment.journal import now
from common.deployment.settings import NAME
from common.errors import DeploymentError
from common.files import atomic_files
from server.coordinator import fleet
from server.coordinator.home import Home

PENDING, APPROVED, REVOKED = "pending", "approved", "revoked"
_IDENTITY = re.compile(r"[0-9a-f]{64}")
_LARGEST_REQUEST = 10_000
_REVOKED_FOLDER = "revoked"
NEW_KEYS = (
    "Have the site make new keys in a new folder (`fedembed agent init`), take its ledger along under the same name, "
    "and enrol again; then `approve` it, and have the organiser sign another roster."
)
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
        DeploymentError: not a request, the name, key or identity is another site's, or was revoked. The name of a
            revoked site can be had again, by new keys.
    """
    raw = _request(request)
    name, key = str(raw.get("name", "")), _node_key(str(raw.get("node_key", "")), request)
    identity = str(raw.get("identity", ""))
    if not NAME.fullmatch(name):
        raise DeploymentError(f"{request}: {name!r} is no name for a site", remedy="Letters, digits, '.', '_', '-'.")
    if not _IDENTITY.fullmatch(identity):
        raise DeploymentError(f"{request}: the identity is no public key of 64 hexadecimal digits")
    fresh = Site(name, key, identity, PENDING, now())
    with _alone(home):
        known = _clear_of(home, fresh, request)
        if known is not None and known.status != REVOKED:
            return known
        if known is not None:
            _set_aside(home, known)
        _save(home, fresh)
    return fresh


def _clear_of(home: Home, fresh: Site, request: Path) -> Site | None:
    """The site that has this name so far, if any; raises where name, key or identity may not be had."""
    if any(fresh.node_key == old.node_key or fresh.identity == old.identity for old in revoked(home)):
        raise DeploymentError(f"the key or the identity in {request} was revoked", remedy=NEW_KEYS)
    found = None
    for other in sites(home):
        if other.name != fresh.name:
            if other.node_key == fresh.node_key or other.identity == fresh.identity:
                raise DeploymentError(
                    f"the key in {request} is that of site {other.name!r}", remedy="Every site has its own."
                )
        elif other.status != REVOKED and other.identity != fresh.identity:
            raise DeploymentError(f"there is a site {other.name!r} with another identity", remedy=_OTHER_NAME)
        elif other.status != REVOKED and other.node_key != fresh.node_key:
            raise DeploymentError(f"there is a site {other.name!r} with another key", remedy=_OTHER_NAME)
        else:
            found = other
    return found


def decide(home: Home, name: str, status: str) -> Site:
    """Give a site another status on disk; ``register`` carries it to the SuperLink.

    Raises:
        DeploymentError: nobody has the name, or its key was revoked: that is for good.
    """
    with _alone(home):
        site = site_named(home, name)
        if site.status == REVOKED and status != REVOKED:
            raise DeploymentError(f"site {name!r} was revoked, and its key stays so", remedy=NEW_KEYS)
        if site.status != status:
            site = replace(site, status=status, since=now())
            _save(home, site)
    return site


def sites(home: Home) -> Iterator[Site]:
    """Every site, in order of name."""
    yield from _read(home.inside("nodes"))


def revoked(home: Home, name: str | None = None) -> Iterator[Site]:
    """Every site as it was revoked, also those whose name another key has since; or those of one name."""
    for site in (*sites(home), *_read(home.inside("nodes", _REVOKED_FOLDER))):
        if site.status == REVOKED and name in (None, site.name):
            yield site


def _read(folder: Path) -> Iterator[Site]:
    for path in sorted(folder.glob("*.json")):
        yield Site(**json.loads(path.read_text()))


def site_named(home: Home, name: str) -> Site:
    """One site. Raises ``DeploymentError`` for a name that nobody has."""
    for site in sites(home):
        if site.name == name:
            return site
    raise DeploymentError(f"there is no site {name!r}", remedy="`fedembed coordinator sites` lists them.")


def register(home: Home, environment: Mapping[str, str]) -> list[str]:
    """Make the SuperLink, which must be up, let in the keys of approved sites, and nobody else.

    Nodes are told apart by their keys, which the SuperLink has itself: nothing that a crash could lose is needed to
    find the node of a site that was revoked.

    Returns the names of those that were registered now.
    """
    with _alone(home):
        approved = {site.node_key: site for site in sites(home) if site.status == APPROVED}
        known = fleet.nodes(environment)
        for node in known:
            if node.key not in approved:
                fleet.remove(node, environment)
        fresh = [site for key, site in approved.items() if key not in {node.key for node in known}]
        for site in fresh:
            public = home.inside("nodes", f"{site.name}.pub")
            public.write_text(site.node_key + "\n")
            fleet.add(public, site.name, environment)
    return [site.name for site in fresh]


def registered(home: Home, environment: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """What the SuperLink says of each registered site, by name."""
    names = {site.node_key: site.name for site in sites(home)}
    return {
        names[node.key]: {"node-id": node.number, "status": node.status}
        for node in fleet.nodes(environment)
        if node.key in names
    }


@contextmanager
def _alone(home: Home) -> Iterator[None]:
    """Two at once could undo a revocation, or register the same key twice."""
    with home.inside("nodes", ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


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
    _write(home.inside("nodes", f"{site.name}.json"), site)


def _write(path: Path, site: Site) -> None:
    with atomic_files(path) as (partial,):
        partial.write_text(json.dumps(asdict(site), indent=2) + "\n")


def _set_aside(home: Home, site: Site) -> None:
    """Keep what was revoked, under its key's hash, before its name is given to another key."""
    folder = home.inside("nodes", _REVOKED_FOLDER)
    folder.mkdir(exist_ok=True)
    _write(folder / f"{hashlib.sha256(site.node_key.encode()).hexdigest()}.json", site)
