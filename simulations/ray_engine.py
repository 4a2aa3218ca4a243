"""Flower's own simulation on Ray, started so that it runs this code and nothing else.

A SuperLink in simulation mode is started by us, from an empty folder, on a free loopback port, with run-time
dependency installation off: Flower's own background SuperLink is shared by every caller on the machine, outlives them
and puts its working folder ahead of the app on the workers' import path.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import common
from common.errors import DependencyError, FedembedError, RoundError
from server.checkpoint import CheckpointDirectory
from server.progress import Reporter

APP_PACKAGES = ("server", "client", "common")
CONNECTION = "fedembed"
START_TIMEOUT_S = 60.0
POLL_INTERVAL_S = 0.5


def run_on_ray(run_config: Mapping[str, str], clients: int, reporter: Reporter, *, nodes: int = 0) -> int:
    """Run the two apps under Flower's Ray simulation; returns the round that a checkpoint let it start from.

    A running Ray cluster is used when the environment variable ``RAY_ADDRESS`` names one; its machines must then see
    the run's folder under the same path.

    Args:
        run_config: the apps' run configuration.
        clients: enrolled clients; they are dealt out to the nodes.
        nodes: virtual nodes; 0 means one a core, and never more than clients.

    Raises:
        DependencyError: ray is not installed.
        RoundError: the run ended with an error; the last lines of its log are in the message.
    """
    if importlib.util.find_spec("ray") is None:
        raise DependencyError("the Ray engine needs ray", remedy="pip install 'fedembed[ray]'")
    out = Path(run_config["out"])
    resumed = _rounds_done(out, run_config["scenario"])
    nodes = max(1, min(nodes or os.cpu_count() or 1, clients))
    with tempfile.TemporaryDirectory(prefix="fedembed-ray-") as folder:
        home = Path(folder)
        app = assemble_app(home / "app", run_config)
        environment = _environment(home)
        with _superlink(home, environment) as port:
            _write_connection(home, port)
            run_id = _start_run(app, home, environment, nodes)
            _follow(run_id, out, run_config, environment, reporter)
    return resumed


def assemble_app(directory: Path, run_config: Mapping[str, str]) -> Path:
    """A Flower app folder with this installation's own packages: what ``flwr run`` and ``flwr build`` take."""
    directory.mkdir(parents=True)
    root = Path(common.__file__).resolve().parent.parent
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


def _environment(home: Path) -> dict[str, str]:
    return {
        **os.environ,
        "FLWR_HOME": str(home / "flwr"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


@contextmanager
def _superlink(home: Path, environment: dict[str, str]) -> Iterator[int]:
    """A simulation SuperLink on a free loopback port; it and all its children are gone afterwards."""
    port = _free_port()
    empty = home / "empty"
    empty.mkdir()
    command = [_tool("flower-superlink"), "--insecure", "--simulation", "--host", "127.0.0.1", "--port", str(port)]
    with (home / "superlink.log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--disable-runtime-dependency-installation"],
            cwd=empty,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            _wait_for_port(port, process, home / "superlink.log")
            yield port
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the SuperLink's whole session: first politely, then not."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(timeout=15)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def _tool(name: str) -> str:
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise DependencyError(f"the command {name!r} of Flower is not installed", remedy="pip install fedembed")
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None:
            break
        time.sleep(POLL_INTERVAL_S)
    raise RoundError(f"Flower's SuperLink did not start: {_tail(log.read_text())}")


def _write_connection(home: Path, port: int) -> None:
    (home / "flwr").mkdir(exist_ok=True)
    (home / "flwr" / "config.toml").write_text(
        f'[superlink]\ndefault = "{CONNECTION}"\n\n[superlink.{CONNECTION}]\n'
        f'address = "127.0.0.1:{port}"\ninsecure = true\n'
    )


def _start_run(app: Path, home: Path, environment: dict[str, str], nodes: int) -> str:
    federation = f"num-supernodes={nodes} client-resources-num-cpus=1 client-resources-num-gpus=0.0"
    command = [_tool("flwr"), "run", str(app), CONNECTION, "--run-config", str(home / "run.toml")]
    output = _json_output([*command, "--federation-config", federation, "--format", "json"], environment)
    return str(output["run-id"])


def _json_output(command: list[str], environment: dict[str, str]) -> Any:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    try:
        answer = json.loads(done.stdout)
    except json.JSONDecodeError:
        answer = {"success": False, "error-message": _tail(done.stdout + done.stderr)}
    if isinstance(answer, dict) and answer.get("success") is False:
        raise RoundError(f"Flower refused: {answer.get('error-message')}")
    return answer


def _follow(
    run_id: str, out: Path, run_config: Mapping[str, str], environment: dict[str, str], reporter: Reporter
) -> None:
    """Report rounds until the run ends. Flower's streaming exits 0 on failure, so the status is asked for."""
    total = int(json.loads(run_config["scenario"])["federation"]["rounds"])
    told = 0
    while True:
        done = _rounds_done(out, run_config["scenario"])
        for number in range(told + 1, done + 1):
            reporter.round_finished(number, total, {})
        told = max(told, done)
        runs = _json_output([_tool("flwr"), "list", CONNECTION, "--run-id", run_id, "--format", "json"], environment)
        status = str(runs["runs"][0]["status"])
        if status.startswith("finished"):
            break
        time.sleep(POLL_INTERVAL_S)
    if status != "finished:completed":
        log = subprocess.run(
            [_tool("flwr"), "log", run_id, CONNECTION, "--show"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        raise RoundError(f"the run ended as {status}: {_tail(log.stdout + log.stderr)}")


def _rounds_done(out: Path, scenario_json: str) -> int:
    from common.config import scenario_from_json

    try:
        state = CheckpointDirectory(out / "state", scenario_from_json(scenario_json).digest).load()
    except FedembedError:
        return 0
    return 0 if state is None else state.round


def _tail(text: str, characters: int = 1500) -> str:
    return text.strip()[-characters:]
