"""One cell of the table of faults, and what must never be lost in any."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from client.ledger import Ledger
from client.node import ACTIVITY_FILE
from common.config import Scenario
from common.deployment.journal import Journal
from common.errors import LedgerError, RoundError
from server.checkpoint import CheckpointDirectory
from server.coordinate import STATE_FOLDER
from server.coordinator import runs
from simulations.benchmarks._deployment_texts import small_scenario
from simulations.benchmarks._fault_lane import RUN, STRUCK, Lane
from simulations.benchmarks._harness import Row, at_least, at_most, reported
from simulations.local_deployment import LocalDeployment

SITES = (STRUCK, "south", "west", "east")
PHASES = ("prepare", "advertise", "share", "mask", "confirm", "reveal")
AT_THE_BEGINNING = ("prepare", "advertise")  # later adverts ride on the replies of the round before
ROUNDS = 1000
FAULTS_VARIABLE = "FEDEMBED_FAULTS"


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong.

    Attributes:
        strike: does it, when a phase has begun.
    """

    name: str
    strike: Callable[[Lane], None]


def chosen_faults(faults: Sequence[Fault]) -> list[Fault]:
    """Those whose names hold a phrase of ``FEDEMBED_FAULTS``; all where it is empty."""
    phrases = [phrase for phrase in os.environ.get(FAULTS_VARIABLE, "").split(";") if phrase]
    return [fault for fault in faults if not phrases or any(phrase in fault.name for phrase in phrases)]


def scenario_of(vocabulary: Path) -> Scenario:
    """A long run of tiny rounds: seeded noise, because nothing is claimed."""
    federation = {"rounds": ROUNDS, "min_nodes": len(SITES) - 1, "secure_aggregation": "full"}
    return small_scenario(
        "distributed", vocabulary, {**federation, "min_clients": len(SITES) - 1, "max_clients": len(SITES)}
    )


def struck(
    deployed: LocalDeployment, vocabulary: Path, faults: Sequence[Fault], phases: Sequence[str], *, where: str
) -> list[Row]:
    """Every fault at every phase of one long run, one after the other, and what was lost so far after every phase."""
    with closing(Lane(deployed, len(SITES))) as lane:
        runs.submit(deployed.coordinator, scenario_of(vocabulary), lane.environment, name=RUN)
        lane.recover(time.monotonic(), 0, 0)
        rows: list[Row] = []
        for phase in phases:
            rows += [row for fault in faults for row in cell(lane, fault, phase)]
            rows += [*losses(lane, f"{where}, after {phase}")]
        return rows


def cell(lane: Lane, fault: Fault, phase: str) -> Iterator[Row]:
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


def losses(lane: Lane, where: str) -> Iterator[Row]:
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
