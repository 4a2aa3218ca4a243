"""Flower's own simulation on Ray, started so that it runs this code and nothing else.

A SuperLink in simulation mode is started by us, from an empty folder, on a free loopback port, with run-time
dependency installation off: Flower's own background SuperLink is shared by every caller on the machine, outlives them
and puts its working folder ahead of the app on the workers' import path.
"""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from common.config import scenario_from_json
from common.deployment.flower import (
    POLL_INTERVAL_S,
    assemble_app,
    background,
    flower_environment,
    free_port,
    run_log,
    run_status,
    start_run,
    wait_for_port,
    write_connection,
)
from common.errors import DependencyError, FedembedError, RoundError
from server.checkpoint import CheckpointDirectory
from server.progress import Reporter

CONNECT_TIMEOUT_S = 10.0


def run_on_ray(run_config: Mapping[str, str], clients: int, reporter: Reporter, *, nodes: int = 0) -> int:
    """Run the two apps under Flower's Ray simulation; returns the round that a checkpoint let it start from.

    A running Ray cluster is used when the environment variable ``RAY_ADDRESS`` names one (``host:port``); its machines
    must then see the run's folder under the same path.

    Args:
        run_config: the apps' run configuration.
        clients: enrolled clients; they are dealt out to the nodes.
        nodes: virtual nodes; 0 means one a core, and never more than clients.

    Raises:
        DependencyError: ray is not installed.
        RoundError: nothing answers at ``RAY_ADDRESS``, or the run ended with an error; the last lines of its log are
            in the message.
    """
    if importlib.util.find_spec("ray") is None:
        raise DependencyError("the Ray engine needs ray", remedy="pip install 'fedembed[ray]'")
    _refuse_silent_cluster(os.environ.get("RAY_ADDRESS", ""))
    out = Path(run_config["out"])
    resumed = _rounds_done(out, run_config["scenario"])
    nodes = max(1, min(nodes or os.cpu_count() or 1, clients))
    with tempfile.TemporaryDirectory(prefix="fedembed-ray-") as folder:
        home = Path(folder)
        app = assemble_app(home / "app", run_config)
        environment = flower_environment(home)
        with _superlink(home, environment) as port:
            write_connection(home, port)
            federation = f"num-supernodes={nodes} client-resources-num-cpus=1 client-resources-num-gpus=0.0"
            run_id = start_run(app, environment, federation=federation)
            _follow(run_id, out, run_config, environment, reporter)
    return resumed


def _refuse_silent_cluster(address: str) -> None:
    """Ray itself would wait for minutes and say nothing. Names such as ``auto`` are left to it."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise RoundError(
            f"no Ray cluster answers at RAY_ADDRESS={address} ({error})",
            remedy="Start one with `ray start --head`, or unset RAY_ADDRESS to have one started for the run.",
        ) from None


@contextmanager
def _superlink(home: Path, environment: dict[str, str]) -> Iterator[int]:
    """A simulation SuperLink on a free loopback port; it and all its children are gone afterwards."""
    port = free_port()
    empty = home / "empty"
    empty.mkdir()
    log = home / "superlink.log"
    command = ["flower-superlink", "--insecure", "--simulation", "--host", "127.0.0.1", "--port", str(port)]
    command.append("--disable-runtime-dependency-installation")
    with background(command, cwd=empty, environment=environment, log=log) as process:
        wait_for_port(port, process, log)
        yield port


def _follow(
    run_id: str, out: Path, run_config: Mapping[str, str], environment: dict[str, str], reporter: Reporter
) -> None:
    """Report rounds until the run ends. Flower's streaming exits 0 on failure, so the status is asked for."""
    total = int(json.loads(run_config["scenario"])["federation"]["rounds"])
    told = 0
    while True:
        done = _rounds_begun(out, run_config["scenario"]) - 1  # the journal is small; the checkpoint may not be
        for number in range(told + 1, done + 1):
            reporter.round_finished(number, total, {})
        told = max(told, done)
        status = run_status(run_id, environment)
        if status.startswith("finished"):
            break
        time.sleep(POLL_INTERVAL_S)
    if status != "finished:completed":
        raise RoundError(f"the run ended as {status}: {run_log(run_id, environment)}")


def _rounds_begun(out: Path, scenario_json: str) -> int:
    attempts = CheckpointDirectory(out / "state", scenario_from_json(scenario_json).digest).attempts()
    return max((entry["round"] for entry in attempts), default=1)


def _rounds_done(out: Path, scenario_json: str) -> int:
    try:
        state = CheckpointDirectory(out / "state", scenario_from_json(scenario_json).digest).load()
    except FedembedError:
        return 0
    return 0 if state is None else state.round
