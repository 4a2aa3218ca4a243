"""Put the page together: words and numbers from the release, plots as inline SVG, markup from the template."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from common.evaluation.report import plots, template
from common.evaluation.report.summary import NEIGHBORS, map_facts, neighbor_lists, principal_plane
from common.evaluation.report.words import compiled, flattened, observers, unit_name
from common.evaluation.score import Score
from common.table import EmbeddingTable

_NORMS = {"update_norm_mean": "mean client update", "update_norm_max": "largest client update"}
_SHOWN_ROUNDS = 40


class ReleaseView(Protocol):
    """What the report needs to know; both a release and the contents of one to be written have it."""

    @property
    def tables(self) -> Mapping[str, EmbeddingTable]: ...
    @property
    def model(self) -> Mapping[str, NDArray[Any]]: ...
    @property
    def certificate(self) -> Mapping[str, Any]: ...
    @property
    def evaluation(self) -> Sequence[Score]: ...
    @property
    def rounds(self) -> Sequence[Mapping[str, Any]]: ...
    @property
    def scenario(self) -> Mapping[str, Any]: ...
    @property
    def notes(self) -> Mapping[str, Any]: ...


def write_report(release: ReleaseView) -> str:
    """The report of ``release`` as one HTML page without scripts, links or anything loaded from elsewhere.

    Every number on it is also in certificate.json, evaluation.json, rounds.json or manifest.json.
    """
    claim, rounds = release.certificate, list(release.rounds)
    return compiled(template.PAGE).render(
        title=_title(release),
        claim=claim,
        void=claim.get("void") is not False,
        observers=observers(claim),
        first_accountant=claim.get("accountants", {}).get("first", {}).get("name", "PLD"),
        unit=unit_name(claim),
        scores=release.evaluation,
        quality_plot=plots.quality_plot(release.evaluation),
        spend_plot=plots.spend_plot(plots.spend_lines(rounds), claim.get("target_epsilon")),
        history_plots=_history_plots(rounds),
        tables=_tables(release),
        encoder={name: list(np.shape(array)) for name, array in release.model.items()},
        facts=flattened(
            {k: v for k, v in claim.items() if k not in ("observers", "sentence", "public", "not_covered")}
        ),
        events=json.dumps({n: o["event"] for n, o in claim.get("observers", {}).items() if "event" in o}, indent=1),
        rounds=_round_table(rounds),
        scenario=flattened(release.scenario),
        notes=flattened(release.notes),
        round_count=len(rounds),
    )


def _title(release: ReleaseView) -> str:
    family = release.scenario.get("task", {}).get("family", "unnamed")
    path = release.scenario.get("data", {}).get("path")
    return f"{str(family).capitalize()} embeddings" + (f" from {Path(str(path)).name}" if path else "")


def _history_plots(rounds: list[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """(caption, drawing) of what the history holds."""
    drawn = [
        ("Loss on the clients' data, as they reported it.", {"loss": "loss"}, "loss"),
        ("L2 norm of the clients' updates before aggregation.", _NORMS, "update norm"),
        ("Share of updates whose norm exceeds the clip.", {"fraction_over_l2_clip_norm": "share"}, "share clipped"),
        ("L2 norm of the step that the coordinator took, noise included.", {"step_norm": "step"}, "step norm"),
    ]
    found = [(caption, plots.history_plot(rounds, fields, label=label)) for caption, fields, label in drawn]
    return [(caption, drawing) for caption, drawing in found if drawing]


def _tables(release: ReleaseView) -> list[dict[str, Any]]:
    lists, facts = neighbor_lists(release.tables, release.scenario), map_facts(release.tables)
    return [
        {
            "name": name,
            "rows": len(table),
            "dimensions": table.dimensions,
            "map": plots.map_plot(principal_plane(table)[0], table.keys),
            "mapped": facts[name]["rows"],
            "share": facts[name]["variance_share"],
            "neighbors": lists[name] if len(table) > NEIGHBORS else {},
        }
        for name, table in release.tables.items()
    ]


def _round_table(rounds: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Columns in order of first appearance; a long history is shown by its two ends."""
    flat = [dict(flattened(entry)) for entry in rounds]
    columns = list(dict.fromkeys(name for entry in flat for name in entry))
    shown = flat if len(flat) <= _SHOWN_ROUNDS else flat[: _SHOWN_ROUNDS // 2] + flat[-_SHOWN_ROUNDS // 2 :]
    return {
        "columns": columns,
        "rows": [[entry.get(column) for column in columns] for entry in shown],
        "hidden": len(flat) - len(shown),
    }
