"""Put the page together: words and numbers from the release, plots as inline SVG, markup from the template."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from common.evaluation.report import plots, template
from common.evaluation.report.summary import NEIGHBORS, map_facts, neighbor_lists
from common.evaluation.score import Score
from common.table import EmbeddingTable

if TYPE_CHECKING:
    from jinja2 import Template

_SEES = {
    "coordinator": ("The coordinator", "every message that clients send to it"),
    "other_clients": ("Other clients", "the parameters that the coordinator sends in every round"),
    "public": ("The public", "this release: everything in this folder"),
}
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
    return _template().render(
        title=_title(release),
        claim=claim,
        void=claim.get("void") is not False,
        observers=_observers(claim),
        first_accountant=claim.get("accountants", {}).get("first", {}).get("name", "PLD"),
        unit=_unit(claim),
        scores=release.evaluation,
        quality_plot=plots.quality_plot(release.evaluation),
        spend_plot=plots.spend_plot(rounds, claim.get("target_epsilon")),
        history_plots=_history_plots(rounds),
        tables=_tables(release),
        encoder={name: list(np.shape(array)) for name, array in release.model.items()},
        facts=_flattened(
            {k: v for k, v in claim.items() if k not in ("observers", "sentence", "public", "not_covered")}
        ),
        events=json.dumps({n: o["event"] for n, o in claim.get("observers", {}).items() if "event" in o}, indent=1),
        rounds=_round_table(rounds),
        scenario=_flattened(release.scenario),
        notes=_flattened(release.notes),
        round_count=len(rounds),
    )


@functools.cache
def _template() -> Template:
    """The compiled template. Every value is escaped: keys and names of a release come from anybody."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(num=number, figure=figure, risk=risk, sentence=sentence, drawing=Markup)
    return environment.from_string(template.PAGE)


def number(value: Any) -> str:
    """A value of a JSON file as the report shows it: four significant digits, thousands apart, words for nothing."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if value.is_integer() and 1e4 <= abs(value) < 1e9 else f"{value:.4g}"
    return str(value)


def figure(value: float) -> str:
    """A score as the report shows it: three decimals, so that figures line up."""
    return "–" if np.isnan(value) else f"{value:.3f}".replace("-", "−")


def risk(value: float, decimals: int = 3) -> str:
    """An epsilon or a share of a hundred: rounded up, so that no risk shrinks on its way into words."""
    scale = 10.0**decimals
    # The slack absorbs the rounding of the product alone: 3 must not become 3.001.
    return f"{np.ceil(scale * value * (1 - 1e-12)) / scale:.{decimals}f}".rstrip("0").rstrip(".")


def sentence(text: Any) -> str:
    """The text with a capital first letter; the rest stays as it is, unlike with ``str.capitalize``."""
    return str(text)[:1].upper() + str(text)[1:]


def _title(release: ReleaseView) -> str:
    family = release.scenario.get("task", {}).get("family", "unnamed")
    path = release.scenario.get("data", {}).get("path")
    return f"{str(family).capitalize()} embeddings" + (f" from {Path(str(path)).name}" if path else "")


def _unit(claim: Mapping[str, Any]) -> str:
    return "client" if claim.get("unit_is_client") else str(claim.get("unit", "unit"))


def _observers(claim: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for name, entry in claim.get("observers", {}).items():
        who, sees = _SEES.get(name, (name.replace("_", " ").capitalize(), ""))
        rates = entry.get("tpr_at_fpr") or {}
        rows.append({"who": who, "sees": sees, **entry, "caught": rates.get("0.01")})
    return rows


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
            "map": plots.map_plot(table),
            "mapped": facts[name]["rows"],
            "share": facts[name]["variance_share"],
            "neighbors": lists[name] if len(table) > NEIGHBORS else {},
        }
        for name, table in release.tables.items()
    ]


def _round_table(rounds: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Columns in order of first appearance; a long history is shown by its two ends."""
    flat = [dict(_flattened(entry)) for entry in rounds]
    columns = list(dict.fromkeys(name for entry in flat for name in entry))
    shown = flat if len(flat) <= _SHOWN_ROUNDS else flat[: _SHOWN_ROUNDS // 2] + flat[-_SHOWN_ROUNDS // 2 :]
    return {
        "columns": columns,
        "rows": [[entry.get(column) for column in columns] for entry in shown],
        "hidden": len(flat) - len(shown),
    }


def _flattened(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested mappings as dotted names; lists as one text."""
    found: list[tuple[str, Any]] = []
    for name, item in value.items():
        if isinstance(item, Mapping):
            found += _flattened(item, f"{prefix}{name}.")
        elif isinstance(item, (list, tuple)):
            found.append((f"{prefix}{name}", ", ".join(number(part) for part in item)))
        else:
            found.append((f"{prefix}{name}", item))
    return found
