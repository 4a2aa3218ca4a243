"""Flower's command line as functions: an app folder, a connection, processes that end with us, and honest results."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import common
from common.errors import DependencyError, RoundError

APP_PACKAGES = ("server", "client", "common")
CONNECTION = "fedembed"
START_TIMEOUT_S = 60.0
POLL_INTERVAL_S = 0.5
STOP_TIMEOUT_S = 15.0


def installation() -> Path:
    """The folder in which this installation's packages lie."""
    return Path(common.__file__).resolve().parent.parent


def assemble_app(directory: Path, run_config: Mapping[str, str]) -> Path:
    """A Flower app folder with this installation's own packages: what ``flwr run`` and ``flwr build`` take."""
    directory.mkdir(parents=True)
    root = installation()
    for package in APP_PACKAGES:
        shutil.copytree(root / package, directory / package, ignore=shutil.ignore_patterns("__pycache__"))
    defaults = "\n".join(f'{key} = ""' for key in run_config)
    (directory / "pyproject.toml").write_text(
        f"""[project]
name = "fedembed-app"
version = "0.1.0"
description = "fedembed"

[tool.flwr.app]
publisher = "fedembed"

[tool.flwr.app.components]
serverapp = "server.app:app"
clientapp = "client.app:app"

[tool.flwr.app.config]
{defaults}
"""
    )
    values = "\n".join(f"{key} = {json.dumps(value)}" for key, value in run_config.items())
    (directory.parent / "run.toml").write_text(values + "\n")
    return directory


def flower_environment(home: Path, inherited: Mapping[str, str] | None = None) -> dict[str, str]:
    """An environment for Flower's tools with their own home, no telemetry and no run-time installation.

    Args:
        inherited: what else is in it; by default our own environment.
    """
    return {
        **(os.environ if inherited is None else inherited),
        "FLWR_HOME": str(home / "flwr"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


@contextmanager
def background(command: Sequence[str], *, cwd: Path, environment: Mapping[str, str], log: Path) -> Iterator[Any]:
    """A process and everything it starts, ended when the block ends; its output goes to ``log``."""
    with log.open("w") as output:
        process = subprocess.Popen(
            [tool(command[0]), *command[1:]],
            cwd=cwd,
            env=dict(environment),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            end_group(process)


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process that leads its own session, and all that it started: first politely, then not."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(timeout=STOP_TIMEOUT_S)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def tool(name: str) -> str:
    """Path of a command: beside this Python, else on the path. Raises ``DependencyError``."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise DependencyError(f"the command {name!r} is not installed", remedy="pip install fedembed")
    return found


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def port_answers(port: int, address: str = "127.0.0.1") -> bool:
    """Whether something listens on this port of this machine; by default, on loopback."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        return probe.connect_ex((address, port)) == 0


def wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return once something listens. Raises ``RoundError`` with the log's end if the process ends first."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if port_answers(port):
            return
        if process.poll() is not None:
            break
        time.sleep(POLL_INTERVAL_S)
    raise RoundError(f"Flower's SuperLink did not start: {tail(log.read_text())}")


def write_connection(home: Path, port: int, *, authority: Path | None = None) -> None:
    """Flower's connection file: the one connection leads to ``port`` on loopback; with an authority, over TLS."""
    (home / "flwr").mkdir(exist_ok=True)
    trust = "insecure = true" if authority is None else f"root-certificates = {json.dumps(str(authority.resolve()))}"
    (home / "flwr" / "config.toml").write_text(
        f'[superlink]\ndefault = "{CONNECTION}"\n\n[superlink.{CONNECTION}]\naddress = "127.0.0.1:{port}"\n{trust}\n'
    )


def start_run(app: Path, environment: Mapping[str, str], *, federation: str = "") -> str:
    """Submit an app folder made by ``assemble_app``; returns the run's number. Raises ``RoundError``."""
    command = ["flwr", "run", str(app), CONNECTION, "--run-config", str(app.parent / "run.toml"), "--format", "json"]
    output = json_output([*command, *(["--federation-config", federation] if federation else [])], environment)
    return str(output["run-id"])


def json_output(command: Sequence[str], environment: Mapping[str, str], *, timeout_s: float | None = None) -> Any:
    """Run a Flower command that prints JSON. Raises ``RoundError`` with Flower's own message, or when it is late."""
    try:
        done = subprocess.run(
            [tool(command[0]), *command[1:]],
            env=dict(environment),
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired:
        raise RoundError(f"Flower has not answered for {timeout_s:g} s") from None
    try:
        answer = json.loads(done.stdout)
    except json.JSONDecodeError:
        answer = {"success": False, "error-message": tail(done.stdout + done.stderr)}
    if isinstance(answer, dict) and answer.get("success") is False:
        raise RoundError(f"Flower refused: {answer.get('error-message')}")
    return answer


def run_status(run_id: str, environment: Mapping[str, str]) -> str:
    """Flower's status of a run, for example ``finished:completed``. Its streaming exits 0 on failure."""
    command = ["flwr", "list", CONNECTION, "--run-id", run_id, "--format", "json"]
    return str(json_output(command, environment)["runs"][0]["status"])


def run_log(run_id: str, environment: Mapping[str, str]) -> str:
    """The last lines of a run's log."""
    command = [tool("flwr"), "log", run_id, CONNECTION, "--show"]
    done = subprocess.run(command, env=dict(environment), capture_output=True, text=True, check=False)
    return tail(done.stdout + done.stderr)


def tail(text: str, characters: int = 1500) -> str:
    """The end of a text."""
    return text.strip()[-characters:]
