"""One deployment with one long run, whose processes are struck at a phase and watched until work goes on."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from common.deployment.flower import end_group
from common.deployment.journal import Journal
from common.errors import DeploymentError, FedembedError, RoundError
from server.coordinator import processes, runs
from server.progress import ROUNDS_FILE
from simulations.benchmarks._processes import of_folder
from simulations.local_deployment import LocalDeployment, up_command

STRUCK = "north"  # the site whose processes are struck, and by whose messages phases are told
RUN = "faults"
LOOK_S, STATUS_S, TASK_S, UP_AGAIN_S = 0.05, 5.0, 10.0, 3.0
LIMIT_S = 400.0
_RECEIVED = re.compile(r"Receiving: \w+\.(\w+) message")
_PROGRAMS = {
    "up": ("agent up", "coordinator up"),
    "node": ("flower-supernode",),
    "executor": ("flower-superexec",),
    "fork server": ("client.agent.fork_server",),
    "SuperLink": ("server.coordinator.superlink",),
    "app": ("flwr-serverapp",),
    "proxy": ("nginx: master",),
}


@dataclass(frozen=True)
class Recovered:
    """How a run came through a fault.

    Attributes:
        next_s: seconds until a round was done that was not done before.
        whole_s: seconds until a round had every site again.
        resumed: how often the operator had to say ``resume``.
    """

    next_s: float
    whole_s: float
    resumed: int


@dataclass
class Lane:
    """The deployment, and what is known of its run.

    Attributes:
        sites: how many take part when nothing is wrong.
    """

    deployed: LocalDeployment
    sites: int
    environment: Mapping[str, str] = field(init=False)
    _started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.environment = processes.environment_of(self.deployed.coordinator)

    @property
    def run(self) -> runs.Run:
        """As the coordinator's folder has it."""
        return runs.run_named(self.deployed.coordinator, RUN)

    def folder(self, owner: str) -> Path:
        """Of ``coordinator`` or of a site."""
        coordinator = self.deployed.coordinator
        return coordinator.folder if owner == "coordinator" else self.deployed.agents[owner].folder

    def told(self, event: str) -> list[dict[str, object]]:
        """What the run has said under this heading."""
        return [line for line in Journal(self.run.folder / ROUNDS_FILE).read() if line["event"] == event]

    def kill(self, owner: str, program: str) -> None:
        """``kill -9`` of one process; an ``up`` is started again as an init system would."""
        for pid in pids(self.folder(owner), program):
            os.kill(pid, signal.SIGKILL)
        if program == "up":
            time.sleep(UP_AGAIN_S)
            self.start_up(owner)

    def start_up(self, owner: str) -> None:
        """``coordinator up`` or ``agent up``, once the ports are free."""
        kind, folder = ("coordinator" if owner == "coordinator" else "agent"), self.folder(owner)
        with (folder.parent / f"{owner}.out").open("ab") as output:
            command = up_command(kind, folder)
            process = subprocess.Popen(command, cwd=folder.parent, stdout=output, stderr=output, start_new_session=True)
        self._started.append(process)

    def close(self) -> None:
        """End what was started in place of what was killed."""
        for process in self._started:
            end_group(process)

    def kill_task(self) -> None:
        """``kill -9`` of the process that serves the message which has just come, once there is one."""
        (server,) = pids(self.folder(STRUCK), "fork server")
        deadline = time.monotonic() + TASK_S
        while time.monotonic() < deadline:
            for pid in _children(server):
                os.kill(pid, signal.SIGKILL)
                return
            time.sleep(LOOK_S / 10)

    def again(self) -> None:
        """Stop the run and take it up: phases that only its beginning has come again."""
        with suppress(DeploymentError, RoundError):
            runs.stop(self.deployed.coordinator, RUN, self.environment)
        self._resume_when_possible(time.monotonic() + LIMIT_S)

    def await_phase(self, phase: str) -> None:
        """Return when the struck site receives its message of this phase."""
        log = self.folder(STRUCK) / "logs" / "node.log"
        begin, deadline = log.stat().st_size, time.monotonic() + LIMIT_S
        while phase not in received(log, begin):
            if time.monotonic() > deadline:
                raise RoundError(f"no message of phase {phase} came within {LIMIT_S:g} s")
            time.sleep(LOOK_S)

    def recover(self, struck: float, rounds_before: int, failed_before: int) -> Recovered:
        """Wait until a round is done, and until one has every site; resume where an operator would have to."""
        deadline, asked, resumed, next_s = struck + LIMIT_S, time.monotonic(), 0, 0.0
        while True:
            fresh = self.told("round")[rounds_before:]
            next_s = next_s or (time.monotonic() - struck if fresh else 0.0)
            if any(line.get("ok") == self.sites for line in fresh):
                return Recovered(next_s, time.monotonic() - struck, resumed)
            if time.monotonic() > deadline:
                raise RoundError(f"no whole round within {LIMIT_S:g} s")
            failed = len(self.told("failed"))
            ended = failed > failed_before or not pids(self.folder("coordinator"), "app")
            if ended and time.monotonic() - asked > STATUS_S:
                resumed += self._resumed()
                failed_before, asked = failed, time.monotonic()
            time.sleep(LOOK_S * 4)

    def _resumed(self) -> int:
        """1 where the run had ended and could be taken up, else 0."""
        try:
            if not runs.status(self.run, self.environment).startswith("finished"):
                return 0
            runs.resume(self.deployed.coordinator, RUN, self.environment)
        except FedembedError:
            return 0
        return 1

    def _resume_when_possible(self, deadline: float) -> None:
        while not self._resumed():
            if time.monotonic() > deadline:
                raise RoundError("the run could not be taken up again")
            time.sleep(1.0)


def pids(folder: Path, program: str) -> list[int]:
    """Processes of a program that name the folder among their words, or work in it; without those forked for tasks."""
    marks = _PROGRAMS[program]
    found = [
        int(process.name)
        for process, words in of_folder(folder)
        if any(mark in words for mark in marks) and not words.startswith("setpriv")
    ]
    return [pid for pid in found if _parent(pid) not in found]


def received(log: Path, begin: int) -> Iterator[str]:
    """Phases of the messages that a node has received since its log was so long."""
    with suppress(OSError), log.open("rb") as lines:
        lines.seek(begin if log.stat().st_size >= begin else 0)
        for match in _RECEIVED.finditer(lines.read().decode(errors="replace")):
            yield match[1]


def _children(parent: int) -> list[int]:
    with suppress(OSError):
        return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
    return []


def _parent(pid: int) -> int:
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0
