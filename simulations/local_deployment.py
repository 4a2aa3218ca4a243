"""A coordinator and several sites on this machine, as their operators would start them: for benchmarks and trials."""

from __future__ import annotations

import getpass
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from client.agent import approval
from client.agent import home as agent_homes
from common.config import Scenario
from common.deployment.bundle import own_bundle
from common.deployment.flower import background, free_port, port_answers, tail
from common.deployment.running import is_up
from common.errors import DeploymentError
from server.coordinator import home as coordinator_homes
from server.coordinator import processes, runs, sites

UP_TIMEOUT_S, POLL_INTERVAL_S = 180.0, 0.5
UP_TIMEOUT_S_OF_A_SITE = 10.0  # its registration is a process of Flower's, and so is its node
_POLICY = """max_epsilon = inf
max_delta = 1e-3
modes = ["local", "distributed", "example"]
units = ["client", "record"]
test_mode = true
min_cohort = 2
min_survivors = 2
"""


@dataclass(frozen=True)
class LocalDeployment:
    """What was started.

    Attributes:
        coordinator: its folder.
        agents: each site's folder, by name.
    """

    coordinator: coordinator_homes.Home
    agents: Mapping[str, agent_homes.AgentHome]

    def run(self, name: str, scenario: Scenario) -> runs.Run:
        """Submit a scenario and wait for its end. Raises ``RoundError`` where it fails."""
        environment = processes.environment_of(self.coordinator)
        runs.submit(self.coordinator, scenario, environment, name=name)
        for _ in runs.follow(self.coordinator, name, environment):
            continue
        return runs.run_named(self.coordinator, name)


Starter = Callable[[Path, Mapping[str, agent_homes.AgentHome]], AbstractContextManager[None]]


@contextmanager
def each_supervised(folder: Path, agents: Mapping[str, agent_homes.AgentHome]) -> Iterator[None]:
    """Every agent under an ``agent up`` of its own, as sites run them."""
    with ExitStack() as stack:
        for name, home in agents.items():
            start_up(stack, folder / f"{name}.out", up_command("agent", home.folder))
        yield


@contextmanager
def local_deployment(
    folder: Path, texts: Mapping[str, Path], *, start: Starter = each_supervised, address: str = "127.0.0.1"
) -> Iterator[LocalDeployment]:
    """Coordinator and one agent a text file, enrolled, approved and connected; all ended when the block ends.

    Root's agents run as ``nobody``, who must reach the folder, the texts and this Python.

    Args:
        start: runs the agents' programs.
        address: of this machine, where the coordinator is found.

    Raises:
        DeploymentError: something does not start; the end of its output is in the message.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    taken = set[int]()
    coordinator = coordinator_homes.make_home(
        folder / "coordinator", "trial", [address], bind=address, port=free_port(), first_port=three_ports(taken)
    )
    agents = {
        name: _enrolled(folder / name, coordinator, path, first_port=three_ports(taken)) for name, path in texts.items()
    }
    timeout = UP_TIMEOUT_S + UP_TIMEOUT_S_OF_A_SITE * len(agents)
    with ExitStack() as stack:
        start_up(stack, folder / "coordinator.out", up_command("coordinator", coordinator.folder))
        bundle = own_bundle()
        for home in agents.values():  # while the coordinator registers the sites
            approval.approve(home, bundle)
        _wait(lambda: is_up(coordinator.folder), folder / "coordinator.out", timeout)
        stack.enter_context(start(folder, agents))
        environment = processes.environment_of(coordinator)

        def connected() -> bool:
            known = sites.registered(coordinator, environment)
            return all(known.get(name, {}).get("status") == "online" for name in agents)

        _wait(connected, folder / "coordinator.out", timeout)
        yield LocalDeployment(coordinator, agents)


def _enrolled(
    folder: Path, coordinator: coordinator_homes.Home, path: Path, *, first_port: int
) -> agent_homes.AgentHome:
    name = folder.name
    user = "nobody" if os.geteuid() == 0 else getpass.getuser()
    home = agent_homes.make_home(
        folder,
        coordinator.inside(coordinator_homes.INVITATION_FILE),
        name=name,
        data=("text", str(path)),
        user=user,
        first_port=first_port,
    )
    home.inside(agent_homes.POLICY_FILE).write_text(_POLICY)
    sites.enroll(coordinator, home.inside(agent_homes.ENROLMENT_FILE))
    sites.decide(coordinator, name, sites.APPROVED)
    return home


def up_command(kind: str, folder: Path) -> list[str]:
    """What starts a coordinator or an agent, by this Python, installed or not."""
    start = "import sys; from simulations.cli import main; sys.exit(main())"
    return [sys.executable, "-c", start, kind, "up", "--home", str(folder)]


def start_up(stack: ExitStack, log: Path, command: list[str]) -> None:
    """Run an ``up`` until the stack is closed."""
    stack.enter_context(background(command, cwd=log.parent, environment=os.environ, log=log))


def _wait(ready: Callable[[], bool], log: Path, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not ready():
        if time.monotonic() > deadline:
            raise DeploymentError(f"the deployment did not come up: {tail(log.read_text(errors='replace'))}")
        time.sleep(POLL_INTERVAL_S)


def three_ports(taken: set[int]) -> int:
    """The first of three free ports in a row; told ``taken``, and no other that stands there.

    They lie below those that Linux gives to outgoing connections: fifty sites have enough of these to take one away.
    """
    while True:
        first = 20_000 + 3 * secrets.randbelow(4_000)
        if first not in taken and not any(port_answers(first + k) for k in range(3)):
            taken.add(first)
            return first
