"""Every fault at every phase of a secure round: what was lost, and how long until work went on.

Four sites and a coordinator as operators start them, and one long run in mode ``distributed`` that needs three of the
four. A process is killed (-9) when the struck site receives the message of a phase. An init system would start a killed
``up`` again, and an operator says ``resume`` where a run has ended: so does this. Two deployments are struck at once,
one at its sites, one at its coordinator. Ledgers and journals are compared with the answers afterwards.

``FEDEMBED_FAULT_PHASES`` (words) names other phases than all. Needs nginx; Linux; full: some 45 minutes.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from client.ledger import Ledger
from client.node import ACTIVITY_FILE
from common.config import Scenario, build_scenario
from common.deployment.journal import Journal
from common.errors import ConfigError, DependencyError, LedgerError, RoundError
from server.checkpoint import CheckpointDirectory
from server.coordinate import STATE_FOLDER
from server.coordinator import runs
from simulations.benchmarks._deployment_texts import generated_texts
from simulations.benchmarks._fault_lane import RUN, STRUCK, Lane
from simulations.benchmarks._harness import Row, at_least, at_most, reported
from simulations.local_deployment import local_deployment

SITES = (STRUCK, "south", "west", "east")
PHASES = ("prepare", "advertise", "share", "mask", "confirm", "reveal")
AT_THE_BEGINNING = ("prepare", "advertise")  # later adverts ride on the replies of the round before
PHASES_VARIABLE = "FEDEMBED_FAULT_PHASES"
ROUNDS = 1000


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong.

    Attributes:
        strike: does it, when a phase has begun.
    """

    name: str
    strike: Callable[[Lane], None]


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
        if quick:
            return [reported("faults x phases", float(len(phases) * sum(map(len, LANES.values()))))]
        if shutil.which("nginx") is None:
            raise DependencyError("nginx is not installed", remedy="Install it: apt-get install nginx-light")
        with tempfile.TemporaryDirectory(prefix="fedembed-faults-") as name, ThreadPoolExecutor(len(LANES)) as pool:
            Path(name).chmod(0o755)
            lanes = [pool.submit(_lane, Path(name) / lane, faults, phases) for lane, faults in LANES.items()]
            return [row for lane in lanes for row in lane.result()]


def chosen_phases() -> tuple[str, ...]:
    """The phases of the table. Raises ``ConfigError`` for a phase that no round has."""
    chosen = tuple(os.environ.get(PHASES_VARIABLE, "").split()) or PHASES
    if unknown := set(chosen) - set(PHASES):
        raise ConfigError(f"no phase: {', '.join(sorted(unknown))}", remedy=f"{PHASES_VARIABLE}: {' '.join(PHASES)}")
    return chosen


def scenario_of(vocabulary: Path) -> Scenario:
    """A long run of tiny rounds: seeded noise, because nothing is claimed."""
    return build_scenario(
        {
            "task": {"family": "word2vec", "dimension": 8, "shared_negatives": 16},
            "data": {"reader": "text", "path": "of-each-site", "unit": "client"},
            "vocabulary": {"path": str(vocabulary)},
            "privacy": {"mode": "distributed", "noise_multiplier": 0.1, "l2_clip_norm": 1.0, "test_mode": True},
            "federation": {
                "rounds": ROUNDS,
                "min_nodes": len(SITES) - 1,
                "secure_aggregation": "full",
                "min_clients": len(SITES) - 1,
                "max_clients": len(SITES),
            },
            "training": {"local_steps": 2, "batch_size": 8},
        }
    )


def _lane(folder: Path, faults: Sequence[Fault], phases: Sequence[str]) -> list[Row]:
    folder.mkdir()
    folder.chmod(0o755)
    texts, vocabulary = generated_texts(folder / "texts", SITES)
    with local_deployment(folder / "ours", texts) as deployed, closing(Lane(deployed, len(SITES))) as lane:
        runs.submit(deployed.coordinator, scenario_of(vocabulary), lane.environment, name=RUN)
        lane.recover(time.monotonic(), 0, 0)
        rows = [row for fault in faults for phase in phases for row in _cell(lane, fault, phase)]
        return [*rows, *_losses(lane, folder.name)]


def _cell(lane: Lane, fault: Fault, phase: str) -> Iterator[Row]:
    """One fault at one phase. What does not come back is said, and the run is begun again for the next one."""
    name = f"{fault.name}, at {phase}"
    try:
        if phase in AT_THE_BEGINNING:
            lane.again()
        lane.await_phase(phase)
        before, failed = len(lane.told("round")), len(lane.told("failed"))
        struck = time.monotonic()
        fault.strike(lane)
        found = lane.recover(struck, before, failed)
    except RoundError as error:
        print(f"{name}: {error.message}", file=sys.stderr, flush=True)
        yield at_most(f"{name}: seconds until a round of all sites", float("nan"), 0.0)
        return
    print(f"{name}: {found}", file=sys.stderr, flush=True)
    yield reported(f"{name}: seconds until a round was done", found.next_s)
    yield reported(f"{name}: seconds until a round of all sites", found.whole_s)
    yield reported(f"{name}: times that the operator said resume", float(found.resumed))


def _losses(lane: Lane, where: str) -> Iterator[Row]:
    """What must never be lost, whatever was struck: charges, attempts, ledgers."""
    attempts = CheckpointDirectory(lane.run.folder / STATE_FOLDER, lane.run.scenario.digest).attempts()
    asked = {(entry["round"], entry["attempt"]) for entry in attempts}
    yield reported(f"{where}: rounds done, over all faults", float(lane.run.rounds_done))
    yield reported(f"{where}: attempts that were counted", float(len(attempts)))
    yield at_least(f"{where}: attempts - rounds", float(len(attempts) - lane.run.rounds_done), 0.0)
    uncounted, damaged, foreign = 0, 0, 0
    for home in lane.deployed.agents.values():
        with closing(Ledger.open(home.inside("state", "ledger.sqlite"), create=False)) as ledger:
            damaged += _damaged(ledger)
            charges = {(entry.round, entry.attempt) for entry in ledger.rows() if entry.kind == "charge"}
        lines = Journal(home.inside("state", ACTIVITY_FILE)).read()
        answers = [line for line in lines if line.get("kind") == "train.mask" and line.get("status") == "done"]
        uncounted += max(0, len(answers) - len(charges))
        foreign += len(charges - asked)
    yield at_most(f"{where}: answers of sites that no charge stands for", float(uncounted), 0.0)
    yield at_most(f"{where}: charges that the coordinator's journal of attempts has not", float(foreign), 0.0)
    yield at_most(f"{where}: ledgers that do not verify", float(damaged), 0.0)


def _damaged(ledger: Ledger) -> int:
    try:
        ledger.verify()
    except LedgerError:
        return 1
    return 0


BENCHMARK = Faults()
