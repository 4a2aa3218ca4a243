"""What ``up`` of a coordinator and of an agent have in common: run programs until told to stop, and say so on disk."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.deployment.flower import port_answers
from common.deployment.journal import Journal
from common.deployment.supervisor import Program, Supervisor, program_gauges
from common.deployment.watching import Gauge, watched
from common.errors import DeploymentError
from common.files import write_whole

UP_FILE = "up.json"


@dataclass(frozen=True)
class Watching:
    """Where the programs can be watched, on loopback, and what is measured beside them."""

    health_port: int
    metrics_port: int
    gauges: Callable[[], Iterator[Gauge]]


def run_until_told(
    folder: Path,
    programs: Sequence[Program],
    tell: Journal,
    watching: Watching,
    started: Callable[[], Mapping[str, object]],
) -> None:
    """Run until SIGTERM or SIGINT.

    Args:
        started: called once everything runs and ``is_up`` says so; what it returns is told.

    Raises:
        DeploymentError: a program did not start.
        DependencyError: a command is not installed.
    """
    supervisor = Supervisor(programs, tell.write)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: supervisor.stop())

    def measure() -> Iterator[Gauge]:
        yield from program_gauges(supervisor)
        yield from watching.gauges()

    supervisor.start()
    try:
        write_whole(folder / UP_FILE, json.dumps({"pid": os.getpid()}).encode())
        tell.write("up", started())
        with watched(watching.health_port, watching.metrics_port, supervisor.alive, measure):
            supervisor.watch()
    finally:
        supervisor.end()
        (folder / UP_FILE).unlink(missing_ok=True)
        tell.write("down", {})


def is_up(folder: Path) -> bool:
    """Whether a process of ``up`` has said so and lives; it may be another account's."""
    try:
        os.kill(int(json.loads((folder / UP_FILE).read_text())["pid"]), 0)
    except PermissionError:
        return True
    except (OSError, ValueError, KeyError):
        return False
    return True


def refuse_taken(who: str, ports: Iterable[int], *, others: Iterable[int] = ()) -> None:
    """Raise ``DeploymentError`` where something listens on one of these loopback ports.

    Args:
        who: ``coordinator`` or ``agent``.
        others: ports that are known to be taken.
    """
    taken = [str(port) for port in (*(port for port in ports if port_answers(port)), *others)]
    if taken:
        raise DeploymentError(
            f"something listens on port {', '.join(taken)} already",
            remedy=f"Is this {who} up already? Else change the ports in {who}.toml.",
        )
