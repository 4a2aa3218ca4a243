"""What ``fedembed simulate`` says at its end: where the release is, what it claims, what it is worth, what next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from simulations.commands.output import shown, table
from simulations.commands.release import main_table_name, opened, score_lines

if TYPE_CHECKING:
    from common.config import Scenario
    from common.release import Release
    from simulations.federation import SimulationResult

_LISTS, _NEIGHBORS = 3, 8


def lines(result: SimulationResult, scenario: Scenario) -> list[str]:
    """The closing page of a run."""
    release = opened(result.release)
    resumed = f" (resumed after round {result.resumed_from_round})" if result.resumed_from_round else ""
    return [
        f"Release   {result.release}",
        f"Made in   {result.seconds:,.0f} s{resumed}",
        "",
        "What is claimed about privacy",
        *claim_lines(result.certificate),
        "",
        "What the table is worth",
        *score_lines(result.evaluation),
        *_neighbor_lines(release, scenario),
        "",
        *_next_lines(result, release),
    ]


def as_json(result: SimulationResult) -> dict[str, Any]:
    """The same as one JSON object."""
    return {
        "release": result.release,
        "certificate": dict(result.certificate),
        "evaluation": [score.to_json() for score in result.evaluation],
        "seconds": result.seconds,
        "resumed_from_round": result.resumed_from_round,
    }


def claim_lines(certificate: Mapping[str, Any]) -> list[str]:
    """The claim in words, and epsilon for each observer."""
    sentence = certificate.get("sentence")
    page = [f"  {sentence}"] if sentence else []
    observers = certificate.get("epsilon", {})
    rows = [(name.replace("_", " "), _protected(value)) for name, value in observers.items()]
    return [*page, *table(("against", "epsilon"), rows)] if rows else page


def _protected(value: Any) -> str:
    number = float(value) if isinstance(value, (int, float, str)) else float("inf")
    return "no protection" if number == float("inf") else shown(number)


def _neighbor_lines(release: Release, scenario: Scenario) -> list[str]:
    if not release.tables:
        return []
    vectors = release.tables[main_table_name(release)]
    known = [key for key in scenario.evaluation.neighbors_of if key in vectors.row_of][:_LISTS]
    if not known:
        return []
    width = max(len(key) for key in known)
    shown_lists = [
        f"  {key.ljust(width)}  {', '.join(other for other, _ in vectors.neighbors(key, _NEIGHBORS))}" for key in known
    ]
    return ["", "Nearest neighbours", *shown_lists]


def _next_lines(result: SimulationResult, release: Release) -> list[str]:
    commands = [f"fedembed report {result.release} --open", f"fedembed verify {result.release}"]
    if release.tables:
        vectors = release.tables[main_table_name(release)]
        commands.append(f"fedembed neighbors {result.release} {vectors.keys[0]}")
    return ["Next", *(f"  {command}" for command in commands)]
