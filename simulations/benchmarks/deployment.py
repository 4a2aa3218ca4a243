"""Seconds and bytes of a round between sites: coordinator, proxy and three agents, beside Flower's own empty exchange.

The floor is Flower alone in the same run: SuperLink, three SuperNodes without TLS, an app that answers nothing with
nothing, `Grid.send_and_receive`. Ours is what operators start: TLS proxy, node keys, an executor with a secret, agents
under an account of their own. The texts are small, so that training takes next to nothing. The first round of a run
is left out: sites admit the run before it, and keys travel in it. Needs nginx; Linux.
"""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from client.agent.home import AgentHome
from client.node import ACTIVITY_FILE
from common.config import Scenario
from common.deployment.flower import (
    CONNECTION,
    background,
    flower_environment,
    free_port,
    run_status,
    start_run,
    wait_for_port,
    write_connection,
)
from common.deployment.journal import Journal
from common.errors import DependencyError, RoundError
from server.progress import ROUNDS_FILE
from simulations.benchmarks import _deployment_flower
from simulations.benchmarks._deployment_texts import generated_texts, small_scenario
from simulations.benchmarks._fleet_memory import proportional_size
from simulations.benchmarks._harness import Row, at_most, reported
from simulations.benchmarks._processes import of_folder
from simulations.local_deployment import LocalDeployment, local_deployment

SITES = ("north", "south", "west")
ROUNDS, EXCHANGES = 5, 5
MIB = 2**20
MOST_OF_FLOOR, MOST_EXCHANGES = 1.3, 3
_APP = """[project]
name = "empty-exchange"
version = "0.1.0"
description = "empty"

[tool.flwr.app]
publisher = "nobody"

[tool.flwr.app.components]
serverapp = "empty:server_app"
clientapp = "empty:client_app"

[tool.flwr.app.config]
nodes = 3
exchanges = 5
out = ""
"""


class Deployment:
    """See the module."""

    name = "deployment"

    def run(self, quick: bool) -> list[Row]:
        """Full: some five minutes. Quick: the scenarios and the app are made, and nothing is started."""
        if quick:
            return [
                reported(f"{mode}: rounds", float(scenario_of(mode, Path("words.tsv")).federation.rounds))
                for mode in MODES
            ]
        if shutil.which("nginx") is None:
            raise DependencyError("nginx is not installed", remedy="Install it: apt-get install nginx-light")
        with tempfile.TemporaryDirectory(prefix="fedembed-deployment-") as name:
            folder = Path(name)
            folder.chmod(0o755)
            floor = statistics.median(_floor(folder / "flower"))
            rows = [reported("Flower's own empty exchange, 3 nodes: seconds", floor)]
            texts, vocabulary = generated_texts(folder / "texts", SITES)
            with local_deployment(folder / "ours", texts) as deployed:
                for mode in MODES:
                    rows += _measured(deployed, mode, scenario_of(mode, vocabulary), floor)
                rows += [reported(f"memory of {name}, MiB", size) for name, size in _memory(deployed).items()]
            return rows


MODES = ("local", "distributed")


def scenario_of(mode: str, vocabulary: Path) -> Scenario:
    """What three sites are asked to train in this mode: seeded noise, because nothing is claimed."""
    secure = {"secure_aggregation": "full", "min_clients": 3, "max_clients": 3} if mode == "distributed" else {}
    return small_scenario(mode, vocabulary, {"rounds": ROUNDS, "min_nodes": 3, **secure})


def _measured(deployed: LocalDeployment, mode: str, scenario: Scenario, floor: float) -> Iterator[Row]:
    """Seconds, exchanges and bytes of a steady round."""
    access = deployed.coordinator.inside("logs", "proxy-access.log")
    before = len(access.read_text().splitlines())
    run = deployed.run(mode, scenario)
    told = [line for line in Journal(run.folder / ROUNDS_FILE).read() if line["event"] == "round"]
    seconds = statistics.median(float(str(line["seconds"])) for line in told[1:])
    hops = _exchanges(deployed)
    requests = [json.loads(line) for line in access.read_text().splitlines()[before:]]
    computing = _computing(deployed)
    yield reported(f"{mode}: seconds of a round", seconds)
    yield reported(f"{mode}: seconds that the slowest site computes in a round", computing)
    yield at_most(f"{mode}: exchanges of a round", hops, MOST_EXCHANGES + 1 if mode == "distributed" else 1)
    aside = (seconds - computing) / (hops * floor)
    yield at_most(f"{mode}: seconds of a round, computing aside / (exchanges x floor)", aside, MOST_OF_FLOOR)
    for direction in ("bytes_in", "bytes_out"):
        total = sum(int(request[direction]) for request in requests)
        yield reported(f"{mode}: {direction} at the proxy, KiB a round and site", total / 1024 / ROUNDS / len(SITES))


def _exchanges(deployed: LocalDeployment) -> float:
    """Messages that one site answers in a steady round: the last but one, which has no beginning and no end in it."""
    return float(len(_steady(next(iter(deployed.agents.values())))))


def _computing(deployed: LocalDeployment) -> float:
    """Seconds that the slowest site spends on the messages of that round."""
    return max(sum(float(str(line["seconds"])) for line in _steady(home)) for home in deployed.agents.values())


def _steady(site: AgentHome) -> list[dict[str, object]]:
    lines = list(Journal(site.inside("state", ACTIVITY_FILE)).read())
    return [line for line in lines if line.get("run") == lines[-1].get("run") and line.get("round") == ROUNDS - 1]


def _memory(deployed: LocalDeployment) -> Mapping[str, float]:
    """Proportional set size of the processes over the folders of the deployment, by program."""
    found: dict[str, float] = {}
    folders = {"coordinator": deployed.coordinator.folder, "one agent": deployed.agents[SITES[0]].folder}
    for owner, folder in folders.items():
        for process, words in of_folder(folder):
            program = next((name for name in _PROGRAMS if name in words), None)
            if program is not None:
                with suppress(OSError):  # it ended in the meantime
                    key = f"{owner}: {program}"
                    found[key] = found.get(key, 0.0) + proportional_size(process) / MIB
    return found


# A node names the SuperLink among its words.
_PROGRAMS = ("supernode", "superlink", "superexec", "fork_server", "nginx", "coordinator up", "agent up")


def _floor(home: Path) -> list[float]:
    """Seconds of each of Flower's own empty exchanges."""
    app, out = home / "app", home / "seconds.json"
    app.mkdir(parents=True)
    (app / "pyproject.toml").write_text(_APP)
    shutil.copy(str(_deployment_flower.__file__), app / "empty.py")
    (home / "run.toml").write_text(f"nodes = {len(SITES)}\nexchanges = {EXCHANGES}\nout = {json.dumps(str(out))}\n")
    environment, port = flower_environment(home), free_port()
    plain = ["--insecure", "--host", "127.0.0.1"]
    with ExitStack() as stack:
        link = ["flower-superlink", *plain, "--port", str(port), "--database", str(home / "state.db")]
        link.append("--disable-runtime-dependency-installation")
        log = home / "superlink.log"
        process = stack.enter_context(background(link, cwd=home, environment=environment, log=log))
        wait_for_port(port, process, log)
        write_connection(home, port)
        for name in SITES:
            node = ["flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{port}", "--host", "127.0.0.1"]
            own = {**environment, "FLWR_HOME": str(home / name)}
            command = [*node, "--port", str(free_port())]
            stack.enter_context(background(command, cwd=home, environment=own, log=home / f"{name}.log"))
        _finished(start_run(app, environment), environment)
    return [float(value) for value in json.loads(out.read_text())]


def _finished(number: str, environment: Mapping[str, Any]) -> None:
    while not (status := run_status(number, environment)).startswith("finished"):
        time.sleep(1.0)
    if status != "finished:completed":
        raise RoundError(f"Flower's own exchange over {CONNECTION} ended as {status}")


BENCHMARK = Deployment()
