"""What the process that serves a site's message runs: approved code alone, one kind of task, and not for ever."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from client.agent import approval, task
from client.agent.fork_server import CODE_VARIABLE
from client.agent.home import AgentHome, AgentSettings
from common.errors import FedembedError, TimeLimitError
from common.evaluation.conformance import Finding

_BUNDLE = b"a bundle"


def site_runs_approved_code() -> list[Finding]:
    """A bundle that is not listed, one that is other code than the site's, one that is loaded from elsewhere."""
    found = []
    with tempfile.TemporaryDirectory() as name:
        folder, place = Path(name), Path(name) / "apps" / "a"
        (folder / "approved").mkdir()
        (place / "client").mkdir(parents=True)
        listed = {hashlib.sha256(_BUNDLE).hexdigest(): {"files": 1}}
        (folder / "approved" / approval.LIST_FILE).write_text(json.dumps(listed))
        places: list[Path] = []
        install = task.approved_only(lambda content: place, folder, places)
        load = task.from_its_place(lambda: lambda version: version, lambda version: folder / "apps" / version, places)()
        with _in_memory(approval.installed_code()):
            found.append(_finding("code before any bundle", _tried(lambda: load("a")), "refused"))
            found.append(_finding("another bundle", _tried(lambda: install(_BUNDLE + b" ")), "refused"))
            found.append(_finding("the approved bundle", _tried(lambda: install(_BUNDLE)), "done"))
            found.append(_finding("its code", _tried(lambda: load("a")), "done"))
            found.append(_finding("code of another folder", _tried(lambda: load("a/../../b")), "refused"))
        with _in_memory("the code before an upgrade"):
            found.append(_finding("code that is not in memory", _tried(lambda: install(_BUNDLE)), "refused"))
        (place / "client" / "app.py").write_text("app = None\n")
        with _in_memory(approval.installed_code()):
            found.append(_finding("a bundle of other code", _tried(lambda: install(_BUNDLE)), "refused"))
    return found


def site_serves_no_other_task() -> list[Finding]:
    """For every other kind of task that a coordinator can ask Flower for, a command that refuses it."""
    with tempfile.TemporaryDirectory() as name:
        home = AgentHome(Path(name), AgentSettings(coordinator="c", address="localhost:1"))
        home.inside("bin").mkdir()
        approval.write_launchers(home)
        there = {path.name for path in home.inside("bin").iterdir()}
    kinds = ("agentapp", "connector", "model", "serverapp", "simulation")
    return [_finding(f"flwr-{kind}", str(f"flwr-{kind}" in there), "True") for kind in kinds]


def site_ends_in_time() -> list[Finding]:
    """A message that takes longer than the policy allows."""
    before, others = signal.getsignal(signal.SIGALRM), signal.setitimer(signal.ITIMER_REAL, 0)
    try:
        task.end_after(1)
        armed = signal.getitimer(signal.ITIMER_REAL)[0] > 0
        try:
            if armed:
                signal.setitimer(signal.ITIMER_REAL, 0.01)
                time.sleep(0.05)
            got = "went on"
        except TimeLimitError:
            got = "ended"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *others)
        task.faulthandler.cancel_dump_traceback_later()
    return [_finding("one second", got, "ended")]


@contextmanager
def _in_memory(code: str) -> Iterator[None]:
    """A process that has imported the code with this digest."""
    before = os.environ.get(CODE_VARIABLE)
    os.environ[CODE_VARIABLE] = code
    try:
        yield
    finally:
        os.environ.pop(CODE_VARIABLE)
        if before is not None:
            os.environ[CODE_VARIABLE] = before


def _tried(attempt: Callable[[], Any]) -> str:
    try:
        attempt()
    except FedembedError:
        return "refused"
    return "done"


def _finding(subject: str, got: str, expected: str) -> Finding:
    return Finding("P", subject, f"{got}, must be {expected}", got == expected)


APPROVING = (site_runs_approved_code, site_serves_no_other_task, site_ends_in_time)
