"""Which code may run at a site: bundles that its operator looked at, kept where the agent's processes cannot write."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from client.agent.fork_server import socket_path
from client.agent.home import AgentHome
from common.deployment.bundle import Bundle
from common.deployment.flower import APP_PACKAGES, flower_environment, installation, tail
from common.deployment.journal import now
from common.errors import DeploymentError
from common.files import atomic_files

LIST_FILE = "bundles.json"
TASK_COMMAND = "flwr-clientapp"  # what Flower's executor starts for every message
OTHER_COMMANDS = ("flwr-agentapp", "flwr-connector", "flwr-model", "flwr-serverapp", "flwr-simulation")
_REFUSAL = """#!/bin/sh
# A coordinator can ask Flower's executor for this kind of task, and it would run a bundle that nobody has approved.
echo "this site serves no such task" >&2
exit 1
"""
_ALONE = "from client.agent.fork_server import remember_code; remember_code(); import client.agent.task as t; t.main()"
_LAUNCHER = """#!{python} -IS
# Hands a message over to the fork server, which has everything imported; without one, does the imports itself.
import json
import os
import socket
import sys

try:
    with socket.socket(socket.AF_UNIX) as door:
        os.chdir({folder!r})  # a socket's path may be 107 bytes long; a name in this folder is short
        door.connect({name!r})
        socket.send_fds(door, [json.dumps(sys.argv).encode()], [1, 2])
        door.recv(1)
except OSError as error:
    print("no fork server:", error, file=sys.stderr, flush=True)
    os.execv({python!r}, [{python!r}, "-c", {alone!r}, *sys.argv[1:]])
"""


def approve(home: AgentHome, bundle: Bundle) -> Path:
    """Install a bundle where the agent's processes find it, read only, and put its hash on the list.

    Raises:
        DeploymentError: Flower refuses the file.
    """
    import subprocess

    approved = home.inside("approved")
    with tempfile.TemporaryDirectory() as name:
        packed = Path(name) / "bundle.fab"
        packed.write_bytes(bundle.content)
        environment = {**flower_environment(Path(name)), "FLWR_HOME": str(approved)}
        code = (
            "import sys; from pathlib import Path; from flwr.cli.install import install_from_fab;"
            "install_from_fab(Path(sys.argv[1]).read_bytes(), skip_prompt=True)"
        )
        with _opened(approved):
            done = subprocess.run(
                [sys.executable, "-c", code, str(packed)], env=environment, capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise DeploymentError(f"Flower refuses the bundle: {tail(done.stdout + done.stderr)}")
            approval = {"approved": now(), "files": len(bundle.files)}
            _write_list(approved, {**approved_bundles(home.folder), bundle.digest: approval})
    write_launchers(home)
    return approved


def foreign_files(folder: Path) -> list[str]:
    """Python files of a bundle's folder that are not, byte for byte, those of this installation.

    A site's process has imported its own installation before it sees a bundle, and that is what serves a message: the
    hash of a bundle with other code would stand in the ledger for code that never ran.
    """
    root = installation()
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.py"))
    return [name for name in names if not _same(folder / name, root / name)]


def installed_code() -> str:
    """SHA-256 over the code of this installation that a bundle holds, as it stands on disk."""
    root, found = installation(), hashlib.sha256()
    for path in sorted(path for package in APP_PACKAGES for path in (root / package).rglob("*.py")):
        found.update(f"{path.relative_to(root)} ".encode() + hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()


def _same(one: Path, other: Path) -> bool:
    return other.is_file() and one.read_bytes() == other.read_bytes()


def approved_bundles(folder: Path) -> Mapping[str, Mapping[str, object]]:
    """Hashes of approved bundles, with when they were approved."""
    path = folder / "approved" / LIST_FILE
    return json.loads(path.read_text()) if path.exists() else {}


def revoke(home: AgentHome, digest: str) -> None:
    """Take a bundle off the list. Raises ``DeploymentError`` for one that is not on it."""
    listed = dict(approved_bundles(home.folder))
    chosen = [full for full in listed if full.startswith(digest)]
    if len(chosen) != 1:
        raise DeploymentError(f"{len(chosen)} approved bundles begin with {digest!r}")
    del listed[chosen[0]]
    approved = home.inside("approved")
    with _opened(approved):
        _write_list(approved, listed)
        for path in (approved / "apps").glob(f"*.{chosen[0][:8]}"):
            shutil.rmtree(path)


def write_launchers(home: AgentHome) -> None:
    """What the executor starts for a message: ours, under Flower's name; and for every other kind of task, nothing."""
    for other in OTHER_COMMANDS:
        refusal = home.inside("bin", other)
        refusal.unlink(missing_ok=True)
        refusal.write_text(_REFUSAL)
        refusal.chmod(0o755)
    path, door = home.inside("bin", TASK_COMMAND), socket_path(home.folder)
    path.unlink(missing_ok=True)
    path.write_text(_LAUNCHER.format(python=sys.executable, folder=str(door.parent), name=door.name, alone=_ALONE))
    path.chmod(0o755)


def _write_list(approved: Path, listed: Mapping[str, Mapping[str, object]]) -> None:
    with atomic_files(approved / LIST_FILE) as (partial,):
        partial.write_text(json.dumps(listed, indent=2) + "\n")


@contextmanager
def _opened(approved: Path) -> Iterator[None]:
    """The folder can be written in the block, and by nobody after it, however that ends."""
    _writable(approved, True)
    try:
        yield
    finally:
        _writable(approved, False)


def _writable(folder: Path, writable: bool) -> None:
    """Everything below ``folder`` readable by all, writable by its owner or by nobody."""
    for path in (folder, *folder.rglob("*")):
        if path.is_dir():
            os.chmod(path, 0o755 if writable else 0o555)
        else:
            os.chmod(path, 0o644 if writable else 0o444)
