"""Every fault at every phase of a secure round: what was lost, and how long until work went on.

Four sites and a coordinator as operators start them, and one long run in mode ``distributed`` that needs three of the
four. A process is killed (-9) when the struck site receives the message of a phase. An init system would start a killed
``up`` again, and an operator says ``resume`` where a run has ended: so does this. Deployments are struck side by side,
one at its sites, one at its coordinator, and a third at what surrounds them (root only): network, clock, disks,
slowness. Ledgers and journals are compared with the answers afterwards.

``FEDEMBED_FAULT_PHASES`` (words) names other phases than all, ``FEDEMBED_FAULTS`` (phrases with ; between) the faults
whose names hold one of them. Every cell is told on stderr as soon as it is known.
Needs nginx; Linux; full: some 80 minutes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from common.errors import ConfigError, DependencyError
from simulations.benchmarks import _fault_surroundings
from simulations.benchmarks._deployment_texts import generated_texts
from simulations.benchmarks._fault_lane import STRUCK, Lane
from simulations.benchmarks._fault_table import PHASES, SITES, Fault, chosen_faults, struck
from simulations.benchmarks._harness import Row, reported
from simulations.local_deployment import local_deployment

PHASES_VARIABLE = "FEDEMBED_FAULT_PHASES"


def _killed(owner: str, program: str) -> Fault:
    where = "coordinator" if owner == "coordinator" else "site"
    return Fault(f"kill -9 of the {where}'s {program}", lambda lane: lane.kill(owner, program))


def _database_lost(lane: Lane) -> None:
    lane.kill("coordinator", "SuperLink")
    for path in (lane.folder("coordinator") / "state").glob("superlink.db*"):
        path.unlink()


AT_SITES = (
    *(_killed(STRUCK, program) for program in ("up", "node", "executor", "fork server")),
    Fault("kill -9 of the site's task", lambda lane: lane.kill_task()),
)
AT_COORDINATOR = (
    *(_killed("coordinator", program) for program in ("up", "SuperLink", "executor", "app", "proxy")),
    Fault("the coordinator loses Flower's database", _database_lost),
)
LANES: Mapping[str, Sequence[Fault]] = {"sites": AT_SITES, "coordinator": AT_COORDINATOR}


class Faults:
    """See the module."""

    name = "faults"

    def run(self, quick: bool) -> list[Row]:
        """Quick: the scenario is made, and nothing is struck."""
        phases = chosen_phases()
        faults = [fault for of in (*LANES.values(), _fault_surroundings.FAULTS) for fault in chosen_faults(of)]
        if not faults:
            raise ConfigError(
                "no fault is called so", remedy="FEDEMBED_FAULTS: phrases, like 'disk;kill -9 of the site'."
            )
        if quick:
            return [reported("faults x phases", float(len(phases) * len(faults)))]
        for command, package in (("nginx", "nginx-light"), ("ip", "iproute2")):
            if shutil.which(command) is None:
                raise DependencyError(f"{command} is not installed", remedy=f"Install it: apt-get install {package}")
        if os.geteuid() != 0:
            raise DependencyError("networks and disks are cut off by root alone", remedy="Run this as root.")
        with tempfile.TemporaryDirectory(prefix="fedembed-faults-") as name, ThreadPoolExecutor(len(LANES) + 1) as pool:
            Path(name).chmod(0o755)
            lanes = [
                pool.submit(_lane, Path(name) / lane, chosen, phases)
                for lane, faults in LANES.items()
                if (chosen := chosen_faults(faults))
            ]
            if chosen_faults(_fault_surroundings.FAULTS):
                lanes.append(pool.submit(_surroundings, Path(name) / "surroundings", phases))
            return [row for lane in lanes for row in lane.result()]


def chosen_phases() -> tuple[str, ...]:
    """The phases of the table. Raises ``ConfigError`` for a phase that no round has."""
    chosen = tuple(os.environ.get(PHASES_VARIABLE, "").split()) or PHASES
    if unknown := set(chosen) - set(PHASES):
        raise ConfigError(f"no phase: {', '.join(sorted(unknown))}", remedy=f"{PHASES_VARIABLE}: {' '.join(PHASES)}")
    return chosen


def _lane(folder: Path, faults: Sequence[Fault], phases: Sequence[str]) -> list[Row]:
    folder.mkdir()
    folder.chmod(0o755)
    texts, vocabulary = generated_texts(folder / "texts", SITES)
    with local_deployment(folder / "ours", texts) as deployed:
        return struck(deployed, vocabulary, faults, phases, where=folder.name)


def _surroundings(folder: Path, phases: Sequence[str]) -> list[Row]:
    """In a network of its own, which ends with the process."""
    module = "simulations.benchmarks._fault_surroundings"
    command = ["unshare", "--net", sys.executable, "-m", module, str(folder), *phases]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return [Row(**row) for row in json.loads(done.stdout)]


BENCHMARK = Faults()
