"""``fedembed compare``: two releases side by side: what each claims, its scores, and how far the table has moved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from common.errors import EvaluationError
from simulations.commands.output import emit_json, epsilon_shown, say, shown, table
from simulations.commands.release import SeedOption, TableOption, chosen_table, opened, score_lines
from simulations.commands.train import JsonOption

if TYPE_CHECKING:
    from common.evaluation.drift import Drift
    from common.evaluation.score import Score
    from common.release import Release

_FIELDS = ("mode", "unit", "adjacency", "delta", "rounds_released", "void")
_MECHANISM = ("name", "noise_multiplier", "l2_clip_norm")


def compare(
    first: Annotated[Path, typer.Argument(metavar="RELEASE", hidden=True)],
    second: Annotated[Path, typer.Argument(metavar="RELEASE", hidden=True)],
    *,
    table_name: TableOption = None,
    seed: SeedOption = 0,
    json_output: JsonOption = False,
) -> None:
    """Show two releases side by side: claims, scores, and how far the table has moved.

    RELEASE is the folder of a release, or of the run that made it. Scores are those stored in the releases; a
    difference is the second's less the first's. Tables are compared over the keys that both have.

    Example: fedembed compare runs/before runs/after
    """
    releases = opened(first), opened(second)
    claims = list(claim_rows(*(release.certificate for release in releases)))
    scores = paired_scores(*(release.evaluation for release in releases))
    moved, why_not = _drift(*releases, table_name=table_name, seed=seed)
    if json_output:
        emit_json(
            {
                "releases": [release.path for release in releases],
                "claims": [{"field": name, "first": a, "second": b} for name, a, b in claims],
                "scores": [_pair_json(*pair) for pair in scores],
                "drift": None if moved is None else _drift_json(moved),
                "no_drift_because": why_not,
            }
        )
        return
    for number, release in enumerate(releases, start=1):
        say(f"Release {number}   {release.path}")
    for line in ("", "What is claimed about privacy", *_claim_lines(claims), "", "What the tables are worth"):
        say(line)
    for line in (*_score_lines(scores), "", "How far the table has moved", *_drift_lines(moved, why_not)):
        say(line)


def claim_rows(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Name, value in the first and value in the second certificate of what a claim rests on; epsilon last."""
    for name in _FIELDS:
        yield name, first.get(name), second.get(name)
    for name in _MECHANISM:
        yield f"mechanism.{name}", first.get("mechanism", {}).get(name), second.get("mechanism", {}).get(name)
    for observer in dict.fromkeys([*first.get("observers", {}), *second.get("observers", {})]):
        values = (claim.get("observers", {}).get(observer, {}).get("epsilon") for claim in (first, second))
        yield (f"epsilon.{observer}", *values)


def paired_scores(first: list[Score], second: list[Score]) -> list[tuple[Score | None, Score | None]]:
    """Scores of one task and metric side by side, in the first's order; ``None`` where a release lacks it."""
    left, right = ({(score.task, score.metric): score for score in scores} for scores in (first, second))
    return [(left.get(name), right.get(name)) for name in dict.fromkeys([*left, *right])]


def difference(first: Score | None, second: Score | None) -> tuple[float | None, str]:
    """The second's value less the first's, and what it means: ``better`` or ``worse`` where the intervals part."""
    if first is None or second is None:
        return None, f"only in the {'second' if first is None else 'first'}"
    moved = second.value - first.value
    if first.higher_is_better != second.higher_is_better:
        return moved, "not comparable"
    if second.ci_low > first.ci_high or second.ci_high < first.ci_low:  # never with NaN
        return moved, "better" if (moved > 0) == second.higher_is_better else "worse"
    return moved, "within the intervals" if first.ci_low == first.ci_low and second.ci_low == second.ci_low else "-"


def _drift(first: Release, second: Release, *, table_name: str | None, seed: int) -> tuple[Drift | None, str | None]:
    """The comparison of the tables, or why there is none; a table that is asked for by name must be there."""
    from common.evaluation.drift import drift

    if table_name is None and not (first.tables and second.tables):
        return None, "a release holds an encoder and no table"
    try:
        return drift(*(chosen_table(release, table_name, None) for release in (first, second)), seed=seed), None
    except EvaluationError as error:
        return None, error.message


def _pair_json(first: Score | None, second: Score | None) -> dict[str, Any]:
    moved, verdict = difference(first, second)
    one = first or second
    return {
        "task": one.task if one else "",
        "metric": one.metric if one else "",
        "first": first.to_json() if first else None,
        "second": second.to_json() if second else None,
        "difference": moved,
        "verdict": verdict,
    }


def _drift_json(moved: Drift) -> dict[str, Any]:
    counts = {"shared": moved.shared, "added": moved.added, "removed": moved.removed}
    return {**counts, "scores": [score.to_json() for score in moved.scores]}


def _claim_lines(claims: list[tuple[str, Any, Any]]) -> list[str]:
    rows = [(name, _claimed(name, a), _claimed(name, b), "" if a == b else "differs") for name, a, b in claims]
    return table(("", "first", "second", ""), rows)


def _claimed(name: str, value: Any) -> str:
    if name.startswith("epsilon."):
        return "not protected" if value is None else epsilon_shown(float(value))
    return shown(value)


def _score_lines(scores: list[tuple[Score | None, Score | None]]) -> list[str]:
    if not scores:
        return ["  neither release stores a score"]
    rows = []
    for first, second in scores:
        moved, verdict = difference(first, second)
        one = first or second
        cells = [shown(None if s is None else s.value) for s in (first, second)]
        rows.append((one.task if one else "", one.metric if one else "", *cells, shown(moved), verdict))
    return table(("task", "metric", "first", "second", "difference", ""), rows)


def _drift_lines(moved: Drift | None, why_not: str | None) -> list[str]:
    if moved is None:
        return [f"  not compared: {why_not}"]
    counts = f"  {moved.shared:,} keys shared, {moved.added:,} added, {moved.removed:,} removed"
    return [counts, *score_lines(moved.scores)]
