"""From a scenario and an exchange with nodes to a release: the whole of what a coordinator does."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.config import Scenario
from common.evaluation import quality
from common.evaluation.score import Score
from common.files import atomic_files
from common.release import ReleaseContents, write_release
from common.table import EmbeddingTable
from common.vocabulary import row_domain
from common.work import Work, work_for
from server.exchange import Exchange
from server.progress import Reporter
from server.run import FederatedRun, Outcome

RELEASE_FOLDER, STATE_FOLDER = "release", "state"
UNPUBLISHED_SCORES = "unpublished-scores.json"


def work_of(scenario: Scenario, *, check: Callable[[Work], None] = lambda work: None) -> Work:
    """What a scenario amounts to, with its public rows.

    Args:
        check: refuses what is unfit, before the rows are read.

    Raises:
        ConfigError, PrivacyConfigError: no run can be made of it.
    """
    without_rows = work_for(scenario, None)
    check(without_rows)
    if without_rows.family.row_domain is None:
        return without_rows
    return work_for(scenario, row_domain(scenario.vocabulary))


def coordinate(
    exchange: Exchange, scenario: Scenario, out: Path, *, reporter: Reporter, benchmarks: Mapping[str, Path]
) -> Outcome:
    """Train, evaluate and write ``out/release``; an interrupted run in ``out`` is resumed.

    Args:
        benchmarks: files for quality tasks that the scenario names without one.

    Raises:
        FedembedError: the subclass tells the kind of failure; nothing half-written is left behind.
    """
    work = work_of(scenario)
    before = scores_before_training(work, benchmarks)
    outcome = FederatedRun(work, exchange, out / STATE_FOLDER, reporter).execute()
    reporter.preparing("evaluating and writing the release")
    contents = release_contents(work, outcome, benchmarks, before=before)
    if exchange.sender.bundle:
        contents = replace(contents, notes={**contents.notes, "bundle": exchange.sender.bundle})
    published, kept = _split(work, contents.evaluation)
    with atomic_files(out / UNPUBLISHED_SCORES) as (partial,):
        partial.write_text(json.dumps([score.to_json() for score in kept]))
    write_release(out / RELEASE_FOLDER, replace(contents, evaluation=published))
    return outcome


def _split(work: Work, scores: Sequence[Score]) -> tuple[list[Score], list[Score]]:
    """(scores for the release, scores for the coordinator's eyes).

    A task that reads training histories gives exact figures about them; in a private mode they stay out of the
    release, because no noise covers them.
    """
    exact = [work.plan.mode != "none" and quality.load(s.task.partition(":")[0]).reads_training_data for s in scores]
    published = [s for s, hidden in zip(scores, exact, strict=True) if not hidden]
    return published, [s for s, hidden in zip(scores, exact, strict=True) if hidden]


def release_contents(
    work: Work, outcome: Outcome, benchmarks: Mapping[str, Path], *, before: Sequence[Score]
) -> ReleaseContents:
    """Tables, claim, quality and public history of a finished run; ``before`` from ``scores_before_training``."""
    tables = work.family.export(outcome.state.parameters, work.domain, work.options)
    return ReleaseContents(
        tables=tables,
        model={} if tables else outcome.state.parameters,
        model_config={"family": work.family.name, "options": work.options.model_dump(mode="json")},
        certificate=work.plan.claim(outcome.releases, outcome.selections),
        evaluation=evaluate(work.scenario, tables, benchmarks, before=before),
        rounds=outcome.state.history,
        scenario=work.scenario.model_dump(mode="json"),
        notes=_notes(outcome, tables, benchmarks),
    )


def scores_before_training(work: Work, benchmarks: Mapping[str, Path]) -> list[Score]:
    """Scores of the table before any client is asked (random, or from public text), on every task of the scenario.

    They are made first, so that a benchmark that cannot be scored stops the run before anybody's budget is spent.

    Raises:
        ConfigError: unknown task. EvaluationError: a benchmark that shares nothing with the table.
    """
    if not work.scenario.evaluation.tasks:
        return []
    start = work.family.initial(work.options, work.specs, work.domain, work.scenario.seed)
    return _scores(work.scenario, work.family.export(start, work.domain, work.options), benchmarks)


def evaluate(
    scenario: Scenario, tables: Mapping[str, EmbeddingTable], benchmarks: Mapping[str, Path], *, before: Sequence[Score]
) -> list[Score]:
    """Scores of the main table on every task of the scenario, each beside the better of two baselines.

    One is the task's own; the other is the table before training, because what that reaches has not been learned
    from anybody.
    """
    return [_beside(s, b) for s, b in zip(_scores(scenario, tables, benchmarks), before, strict=True)]


def _scores(scenario: Scenario, tables: Mapping[str, EmbeddingTable], benchmarks: Mapping[str, Path]) -> list[Score]:
    if not tables:
        return []
    main = next(iter(tables.values()))
    scores: list[Score] = []
    for entry in scenario.evaluation.tasks:
        name, _, file = entry.partition(":")
        benchmark = Path(file) if file else benchmarks.get(name)
        scores.extend(quality.load(name).score(main, benchmark, seed=scenario.seed))
    return scores


def _beside(score: Score, before: Score) -> Score:
    """``score`` with the table before training as its baseline, where that is the harder one to beat."""
    sign = 1.0 if score.higher_is_better else -1.0
    if math.isfinite(score.baseline_value) and sign * before.value <= sign * score.baseline_value:
        return score
    return replace(score, baseline_name="the table before training", baseline_value=before.value)


def _notes(outcome: Outcome, tables: Mapping[str, EmbeddingTable], benchmarks: Mapping[str, Path]) -> dict[str, Any]:
    notes: dict[str, Any] = {
        "clients": f"{outcome.clients} clients; what their data are is known to them alone",
        "enrolled_clients": outcome.clients,
        "resumed_from_round": outcome.resumed_from_round,
    }
    if tables:
        notes["main_table"] = next(iter(tables))
    if benchmarks:
        notes["evaluation_data"] = "held-out records, which the claim does not cover"
    return notes
