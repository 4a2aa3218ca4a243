"""What ``fedembed simulate`` says at its end: where the release is, what it claims, what it is worth, what next."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from common.privacy.claim_words import rounded_up
from simulations.commands.output import epsilon_shown, table
from simulations.commands.release import main_table_name, opened, score_lines

if TYPE_CHECKING:
    from common.config import Scenario
    from common.release import Release
    from simulations.federation import SimulationResult

_LISTS, _NEIGHBORS = 3, 8


def lines(result: SimulationResult, scenario: Scenario) -> list[str]:
    """The closing page of a run."""
    release = opened(result.release)
    return [
        f"Release   {result.release}",
        f"Time      {result.seconds:,.0f} s{_resumption(result.resumed_from_round, scenario.federation.rounds)}",
        "",
        "What is claimed about privacy",
        *claim_lines(result.certificate),
        "",
        "What the table is worth",
        *score_lines(result.evaluation),
        *_neighbor_lines(release, scenario),
        "",
        *_next_lines(result, release, scenario),
    ]


def _resumption(resumed_from_round: int, rounds: int) -> str:
    if resumed_from_round >= rounds:
        return " (this run was finished before: nothing was run again)"
    return f" (resumed after round {resumed_from_round})" if resumed_from_round else ""


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
    """The claim in words, and against whom it holds and against whom not."""
    page = textwrap.wrap(str(certificate["sentence"]), 100, initial_indent="  ", subsequent_indent="  ")
    rows = [
        (observer.replace("_", " "), *_protection(entry, certificate["delta"]))
        for observer, entry in certificate["observers"].items()
    ]
    return [*page, *table(("against", "epsilon", "delta", ""), rows)]


def _protection(entry: Mapping[str, Any], delta: float) -> tuple[str, str, str]:
    if entry["epsilon"] is None:
        return "-", "-", f"not protected: {entry['reason']}"
    return epsilon_shown(entry["epsilon"]), rounded_up(delta), ""


def _shown_keys(release: Release, scenario: Scenario) -> list[str]:
    """Keys of ``[evaluation] neighbors_of`` that the main table has."""
    known = release.tables[main_table_name(release)].row_of if release.tables else {}
    return [key for key in scenario.evaluation.neighbors_of if key in known][:_LISTS]


def _neighbor_lines(release: Release, scenario: Scenario) -> list[str]:
    keys = _shown_keys(release, scenario)
    if not release.tables:
        return []
    vectors = release.tables[main_table_name(release)]
    absent = [key for key in scenario.evaluation.neighbors_of if key not in vectors.row_of]
    missing = [f"  evaluation.neighbors_of: the table has no row {key!r}" for key in absent]
    if not keys:
        return ["", *missing] if missing else []
    width = max(len(key) for key in keys)
    near = {key: ", ".join(other for other, _ in vectors.neighbors(key, _NEIGHBORS)) for key in keys}
    return ["", "Nearest neighbours", *(f"  {key.ljust(width)}  {others}" for key, others in near.items()), *missing]


def _next_lines(result: SimulationResult, release: Release, scenario: Scenario) -> list[str]:
    commands = [f"fedembed report {result.release} --open", f"fedembed verify {result.release}"]
    if release.tables:
        keys = _shown_keys(release, scenario) or release.tables[main_table_name(release)].keys
        commands.append(f"fedembed neighbors {result.release} {keys[0]}")
    return ["Next", *(f"  {command}" for command in commands)]
