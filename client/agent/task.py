"""The process that serves one message at a site: Flower's own, after the bundle was found on the operator's list.

Flower runs whatever bundle a coordinator serves. A folder that the agent cannot write stops that for honest names; a
bundle whose version is a path would be unpacked elsewhere. Here its hash is compared before a byte is unpacked.
Flower then loads code from a folder that the coordinator names beside the bundle: it has to be the bundle's own.
If Flower moves a function that is replaced, this process ends with an error and no message is served.
"""

from __future__ import annotations

import faulthandler
import hashlib
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from client.agent.approval import approved_bundles, foreign_files, installed_code
from client.agent.fork_server import CODE_VARIABLE, HOME_VARIABLE
from client.agent.home import POLICY_FILE, open_home
from client.node import BUNDLE_VARIABLE
from client.policy import read_policy
from common.errors import DeploymentError, FedembedError, TimeLimitError

GRACE_S = 30


def main() -> None:
    """Serve one message; the environment variable ``FEDEMBED_AGENT_HOME`` names the site's folder."""
    try:
        home = open_home(Path(os.environ[HOME_VARIABLE]))
        most_seconds = read_policy(home.inside(POLICY_FILE)).max_seconds
    except (FedembedError, KeyError) as error:
        sys.exit(f"the agent's folder cannot be used: {error}")
    bound_memory(home.settings.memory_mib)
    end_after(most_seconds)
    from flwr.supernode.cli import flwr_clientapp
    from flwr.supernode.runtime import run_clientapp

    places: list[Path] = []
    install, load = run_clientapp.install_from_fab, run_clientapp.get_load_client_app_fn
    run_clientapp.install_from_fab = approved_only(install, home.folder, places)
    run_clientapp.get_load_client_app_fn = from_its_place(load, run_clientapp.get_project_dir, places)
    flwr_clientapp()


def bound_memory(mib: int) -> None:
    """Let this process have no more data in memory than this; 0: no bound. What needs more ends in ``MemoryError``."""
    if mib:
        resource.setrlimit(resource.RLIMIT_DATA, (mib * 2**20, mib * 2**20))


def end_after(seconds: int | None) -> None:
    """Raise ``TimeLimitError`` in this thread once so many seconds have passed; ``None``: never.

    Where nothing comes of that (code that does not return to Python, or that takes the error for its own), the process
    is ended ``GRACE_S`` seconds later.
    """
    if seconds is None:
        return

    def expired(*_: object) -> None:
        raise TimeLimitError(f"the message took more than the {seconds} s that the site's policy allows")

    signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    faulthandler.dump_traceback_later(seconds + GRACE_S, exit=True, file=sys.__stderr__ or sys.stderr)


def approved_only(install: Callable[..., Any], folder: Path, places: list[Path]) -> Callable[..., Any]:
    """``install``, but for bundles on the list alone, with the code that is installed here.

    Args:
        places: is told the folder of every bundle that passed.
    """

    def checked(content: bytes, *args: Any, **options: Any) -> Any:
        digest = hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else ""
        if digest not in approved_bundles(folder):
            raise DeploymentError(f"the bundle {digest[:16]} is not approved at this site")
        place = Path(install(content, *args, **options))
        if os.environ.get(CODE_VARIABLE) != installed_code():
            raise DeploymentError("the installation has changed since the agent started: restart the agent")
        if foreign_files(place):
            raise DeploymentError(f"the bundle {digest[:16]} is not the code that is installed at this site")
        os.environ[BUNDLE_VARIABLE] = digest
        places.append(place)
        return place

    return checked


def from_its_place(
    loader: Callable[..., Any], place_of: Callable[..., Path], places: list[Path]
) -> Callable[..., Callable[..., Any]]:
    """``loader``, but its functions load from ``places`` alone: the names they are given are the coordinator's."""

    def chosen(*args: Any, **options: Any) -> Callable[..., Any]:
        load = loader(*args, **options)

        def checked(*names: str) -> Any:
            if place_of(*names) not in places:
                raise DeploymentError("the run names another folder than that of its bundle")
            return load(*names)

        return checked

    return chosen
