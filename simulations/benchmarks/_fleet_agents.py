"""Many agents' programs, forked from one process that has imported everything: what fifty sites run, in one's memory.

``python -m simulations.benchmarks._fleet_agents HOME...`` runs, for every site's folder, the programs that ``fedembed
agent up`` runs there, with the same words, environment, account and logs. What it leaves out is the supervisor: a
program that ends is not started again. Its children stay in its process group and end with it.
"""

from __future__ import annotations

import gc
import json
import os
import pwd
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from client.agent import fork_server
from client.agent.home import AgentHome, hand_over, open_home
from client.agent.processes import programs
from common.deployment.flower import background, flower_environment
from common.deployment.supervisor import Program

PIDS_FILE = "pids.json"
EXECUTOR_POLL_S = "2"  # every tenth of a second from fifty executors would take this machine's cores for itself


def main(folders: Sequence[str]) -> None:
    """Fork every program of every site, write ``pids.json`` in the working directory, and wait to be ended."""
    fork_server.preload()
    homes = [open_home(Path(folder)) for folder in folders]
    listed = [(home, program, entry_of(program)) for home in homes for program in programs(home)]
    gc.collect()
    gc.freeze()  # a collection in a child would write into every page that it shares
    pids: dict[str, dict[str, int]] = {}
    for home, program, entry in listed:
        hand_over(home)
        pids.setdefault(str(home.folder), {})[program.name] = forked(program, entry)
    Path(PIDS_FILE).write_text(json.dumps(pids))
    signal.pause()


def entry_of(program: Program) -> Callable[[], Any]:
    """The function that the program's command calls: of our module, or of a console script."""
    if program.name == "fork_server":
        return fork_server.main
    (script,) = entry_points(group="console_scripts", name=program.command[0])
    return script.load()  # type: ignore[no-any-return]


def forked(program: Program, entry: Callable[[], Any]) -> int:
    """Number of a child of this process that is the program from now on."""
    pid = os.fork()
    if pid == 0:
        try:
            _become(program)
            entry()
        except SystemExit as ended:
            os._exit(ended.code if isinstance(ended.code, int) else 1)
        except BaseException as error:
            os.write(2, f"{program.name} ended: {type(error).__name__}: {error}\n".encode())
            os._exit(1)
        os._exit(0)
    return pid


def _become(program: Program) -> None:
    """Output, folder, account, environment and words of the program."""
    output = os.open(program.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(number, target)
    if program.user is not None and os.geteuid() == 0:
        account = pwd.getpwnam(program.user)
        os.setgroups([])
        os.setgid(account.pw_gid)
        os.chdir(program.folder)
        os.setuid(account.pw_uid)
    else:
        os.chdir(program.folder)
    os.environ.clear()
    os.environ.update({**program.environment, "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": EXECUTOR_POLL_S})
    sys.argv = list(program.command)


@contextmanager
def all_forked(folder: Path, agents: Mapping[str, AgentHome]) -> Iterator[None]:
    """Every agent's programs under one process, ended when the block ends."""
    command = [sys.executable, "-m", __name__, *(str(home.folder) for home in agents.values())]
    environment = flower_environment(folder)
    with background(command, cwd=folder, environment=environment, log=folder / "agents.out"):
        yield


def pids_of(folder: Path) -> dict[str, dict[str, int]]:
    """Process numbers by site's folder and program."""
    found: dict[str, dict[str, int]] = json.loads((folder / PIDS_FILE).read_text())
    return found


def living(pids: Mapping[str, Mapping[str, int]]) -> int:
    """How many of these processes still run; one that has ended and was not waited for does not."""
    states = (_state(pid) for of_site in pids.values() for pid in of_site.values())
    return sum(state not in ("", "Z") for state in states)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


if __name__ == "__main__":
    main(sys.argv[1:])
