"""A whole federation on one machine: read or generate the data, make the clients, run an engine, return the release."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client.node import store_fingerprints, store_path
from client.store import encode_clients, load_store, save_store
from common.config import CORPUS, Scenario
from common.errors import CheckpointError, ConfigError, DataError, RoundError
from common.evaluation.score import Score
from common.release import load_release
from common.table import HASHED, RowDomain
from common.text import words
from common.units import ClientStore, Record
from common.work import Work, refuse_large_delta
from server.checkpoint import CheckpointDirectory
from server.coordinate import STATE_FOLDER, UNPUBLISHED_SCORES, work_of
from server.progress import Reporter
from server.run import Outcome
from simulations.checks import refuse_unfit, refuse_unfit_machine
from simulations.cohort import ASSUMED_CLIENTS, cohort_is_open, with_cohort
from simulations.holdout import hold_out_clients, hold_out_last
from simulations.partition import partition
from simulations.run_folder import exclusive

LEDGER_FILE = "ledger.sqlite"
HELD_OUT_ITEMS, HELD_OUT_TEXTS = "held-out-items.npz", "held-out-clients.txt"


@dataclass(frozen=True)
class SimulationResult:
    """What a simulation ends with: the release folder, its claim and scores, and how the run went."""

    release: Path
    certificate: dict[str, Any]
    evaluation: list[Any]
    seconds: float
    resumed_from_round: int


def run_simulation(scenario: Scenario, *, out: Path, engine: str, reporter: Reporter) -> SimulationResult:
    """Run ``scenario`` to its release in ``out``; the same call resumes an interrupted run.

    Raises:
        FedembedError: the subclass tells the kind of failure.
    """
    started = time.monotonic()
    with exclusive(out):
        scenario = _with_known_cohort(scenario, out, reporter)
        release = out / "release"
        resumed = scenario.federation.rounds
        if not release.exists():
            resumed = _run(scenario, out, engine, reporter)
        loaded = load_release(release)
        if loaded.scenario != scenario.model_dump(mode="json"):
            raise CheckpointError(f"{out} holds the release of another scenario or seed")
        scores = [*loaded.evaluation, *_unpublished(out)]
        return SimulationResult(release, dict(loaded.certificate), scores, time.monotonic() - started, resumed)


def _with_known_cohort(scenario: Scenario, out: Path, reporter: Reporter) -> Scenario:
    """The scenario with the cohort of its secure sums, for which the clients are made first."""
    if not cohort_is_open(scenario):
        return scenario
    _refuse_output_among_data(scenario, out)
    store = prepared_clients(enrolled_work(with_cohort(scenario, ASSUMED_CLIENTS)), out, reporter)
    return with_cohort(scenario, len(store))


def _unpublished(out: Path) -> list[Score]:
    """Scores that were kept out of the release because they are exact figures about training data."""
    path = out / UNPUBLISHED_SCORES
    return [Score.from_json(entry) for entry in json.loads(path.read_text())] if path.exists() else []


def _run(scenario: Scenario, out: Path, engine: str, reporter: Reporter) -> int:
    """Run the engine; returns the round that a checkpoint let it start from."""
    if (out / STATE_FOLDER).exists():
        _refuse_unfit_state(scenario, out)
    work = enrolled_work(scenario)
    refuse_unfit_machine(work, nodes=1 if engine == "local" else None)
    _refuse_output_among_data(scenario, out)
    store = prepared_clients(work, out, reporter)
    benchmarks = {task: str(path) for task, path in held_out_benchmarks(out).items()}
    run_config = {
        "scenario": scenario.canonical_json(),
        "out": str(out.resolve()),
        "benchmarks": json.dumps(benchmarks),
        "simulation": str(out.resolve()),
    }
    if engine == "ray":
        from simulations.ray_engine import run_on_ray

        return run_on_ray(run_config, len(store), reporter)
    if engine != "local":
        raise ConfigError(f"unknown engine {engine!r}", remedy="Engines: local, ray.")
    return run_locally(store, out, run_config, reporter).resumed_from_round


def held_out_benchmarks(out: Path) -> dict[str, Path]:
    """Quality task -> what was held out of the clients in ``out`` for it to ask for."""
    held_out = {"recommendation": out / HELD_OUT_ITEMS, "cooccurrence": out / HELD_OUT_TEXTS}
    return {task: path for task, path in held_out.items() if path.exists()}


def _refuse_output_among_data(scenario: Scenario, out: Path) -> None:
    """The next run would read what this one wrote."""
    data = Path(scenario.data.path)
    if scenario.data.reader == CORPUS or not scenario.data.path:  # the reader refuses an empty path
        return
    if data.is_dir() and out.resolve().is_relative_to(data.resolve()):
        raise ConfigError(
            f"the run's folder {out} lies inside data.path = {data}, and later runs would read it as data",
            remedy="Give the data a folder of their own, or name another place with --out.",
        )


def _refuse_unfit_state(scenario: Scenario, out: Path) -> None:
    """Refuse another run's folder before it is touched, and one whose rounds are begun and whose ledger is gone."""
    if CheckpointDirectory(out / STATE_FOLDER, scenario.digest).attempts():
        from client.ledger import Ledger

        Ledger.open(out / LEDGER_FILE, create=False).close()


def run_locally(store: ClientStore, out: Path, run_config: dict[str, str], reporter: Reporter) -> Outcome:
    """Run in this process: one node that hosts every client, and one ledger file.

    Raises:
        FedembedError: what failed on the node, if the run ended because of it; else see ``FederatedRun.execute``.
    """
    from client.app import build_app as build_client_app
    from client.ledger import Ledger
    from client.policy import Policy
    from client.session import Session
    from server.app import build_app as build_server_app
    from simulations.engine import InProcessGrid, run_in_process

    outcomes: list[Outcome] = []
    failures: list[Exception] = []
    with Ledger.open(out / LEDGER_FILE) as ledger:
        session = Session(GivenStore(store), ledger, Policy.permissive(), keeps_table=True, simulated=True)
        grid = InProcessGrid(build_client_app(lambda context: session, failures.append), [{}], run_config=run_config)
        try:
            run_in_process(build_server_app(lambda folder: reporter, outcomes.append), grid, run_config)
        except RoundError as error:
            causes = [*failures, *grid.raised]
            if causes:
                raise causes[-1] from error
            raise
    return outcomes[0]


@dataclass(frozen=True)
class GivenStore:
    """A data source that already holds the encoded clients."""

    clients: ClientStore

    def store(self, scenario: Scenario, domain: RowDomain | None) -> ClientStore:
        """The clients, whatever is asked: they were encoded for this scenario."""
        return self.clients

    def fingerprints(self, store: ClientStore) -> tuple[str, ...]:
        """By content and name."""
        return store_fingerprints(store)


def enrolled_work(scenario: Scenario) -> Work:
    """Family, options, rows and plan of a scenario, exactly as the coordinator derives them.

    Raises:
        ConfigError: the scenario cannot lead to a release.
    """
    return work_of(scenario, check=refuse_unfit)


def prepared_clients(work: Work, out: Path, reporter: Reporter) -> ClientStore:
    """The encoded clients of a run: made once, reopened when the run resumes."""
    path = store_path(out, work.scenario)
    if path.exists():
        return load_store(path)
    reporter.preparing("reading records and making clients")
    try:
        store = _encoded_clients(work, out)
        _refuse_no_known_row(work, store)
        _report_unreachable_words(work, reporter)
        refuse_large_delta(work.plan, store.units.count)
        save_store(store, path)
    except BaseException:
        for name in (HELD_OUT_ITEMS, HELD_OUT_TEXTS):
            (out / name).unlink(missing_ok=True)
        raise
    return store


def _refuse_no_known_row(work: Work, store: ClientStore) -> None:
    """Rows of noise alone would be released with a claim, and look like a table."""
    if work.domain is not None and not store.units.offsets[-1]:
        raise DataError(
            "no record of any client holds a row of the vocabulary, so there is nothing to learn",
            remedy="Compare [vocabulary] with the data: words are lower-cased letters, and a tab precedes a count.",
        )


def _report_unreachable_words(work: Work, reporter: Reporter) -> None:
    """Rows that no text can touch hold noise alone: ``Bread``, ``don't`` or ``route66`` in a list of words."""
    if work.domain is None or work.domain.source == HASHED or work.scenario.data.reader != "text":
        return
    unreachable = [key for key in work.domain.keys if words(key) != [key]]
    if unreachable:
        reporter.preparing(
            f"{len(unreachable):,} of {len(work.domain):,} vocabulary keys occur in no text, because words are runs of "
            f"lower-case letters: {', '.join(map(repr, unreachable[:3]))}"
        )


def _encoded_clients(work: Work, out: Path) -> ClientStore:
    clients = partition(records(work.scenario), work.scenario.data, work.scenario.seed)
    if work.scenario.data.holdout == "last":
        clients = hold_out_last(clients, work.domain, out / HELD_OUT_ITEMS)
    elif work.scenario.data.holdout == "clients":
        clients = hold_out_clients(clients, work.scenario.seed, out / HELD_OUT_TEXTS)
    return encode_clients(clients.items(), work.family, work.options, domain=work.domain)


def records(scenario: Scenario) -> Iterator[Record]:
    """Every record of the scenario's data: a generated corpus, or files through a reader."""
    if scenario.data.reader == CORPUS:
        from simulations import corpora

        return corpora.load(scenario.data.path)
    from client import readers

    return readers.read(scenario.data)
