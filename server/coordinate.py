"""From a scenario and an exchange with nodes to a release: the whole of what a coordinator does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.config import Scenario
from common.evaluation import quality
from common.evaluation.score import Score
from common.release import ReleaseContents, write_release
from common.table import EmbeddingTable
from common.work import Work, work_for
from server.progress import Reporter
from server.rounds import Exchange
from server.run import FederatedRun, Outcome
from server.vocabulary import row_domain

RELEASE_FOLDER = "release"


def coordinate(
    exchange: Exchange, scenario: Scenario, out: Path, *, reporter: Reporter, benchmarks: Mapping[str, Path]
) -> Outcome:
    """Train, evaluate and write ``out/release``; an interrupted run in ``out`` is resumed.

    Args:
        benchmarks: files for quality tasks that the scenario names without one.

    Raises:
        FedembedError: the subclass tells the kind of failure; nothing half-written is left behind.
    """
    family_rows = work_for(scenario, None).family.row_domain
    domain = row_domain(scenario.vocabulary) if family_rows is not None else None
    work = work_for(scenario, domain)
    outcome = FederatedRun(work, exchange, out / "state", reporter).execute()
    reporter.preparing("evaluating and writing the release")
    write_release(out / RELEASE_FOLDER, release_contents(work, outcome, benchmarks))
    return outcome


def release_contents(work: Work, outcome: Outcome, benchmarks: Mapping[str, Path]) -> ReleaseContents:
    """Tables, claim, quality and public history of a finished run."""
    tables = work.family.export(outcome.state.parameters, work.domain, work.options)
    return ReleaseContents(
        tables=tables,
        model={} if tables else outcome.state.parameters,
        model_config={"family": work.family.name, "options": work.options.model_dump(mode="json")},
        certificate=work.plan.claim(outcome.releases),
        evaluation=evaluate(tables, work.scenario, benchmarks),
        rounds=outcome.state.history,
        scenario=work.scenario.model_dump(mode="json"),
        notes=_notes(outcome),
    )


def evaluate(tables: Mapping[str, EmbeddingTable], scenario: Scenario, benchmarks: Mapping[str, Path]) -> list[Score]:
    """Scores of the main table on every task of the scenario.

    Raises:
        ConfigError: unknown task. EvaluationError: a benchmark that shares nothing with the table.
    """
    if not tables:
        return []
    main = next(iter(tables.values()))
    scores: list[Score] = []
    for entry in scenario.evaluation.tasks:
        name, _, file = entry.partition(":")
        benchmark = Path(file) if file else benchmarks.get(name)
        scores.extend(quality.load(name).score(main, benchmark, seed=scenario.seed))
    return scores


def _notes(outcome: Outcome) -> dict[str, Any]:
    statement = f"{outcome.clients} clients; what their data are is known to them alone"
    return {
        "clients": statement,
        "enrolled_clients": outcome.clients,
        "resumed_from_round": outcome.resumed_from_round,
    }
