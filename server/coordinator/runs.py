"""Runs of a coordinator: submitted with a scenario, followed, stopped, and taken up again from their checkpoint."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.config import Scenario, scenario_from_json
from common.deployment.bundle import RUN_KEYS, bundle_of
from common.deployment.flower import CONNECTION, assemble_app, json_output, run_status, start_run
from common.deployment.journal import Journal, now
from common.deployment.settings import NAME
from common.errors import DeploymentError, RoundError
from common.files import atomic_files
from server.checkpoint import last_round
from server.coordinate import RELEASE_FOLDER, STATE_FOLDER, work_of
from server.coordinator.home import Home
from server.progress import ROUNDS_FILE

RUN_FILE = "run.json"
POLL_INTERVAL_S = 0.5
# Asking Flower costs a second of computing: a run says itself how it ends, unless it is killed.
STATUS_INTERVAL_S = 15.0
ENDING_INTERVAL_S = 2.0  # once it has said so; it may still be scoring what it trained
LAST_EVENTS = ("done", "failed")


@dataclass(frozen=True)
class Run:
    """A run as the coordinator's folder has it.

    Attributes:
        name: given by whoever submitted it; its folder is ``runs/NAME``.
        scenario: what is trained.
        submissions: Flower's number and the time of every submission, oldest first.
        rounds_done: rounds whose checkpoint is on disk.
    """

    name: str
    folder: Path
    scenario: Scenario
    submissions: tuple[Mapping[str, str], ...]
    rounds_done: int

    @property
    def released(self) -> bool:
        """Whether its release is there."""
        return (self.folder / RELEASE_FOLDER / "manifest.json").exists()


def submit(home: Home, scenario: Scenario, environment: Mapping[str, str], *, name: str | None = None) -> Run:
    """Start a run under a name of its own.

    Raises:
        DeploymentError: the name is taken, the SuperLink does not answer, or the scenario does not fit.
        ConfigError, PrivacyConfigError: no run can be made of the scenario.
    """
    _refuse_unfit(home, scenario)
    work_of(scenario)  # what the run would refuse is refused before it has a name
    name = name or f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    if not NAME.fullmatch(name):
        raise DeploymentError(f"{name!r} is no name for a run", remedy="Letters, digits, '.', '_', '-'.")
    folder = home.inside("runs", name)
    if folder.exists():
        remedy = f"Give another --name; to go on with that one: fedembed coordinator resume {name}"
        raise DeploymentError(f"there is a run {name!r}", remedy=remedy)
    folder.mkdir(parents=True)
    _save(folder, scenario, ())
    return resume(home, name, environment)


def resume(home: Home, name: str, environment: Mapping[str, str]) -> Run:
    """Submit a run again: it goes on after its last checkpoint, under the same name in every site's ledger.

    Raises:
        DeploymentError: no such run, one that is finished or still going on, or the SuperLink does not answer.
    """
    run = run_named(home, name)
    if run.released:
        raise DeploymentError(f"run {name!r} has its release", remedy=f"Look at {run.folder / RELEASE_FOLDER}")
    if run.submissions and not status(run, environment).startswith("finished"):
        raise DeploymentError(f"run {name!r} is going on", remedy=f"fedembed coordinator stop {name}")
    app = run.folder / "app" / "app"
    if not app.exists():
        assemble_app(app, dict.fromkeys(RUN_KEYS, ""))
    values = {
        "scenario": run.scenario.canonical_json(),
        "out": str(run.folder),
        "benchmarks": "{}",
        "simulation": "",
        "coordinator": str(home.identity_file),
        "bundle": bundle_of(app).digest,  # of what is submitted: a run may be older than this installation
    }
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    (app.parent / "run.toml").write_text("\n".join(lines) + "\n")
    try:
        number = start_run(app, environment)
    except RoundError as error:
        raise DeploymentError(error.message, remedy="Is the coordinator up? fedembed coordinator status") from None
    _save(run.folder, run.scenario, (*run.submissions, {"number": number, "time": now()}))
    return run_named(home, name)


def status(run: Run, environment: Mapping[str, str]) -> str:
    """What Flower says of the last submission; ``finished:lost`` where its database no longer knows it."""
    if not run.submissions:
        return "never submitted"
    number = run.submissions[-1]["number"]
    try:
        return run_status(number, environment)
    except RoundError as error:
        if "not found" in error.message.lower() or "invalid" in error.message.lower():
            return "finished:lost"
        raise DeploymentError(f"the SuperLink does not answer: {error.message}") from None
    except (KeyError, IndexError):
        return "finished:lost"


def stop(home: Home, name: str, environment: Mapping[str, str]) -> None:
    """End a run; its checkpoint stays. Raises ``DeploymentError`` for one that never began."""
    run = run_named(home, name)
    if not run.submissions:
        raise DeploymentError(f"run {name!r} never began", remedy=f"fedembed coordinator resume {name}")
    if status(run, environment).startswith("finished"):
        return
    json_output(["flwr", "stop", run.submissions[-1]["number"], CONNECTION, "--format", "json"], environment)


def follow(home: Home, name: str, environment: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """What the run tells, as it comes, until it ends.

    Raises:
        RoundError: it ended otherwise than completed; what the app said last is in the message.
    """
    run = run_named(home, name)
    lines: list[dict[str, Any]] = []
    found, asked = "", -STATUS_INTERVAL_S
    while not found.startswith("finished"):
        ending = sum(line["event"] in LAST_EVENTS for line in lines) >= len(run.submissions)
        if time.monotonic() - asked >= (ENDING_INTERVAL_S if ending else STATUS_INTERVAL_S):
            found, asked = status(run, environment), time.monotonic()
        else:
            time.sleep(POLL_INTERVAL_S)
        told, lines = len(lines), list(Journal(run.folder / ROUNDS_FILE).read())
        yield from lines[told:]
    if found != "finished:completed":
        last = lines[-1] if lines else {}
        raise RoundError(
            f"run {name!r} ended as {found}: {last.get('message', 'see the executor log')}",
            remedy=f"fedembed coordinator resume {name}",
        )


def runs(home: Home) -> Iterator[Run]:
    """Every run, in order of name."""
    for path in sorted(home.inside("runs").glob(f"*/{RUN_FILE}")):
        yield run_named(home, path.parent.name)


def run_named(home: Home, name: str) -> Run:
    """One run. Raises ``DeploymentError`` for a name that none has."""
    folder = home.inside("runs", name)
    try:
        raw = json.loads((folder / RUN_FILE).read_text())
    except OSError:
        raise DeploymentError(f"there is no run {name!r}", remedy="`fedembed coordinator runs` lists them.") from None
    scenario = scenario_from_json(raw["scenario"])
    return Run(name, folder, scenario, tuple(raw["submissions"]), last_round(folder / STATE_FOLDER))


def _refuse_unfit(home: Home, scenario: Scenario) -> None:
    storage = home.settings.storage
    if scenario.privacy.mode in ("central", "none") and storage.database == "disk" and not storage.encrypted:
        raise DeploymentError(
            f"mode {scenario.privacy.mode!r} sends updates in the clear, and Flower's database keeps parts of them",
            remedy='Set database = "memory" in [storage] of coordinator.toml, or encrypted = true where the folder is.',
        )
    if scenario.data.reader == "corpus":
        raise DeploymentError(
            "the scenario generates its data, and sites have their own",
            remedy="Name the reader that sites use in [data], and a vocabulary that is public.",
        )


def _save(folder: Path, scenario: Scenario, submissions: tuple[Mapping[str, str], ...]) -> None:
    with atomic_files(folder / RUN_FILE) as (partial,):
        partial.write_text(json.dumps({"scenario": scenario.canonical_json(), "submissions": list(submissions)}))
