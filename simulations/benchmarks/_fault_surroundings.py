"""Faults of what surrounds the programs: a cut network, a full disk, a wrong clock, a site that stalls or flaps.

A process of its own (``unshare --net``) for root: the struck site lives in a second network namespace, joined to the
first by one link that can be cut, and reads a clock that can be put forward; its state, and the coordinator's runs,
lie on disks small enough to be filled.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path

from client.agent.home import AgentHome
from simulations.benchmarks import _fault_clock
from simulations.benchmarks._deployment_texts import generated_texts
from simulations.benchmarks._fault_lane import STRUCK, Lane, pids
from simulations.benchmarks._fault_table import SITES, Fault, chosen_faults, struck
from simulations.local_deployment import local_deployment, start_up, up_command

NETWORK, LINK = f"fedembed-{os.getpid()}", "fedembed0"
HERE, THERE = "10.203.0.1", "10.203.0.2"
DISK = "64m"
CLOCK = "clock"
SHORT_S, LONG_S, STALL_S, FULL_S, FLAPS, APART_S = 20.0, 100.0, 45.0, 60.0, 3, 10.0
AHEAD_S, WRONG_S = 400.0, 60.0  # Flower takes nothing from a node whose clock is 5 s ahead, or 305 s behind
_FILLER, _CHUNK = "filler", bytes(2**20)


def main(folder: Path, phases: list[str]) -> None:
    """Print the rows of these faults as JSON."""
    folder.mkdir()
    folder.chmod(0o755)
    texts, vocabulary = generated_texts(folder / "texts", SITES)
    with _network(), local_deployment(folder / "ours", texts, start=_surrounded, address=HERE) as deployed:
        rows = struck(deployed, vocabulary, chosen_faults(FAULTS), phases, where=folder.name)
    print(json.dumps([asdict(row) for row in rows]))


def _cut(lane: Lane, seconds: float) -> None:
    with _for(seconds, lambda: _run("ip", "link", "set", LINK, "up")):
        _run("ip", "link", "set", LINK, "down")


def _stalled(lane: Lane) -> None:
    (node,) = pids(lane.folder(STRUCK), "node")
    with _for(STALL_S, lambda: os.kill(node, signal.SIGCONT)):
        os.kill(node, signal.SIGSTOP)


def _flapping(lane: Lane) -> None:
    for _ in range(FLAPS):
        lane.kill(STRUCK, "node")
        time.sleep(APART_S)


def _wrong_clock(lane: Lane) -> None:
    clock = lane.folder(STRUCK).parent / CLOCK
    with _for(WRONG_S, lambda: _fault_clock.put(clock, 0.0)):
        _fault_clock.put(clock, AHEAD_S)


def _full(lane: Lane, owner: str) -> None:
    filler = lane.folder(owner) / _DISKS[owner] / _FILLER
    with _for(FULL_S, filler.unlink), suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(_CHUNK):
            continue


@contextmanager
def _for(seconds: float, end: Callable[[], object]) -> Iterator[None]:
    try:
        yield
        time.sleep(seconds)
    finally:
        end()


_DISKS = {"coordinator": "runs", STRUCK: "state"}
FAULTS = (
    Fault(f"the site's network is cut for {SHORT_S:g} s", partial(_cut, seconds=SHORT_S)),
    Fault(f"the site's network is cut for {LONG_S:g} s", partial(_cut, seconds=LONG_S)),
    Fault(f"the site stalls for {STALL_S:g} s", _stalled),
    Fault(f"the site's node is killed {FLAPS} times, {APART_S:g} s apart", _flapping),
    Fault(f"the site's clock is {AHEAD_S:g} s ahead for {WRONG_S:g} s", _wrong_clock),
    Fault(f"the site's disk is full for {FULL_S:g} s", partial(_full, owner=STRUCK)),
    Fault(f"the coordinator's disk is full for {FULL_S:g} s", partial(_full, owner="coordinator")),
)


@contextmanager
def _network() -> Iterator[None]:
    """This process's network, with one link into another that holds the struck site."""
    _run("ip", "link", "set", "lo", "up")
    _run("ip", "netns", "add", NETWORK)
    try:
        _run("ip", "link", "add", LINK, "type", "veth", "peer", "name", LINK, "netns", NETWORK)
        for where, address in ((["ip"], HERE), (["ip", "-n", NETWORK], THERE)):
            _run(*where, "addr", "add", f"{address}/30", "dev", LINK)
            _run(*where, "link", "set", LINK, "up")
        _run("ip", "-n", NETWORK, "link", "set", "lo", "up")
        yield
    finally:
        _run("ip", "netns", "del", NETWORK)


@contextmanager
def _surrounded(folder: Path, agents: Mapping[str, AgentHome]) -> Iterator[None]:
    """Every agent under its ``agent up``; the struck one in the other network, with the other clock."""
    _fault_clock.make(folder / CLOCK)
    modules = f"PYTHONPATH={folder / CLOCK}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    with ExitStack() as stack:
        for path in (folder / owner / disk for owner, disk in _DISKS.items()):
            stack.enter_context(_small_disk(path))
        for name, home in agents.items():
            inside = ["ip", "netns", "exec", NETWORK, "env", modules] if name == STRUCK else []
            start_up(stack, folder / f"{name}.out", [*inside, *up_command("agent", home.folder)])
        yield


@contextmanager
def _small_disk(path: Path) -> Iterator[None]:
    """A disk of its own over a folder, with what the folder holds."""
    before = path.with_name(f"{path.name}.before")
    _run("cp", "-a", str(path), str(before))
    _run("mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(path))
    try:
        _run("cp", "-a", f"{before}/.", str(path))
        yield
    finally:
        _run("umount", "--lazy", str(path))


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
