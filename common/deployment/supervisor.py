"""Keeps a handful of processes running: starts them in order, restarts what ends, ends them all together.

Every program leads a session and a process group of its own. What is left of them when it dies, a worker that still
holds its port say, is ended before the program is started again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from common.deployment.flower import end_group, tail, tool
from common.deployment.logs import bound_logs
from common.deployment.watching import Gauge
from common.errors import DependencyError, DeploymentError, FedembedError

READY_TIMEOUT_S = 90.0
LONGEST_PAUSE_S, STEADY_AFTER_S = 15.0, 120.0
POLL_INTERVAL_S = 0.2
SETTLE_AGAIN_S, REST_TIMEOUT_S = 5.0, 5.0
Event = Callable[[str, Mapping[str, object]], None]


@dataclass(frozen=True)
class Program:
    """A process to keep running.

    Attributes:
        name: in logs, metrics and health.
        command: the first word is looked up beside this Python, then on the path.
        environment: complete.
        folder: it runs in.
        log: its output is appended to.
        ready: the next program starts when this says yes.
        user: name of the account it runs as; ``None``: ours.
        settle: called whenever it was started and answers.
        behind: name of an earlier program; this one runs only while that one runs and has settled.
        more_logs: what it writes beside ``log``, appending; see ``common.deployment.logs``.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)
    folder: Path
    log: Path
    ready: Callable[[], bool] = lambda: True
    user: str | None = None
    settle: Callable[[], None] = lambda: None
    behind: str | None = None
    more_logs: Sequence[Path] = ()


@dataclass
class _Running:
    program: Program
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    restarts: int = 0
    pause_s: float = 1.0
    not_before: float = 0.0
    settled: bool = False

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None


class Supervisor:
    """Runs programs until it is told to stop; ``event`` is told of every start and end."""

    def __init__(self, programs: Sequence[Program], event: Event) -> None:
        self._running = [_Running(program) for program in programs]
        self._event = event
        self._stop = threading.Event()

    def start(self) -> None:
        """Start every program in order, each once the one before answers.

        Raises:
            DeploymentError: one ended or did not answer (its log's end is in the message) or settle; all are ended.
            DependencyError: a command is not installed.
        """
        try:
            for running in self._running:
                self._launch(running)
                self._wait_until_ready(running)
                running.program.settle()
                running.settled = True
        except BaseException:
            self.end()
            raise

    def watch(self) -> None:
        """Restart what ends, after a pause that doubles, until ``stop``; then end everything."""
        try:
            while not self._stop.wait(POLL_INTERVAL_S):
                for running in self._running:
                    self._look_after(running)
                bound_logs(path for r in self._running for path in (r.program.log, *r.program.more_logs))
        finally:
            self.end()

    def stop(self) -> None:
        """Make ``watch`` return."""
        self._stop.set()

    def alive(self) -> dict[str, bool]:
        """Program by program, whether its process runs."""
        return {r.program.name: r.alive for r in self._running}

    def restarts(self) -> dict[str, int]:
        """Program by program, how often it was started again."""
        return {r.program.name: r.restarts for r in self._running}

    def end(self) -> None:
        """End every process and what it started: the last one first, politely, then not."""
        for running in reversed(self._running):
            self._end(running)

    def _end(self, running: _Running) -> None:
        if running.process is None:
            return
        if running.alive:
            end_group(running.process)
            self._event("ended", {"program": running.program.name})
        end_rest(running.process.pid)
        running.process, running.settled = None, False

    def _launch(self, running: _Running) -> None:
        program = running.program
        command = [*_launcher(program.user), tool(program.command[0]), *program.command[1:]]
        with program.log.open("ab") as output:
            running.process = subprocess.Popen(
                command,
                cwd=program.folder,
                env=dict(program.environment),
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        running.started = time.monotonic()
        self._event("started", {"program": program.name, "pid": running.process.pid, "restarts": running.restarts})

    def _wait_until_ready(self, running: _Running) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not running.program.ready():
            ended = running.process is None or running.process.poll() is not None
            if ended or time.monotonic() > deadline:
                log = running.program.log
                raise DeploymentError(f"{running.program.name} did not start: {tail(log.read_text(errors='replace'))}")
            time.sleep(POLL_INTERVAL_S)

    def _look_after(self, running: _Running) -> None:
        now = time.monotonic()
        if not self._may_run(running.program):
            self._end(running)
        elif running.process is None and now >= running.not_before:
            running.restarts += 1
            self._launch(running)
        elif running.process is not None and not running.alive:
            self._bury(running, running.process)
        elif running.alive and not running.settled and now >= running.not_before and running.program.ready():
            self._settle(running)

    def _may_run(self, program: Program) -> bool:
        return program.behind is None or any(
            r.alive and r.settled for r in self._running if r.program.name == program.behind
        )

    def _bury(self, running: _Running, process: subprocess.Popen[bytes]) -> None:
        now = time.monotonic()
        running.pause_s = 1.0 if now - running.started > STEADY_AFTER_S else min(LONGEST_PAUSE_S, running.pause_s * 2)
        running.not_before = now + running.pause_s
        end_rest(process.pid)  # what it started has nobody to serve
        running.process, running.settled = None, False
        facts = {"exit_code": process.poll(), "again_in_s": running.pause_s}
        self._event("died", {"program": running.program.name, **facts})

    def _settle(self, running: _Running) -> None:
        try:
            running.program.settle()
        except FedembedError as error:
            running.not_before = time.monotonic() + SETTLE_AGAIN_S
            self._event("unsettled", {"program": running.program.name, "reason": error.message})
        else:
            running.settled = True


def end_rest(leader: int) -> None:
    """End at once what is left of the process group and the session that a process has led, and wait until it is gone.

    A number is not given to a new process while a group or session of that number has a member.
    """
    deadline = time.monotonic() + REST_TIMEOUT_S
    while (left := _led_by(leader)) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _led_by(leader: int) -> list[int]:
    """Processes of a group or session, without those that have ended and were not fetched."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, group, session = status.read_text().rpartition(")")[2].split()[:4]
        except (OSError, ValueError):
            continue
        if leader in (int(group), int(session)) and state not in "ZX":
            found.append(int(status.parent.name))
    return found


def program_gauges(supervisor: Supervisor) -> Iterator[Gauge]:
    """Which programs run, and how often each was started again."""
    alive = {name: float(runs) for name, runs in supervisor.alive().items()}
    yield Gauge("fedembed_program_up", "1 while the program runs", alive, "program")
    yield Gauge("fedembed_program_restarts", "times it was started again", supervisor.restarts(), "program")


def _launcher(user: str | None) -> list[str]:
    """What a child is started through: it ends with us even if we are killed, and gains no rights.

    Raises:
        DependencyError: util-linux is missing (other systems than Linux).
    """
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise DependencyError("the command `setpriv` is missing", remedy="Install util-linux; deployment needs Linux.")
    command = [setpriv, "--pdeathsig", "TERM", "--no-new-privs"]
    return [*command, *([] if user is None else [f"--reuid={user}", "--init-groups", *_group_of(user)])]


def _group_of(user: str) -> list[str]:
    import pwd

    try:
        return [f"--regid={pwd.getpwnam(user).pw_gid}"]
    except KeyError:
        raise DependencyError(
            f"there is no user {user!r} on this machine", remedy=f"Make it: useradd --system {user}"
        ) from None
