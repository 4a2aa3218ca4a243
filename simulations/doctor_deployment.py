"""What ``fedembed doctor`` looks at of a deployment: programs, a coordinator's folder, an agent's folder."""

from __future__ import annotations

import datetime
import os
import pwd
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from common.errors import FedembedError
from simulations.finding import Finding

_SOON = datetime.timedelta(days=30)
_PROGRAMS = {
    "nginx": "`fedembed coordinator up` needs it: apt-get install nginx-light",
    "setpriv": "coordinators and agents need it: apt-get install util-linux",
}


def examined_programs() -> Iterator[Finding]:
    """Programs that pip cannot install; without a deployment nobody needs them."""
    path = os.environ.get("PATH", "") + os.pathsep + "/usr/sbin"
    for name, purpose in _PROGRAMS.items():
        found = shutil.which(name, path=path)
        yield Finding(name, found) if found else Finding(name, f"not installed, optional: {purpose}", "note")


def examined_folder(folder: Path) -> Iterator[Finding]:
    """A coordinator's or an agent's folder."""
    from client.agent.home import AGENT_FILE
    from server.coordinator.home import SETTINGS_FILE

    try:
        if (folder / SETTINGS_FILE).exists():
            yield from _coordinator(folder)
        elif (folder / AGENT_FILE).exists():
            yield from _agent(folder)
        else:
            yield Finding(str(folder), "neither a coordinator nor an agent is here", "missing")
    except (FedembedError, OSError) as error:
        yield Finding(str(folder), f"cannot be examined: {error}", "missing")


def _coordinator(folder: Path) -> Iterator[Finding]:
    from common.deployment.certificates import expires
    from server.coordinator.home import open_home

    home = open_home(folder)
    storage = home.settings.storage
    if storage.database == "memory":
        yield Finding("messages at rest", "in memory: nothing of an update reaches the disk")
    elif storage.encrypted:
        yield Finding("messages at rest", "on disk, and declared encrypted in coordinator.toml")
    else:
        kept = "on disk, not declared encrypted: modes 'central' and 'none' are refused"
        yield Finding("messages at rest", kept, "note")
    for name in ("server.crt", "ca.crt"):
        yield _certificate(name, expires(home.inside("tls", name).read_bytes()))
    yield _only_for_owner(folder, [folder, *_keys(folder / "tls"), *_keys(folder / "secrets")])


def _certificate(name: str, end: datetime.datetime) -> Finding:
    left, shown = end - datetime.datetime.now(datetime.UTC), f"valid until {end:%Y-%m-%d}"
    if left < datetime.timedelta():
        return Finding(name, f"ended on {end:%Y-%m-%d}: fedembed coordinator renew", "missing")
    return Finding(name, shown, "ok" if left > _SOON else "note")


def _agent(folder: Path) -> Iterator[Finding]:
    from client.agent.home import open_home

    home = open_home(folder)
    yield _only_for_owner(folder, [folder / "keys", *_keys(folder / "keys")])
    if home.user is None:
        yield Finding("agent's account", "the one that starts it: it can write its own policy and code", "note")
        return
    try:
        account = pwd.getpwnam(home.user)
    except KeyError:
        yield Finding("agent's account", f"there is no {home.user!r}: useradd --system {home.user}", "missing")
        return
    guarded = [folder, *folder.glob("*.toml"), *(folder / "approved").rglob("*"), *(folder / "bin").rglob("*")]
    guarded += [folder / "approved", folder / "bin", folder / "tls"]
    writable = [str(p.relative_to(folder)) for p in guarded if _may_write(p, account)]
    if writable:
        yield Finding("agent's account", f"{home.user} can write {', '.join(sorted(writable)[:5])}", "missing")
    else:
        yield Finding("agent's account", f"{home.user}; it can write neither policy nor approved code")


def _keys(folder: Path) -> list[Path]:
    """Files of a folder that are secret: all but certificates."""
    return [path for path in sorted(folder.iterdir()) if path.suffix != ".crt"]


def _only_for_owner(folder: Path, paths: list[Path]) -> Finding:
    open_ones = [str(path.relative_to(folder)) for path in paths if path.stat().st_mode & 0o077]
    if open_ones:
        return Finding("keys", f"others may read {', '.join(open_ones)}: chmod go= on each", "missing")
    return Finding("keys", "for their owner alone")


def _may_write(path: Path, account: pwd.struct_passwd) -> bool:
    """Whether the rights of its owner, its group or everybody let an account write; root itself is not asked about."""
    if path.is_symlink():
        return False
    found = path.stat()
    if found.st_uid == account.pw_uid:
        return True  # an owner may give itself any right
    group = found.st_gid == account.pw_gid and bool(found.st_mode & stat.S_IWGRP)
    return group or bool(found.st_mode & stat.S_IWOTH)
