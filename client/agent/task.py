"""The process that serves one message at a site: Flower's own, after the bundle was found on the operator's list.

Flower runs whatever bundle a coordinator serves. A folder that the agent cannot write stops that for honest names; a
bundle whose version is a path would be unpacked elsewhere. Here its hash is compared before a byte is unpacked.
If Flower moves the function that is replaced, this process ends with an error and no message is served.
"""

from __future__ import annotations

import hashlib
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from client.agent.approval import approved_bundles
from client.agent.fork_server import HOME_VARIABLE
from client.agent.home import POLICY_FILE, open_home
from client.node import BUNDLE_VARIABLE
from client.policy import read_policy
from common.errors import DeploymentError, FedembedError, TimeLimitError


def main() -> None:
    """Serve one message; the environment variable ``FEDEMBED_AGENT_HOME`` names the site's folder."""
    try:
        home = open_home(Path(os.environ[HOME_VARIABLE]))
        most_seconds = read_policy(home.inside(POLICY_FILE)).max_seconds
    except (FedembedError, KeyError) as error:
        sys.exit(f"the agent's folder cannot be used: {error}")
    if home.settings.memory_mib:
        limit = home.settings.memory_mib * 2**20
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    end_after(most_seconds)
    from flwr.supernode.cli import flwr_clientapp
    from flwr.supernode.runtime import run_clientapp

    run_clientapp.install_from_fab = approved_only(run_clientapp.install_from_fab, home.folder)
    flwr_clientapp()


def end_after(seconds: int | None) -> None:
    """Raise ``TimeLimitError`` in this thread once so many seconds have passed; ``None``: never."""
    if seconds is None:
        return

    def expired(*_: object) -> None:
        raise TimeLimitError(f"the message took more than the {seconds} s that the site's policy allows")

    signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def approved_only(install: Callable[..., Any], folder: Path) -> Callable[..., Any]:
    """``install``, but for bundles on the list alone."""

    def checked(content: bytes, *args: Any, **options: Any) -> Any:
        digest = hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else ""
        if digest not in approved_bundles(folder):
            raise DeploymentError(f"the bundle {digest[:16]} is not approved at this site")
        os.environ[BUNDLE_VARIABLE] = digest
        return install(content, *args, **options)

    return checked
