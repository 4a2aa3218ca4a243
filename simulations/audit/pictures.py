"""What an audit's pictures of cost are made of: epsilon over rounds, quality with and without protection, a map."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.config import Scenario
from common.errors import FedembedError
from common.evaluation.report.audit_record import MapRecord, QualityRecord, SpendRecord
from common.evaluation.report.plots import FEWEST_MAPPED, spend_lines
from common.evaluation.report.summary import principal_plane
from common.evaluation.score import Score
from common.release.history import with_spend
from common.table import EmbeddingTable
from server.coordinate import evaluate, scores_before_training
from simulations.cohort import ASSUMED_CLIENTS, with_cohort
from simulations.federation import enrolled_work, held_out_benchmarks

_DIGITS = 5  # of a coordinate on the map: far finer than any drawing
NO_TASK = "no quality task is named in [evaluation], so what the protection costs was not measured"
NO_TABLE = "the family releases an encoder and no table"
NO_ROUNDS = "nothing is claimed against anybody, so no round spends any of it"
NO_NOISE = "a map is drawn only of a table whose noise is claimed, and of which no test found that the claim is wrong"


@dataclass(frozen=True)
class Quality:
    """How good tables are.

    Attributes:
        scores: run (``audited``, ``unprotected``) -> its scores, each beside its baseline.
        reason: why there are none.
    """

    scores: Mapping[str, Sequence[Score]] = field(default_factory=dict)
    reason: str = ""


def measured(scenario: Scenario, tables: Mapping[str, EmbeddingTable | None], folder: Path) -> Quality:
    """Score the tables of several runs on the scenario's tasks, beside the table before training.

    Args:
        tables: run -> its table.
        folder: where the clients were prepared; it holds what was held out of training.
    """
    known = {run: table for run, table in tables.items() if table is not None}
    if not scenario.evaluation.tasks:
        return Quality(reason=NO_TASK)
    if not known:
        return Quality(reason=NO_TABLE)
    benchmarks = held_out_benchmarks(folder)
    try:
        before = scores_before_training(enrolled_work(with_cohort(scenario, ASSUMED_CLIENTS)), benchmarks)
        scores = {run: evaluate(scenario, {"main": table}, benchmarks, before=before) for run, table in known.items()}
    except FedembedError as error:  # what cannot be scored does not make an audit of the claim impossible
        return Quality(reason=f"it could not be measured: {error.message}")
    return Quality(scores)


def planned_spend(claim: Mapping[str, Any]) -> tuple[SpendRecord, ...]:
    """Epsilon over the rounds of a finished run, by the accountant of its ``claim`` (``PrivacyPlan.claim``)."""
    return spend_of(with_spend([{"round": k + 1} for k in range(claim["rounds_released"])], claim))


def spend_of(rounds: Sequence[Mapping[str, Any]]) -> tuple[SpendRecord, ...]:
    """The rounds of a public history that state what was spent."""
    spent: dict[int, dict[str, float]] = {}
    for observer, points in spend_lines(rounds).items():
        for number, epsilon in points:
            spent.setdefault(int(number), {})[observer] = epsilon
    return tuple(SpendRecord(round=number, epsilon=spent[number]) for number in sorted(spent))


def quality_of(scores: Mapping[str, Sequence[Score]], claim: Mapping[str, Any]) -> tuple[QualityRecord, ...]:
    """Scores of runs as plain data; the unprotected one claims nothing, and neither does a void certificate."""
    claimed = _public_epsilon(claim)
    return tuple(
        QualityRecord(run=run, epsilon=math.inf if run == "unprotected" else claimed, **score.to_json())  # type: ignore[arg-type]
        for run, several in scores.items()
        for score in several
    )


def map_of(table: EmbeddingTable | None, claim: Mapping[str, Any], *, refuted: bool) -> MapRecord | None:
    """The first rows on their principal plane; nothing where noise is not claimed, or the claim is ``refuted``.

    An audit is read by more people than the data are. A table that may be without its noise stays out of it.
    """
    if table is None or len(table) < FEWEST_MAPPED or refuted or not math.isfinite(_public_epsilon(claim)):
        return None
    points, share = principal_plane(table)
    x, y = ([float(f"{value:.{_DIGITS}g}") for value in points[:, axis]] for axis in (0, 1))
    return MapRecord(keys=table.keys[: len(points)], x=x, y=y, variance_share=float(share.sum()))  # type: ignore[arg-type]


def with_reasons(found: Mapping[str, Any], *, quality: str, table: EmbeddingTable | None) -> dict[str, Any]:
    """The fields ``spend``, ``quality`` and ``map`` of a record, and ``absent``: which of them are missing, and why."""
    few = NO_TABLE if table is None else f"{len(table)} rows make no map"
    mapped = few if table is None or len(table) < FEWEST_MAPPED else NO_NOISE
    reasons = {"spend": NO_ROUNDS, "quality": quality, "map": mapped}
    return {**found, "absent": {name: reason for name, reason in reasons.items() if not found[name]}}


def _public_epsilon(claim: Mapping[str, Any]) -> float:
    """Epsilon that is claimed against the public; infinite where nothing is."""
    observers = claim.get("observers")
    entry = observers.get("public") if isinstance(observers, Mapping) else None
    epsilon = entry.get("epsilon") if isinstance(entry, Mapping) else None
    known = isinstance(epsilon, (int, float)) and not isinstance(epsilon, bool)
    return float(epsilon) if known and claim.get("void") is False else math.inf  # type: ignore[arg-type]
