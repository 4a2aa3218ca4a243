"""The page of an audit: the verdict in plain words first, pictures second, every number of the record last."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np

from common.evaluation.report import audit_plots, audit_template, plots
from common.evaluation.report.audit_record import AuditRecord, LeakRecord, MapRecord, QualityRecord, ViewRecord
from common.evaluation.report.words import compiled, flattened, observers, unit_name

_VERDICTS = {
    "CONSISTENT": (
        "consistent",
        "Nothing that was tried contradicts the claim. That is no proof: a fault smaller than this audit could see may "
        "have passed.",
    ),
    "VIOLATION FOUND": (
        "violation",
        "The claim does not hold. Do not release what was audited; where it was released, do not rely on the claim.",
    ),
    "INCONCLUSIVE": (
        "inconclusive",
        "This audit could not have told a true claim from a false one. That it found nothing means nothing.",
    ),
}
_SEEN = {
    "updates": "what single clients sent",
    "sums": "the sums of all rounds",
    "table": "the final table",
}
# What an attack wants to know; one that is not listed goes by its name.
_QUESTIONS = {
    "row_support": "Which words or items does a client hold?",
    "single_owner": "Which of them does one client alone hold?",
    "intersection": "What does a client hold, judging by the rounds it took part in?",
    "differencing": "What does a client hold, judging by two sums that differ by it?",
    "membership": "Was this record in the training data?",
    "reference_membership": "Was this record in the training data, asked by someone who trained tables to compare?",
    "links": "Are these two linked in somebody's data?",
    "interactions": "Was this among the items of this user that were trained on?",
    "gradient_inversion": "Which data made this update?",
    "attributes": "Which attribute has the person or thing behind this row?",
    "inversion": "Which text or set of items does this vector stand for?",
}
_AT_ONE_PERCENT = "tpr@0.01"


def write_audit_page(record: AuditRecord) -> str:
    """The audit as one HTML page without scripts, links or anything loaded from elsewhere.

    Every number on it is in ``record``, and every number of ``record`` is on it; coordinates of the map are drawn.
    """
    claim, entries = _readable(record.claim.certificate), _mapping(record.claim.certificate.get("observers"))
    style, meaning = _VERDICTS[record.outcome]
    hidden = ("observers", "sentence", "not_covered")
    return compiled(audit_template.PAGE).render(
        record=record,
        style=style,
        meaning=meaning,
        claim=claim,
        void=claim.get("void") is not False,
        unit=unit_name(claim),
        observers=_observers(record, claim),
        first_accountant=_mapping(_mapping(claim.get("accountants")).get("first")).get("name", "PLD"),
        singled_out=_singled_out(record.leaks),
        views=[_view(view) for view in record.views],
        attacks=_worst(record.leaks),
        tried=len({leak.attack for leak in record.leaks}),
        refused=[(_question(n.attack), n) for n in record.not_run],
        checks="tests of the mechanism" if record.identity.kind == "scenario" else "checks of the folder",
        broken=[finding for finding in record.conformance if not finding.holds],
        trade_offs=_trade_offs(record.views),
        leaks=_leak_plots(record.leaks),
        caps=audit_plots.cap_plot(record.views),
        detectable=audit_plots.detectable_plot(record.views),
        spend=_spend_plot(record),
        costs=_cost_plots(record.quality),
        mapped=_map_plot(record.map),
        facts=flattened({n: v for n, v in record.claim.certificate.items() if n not in hidden}),
        entries=flattened({n: {k: v for k, v in _mapping(o).items() if k != "event"} for n, o in entries.items()}),
        events=json.dumps({n: o["event"] for n, o in entries.items() if "event" in _mapping(o)}, indent=1),
        settings=[(name, str(value) if name == "seed" else value) for name, value in flattened(record.settings)],
        scenario=flattened(record.identity.scenario),
    )


def _readable(certificate: Mapping[str, Any]) -> dict[str, Any]:
    """A certificate whose fields are of the kind that the words need: that of a release may be anybody's."""
    entries = {str(name): _entry(_mapping(o)) for name, o in _mapping(certificate.get("observers")).items()}
    found = {**certificate, "observers": entries, "not_covered": _texts(certificate.get("not_covered"))}
    if not _is_number(certificate.get("delta")):
        found.pop("delta", None)
    return {"adjacency": "the certificate does not say how two data sets differ", **found}


def _entry(stated: Mapping[str, Any]) -> dict[str, Any]:
    """What a certificate says about one observer; an epsilon that is no number protects from nobody."""
    rates = {name: rate for name, rate in _mapping(stated.get("tpr_at_fpr")).items() if _is_number(rate)}
    epsilon = stated.get("epsilon")
    return {
        **stated,
        "epsilon": float(epsilon) if _is_number(epsilon) else None,
        "reason": str(stated.get("reason") or ""),
        "tpr_at_fpr": rates,
        "second_opinion": _mapping(stated.get("second_opinion")),
    }


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _texts(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, (list, tuple)) else []


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _observers(record: AuditRecord, claim: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Who looks, with the share of canaries that the audit found for each of them, view by view."""
    rows = observers(claim)
    for row in rows:
        own = [view for view in record.views if view.observer == row["name"]]
        rates = [(_SEEN[view.view], view.tpr_at_fpr.get("0.01")) for view in own]
        row["found"] = [(seen, rate) for seen, rate in rates if isinstance(rate, float)]
        row["tested"] = bool(own)
        if row["name"] == "public":
            row["sees"] = "the release: tables, certificate, report"
    return rows


def _singled_out(leaks: Sequence[LeakRecord]) -> LeakRecord | None:
    """The attack that finds most real records at one false accusation in a hundred, and has an unprotected control."""
    wanted = [
        leak
        for leak in leaks
        if leak.metric.split(":")[0] == _AT_ONE_PERCENT
        and isinstance(leak.value, float)
        and isinstance(leak.control_value, float)
    ]
    return max(wanted, key=_value, default=None)


def _view(view: ViewRecord) -> dict[str, Any]:
    """A view with what its tests say together: the largest bound, and the error that all of them would have noticed."""
    return {
        "record": view,
        "seen": _SEEN[view.view],
        "style": _VERDICTS[view.outcome][0],
        "who": view.observer.replace("_", " "),
        "bound": audit_plots.shown(view.tests),
        "designs": [(design, tests) for _, design, tests in audit_plots.designs([view])],
        "rates": list(view.tpr_at_fpr.items()),
        "curve": list(view.trade_off.items()),
    }


def _worst(leaks: Sequence[LeakRecord]) -> dict[bool, list[dict[str, Any]]]:
    """Of every attack the figure farthest above chance, apart for what is promised and what is not."""
    attacks: dict[tuple[str, str], LeakRecord] = {}
    for leak in leaks:
        if isinstance(leak.value, float):
            best = attacks.setdefault((leak.attack, leak.sees), leak)
            attacks[leak.attack, leak.sees] = max(best, leak, key=_margin)
    return {promised: [_attack(k) for k in attacks.values() if k.promised is promised] for promised in (True, False)}


def _attack(leak: LeakRecord) -> dict[str, Any]:
    """A figure with its words: an interval that reaches down to chance shows nothing, and so does none."""
    low, chance = leak.ci_low, leak.chance_value
    better = low > chance if isinstance(low, float) and isinstance(chance, float) else None
    judged = {None: "not known", True: "more than guessing", False: "not shown to beat guessing"}[better]
    words = {"name": leak.attack.replace("_", " "), "question": _question(leak.attack), "seen": _seen(leak.sees)}
    return {**words, "k": leak, "better": better, "judged": judged}


def _value(leak: LeakRecord) -> float:
    return leak.value if isinstance(leak.value, float) else 0.0


def _margin(leak: LeakRecord) -> float:
    return _value(leak) - (leak.chance_value if isinstance(leak.chance_value, float) else 0.0)


def _question(attack: str) -> str:
    return _QUESTIONS.get(attack, attack.replace("_", " "))


def _seen(sees: str) -> str:
    return _SEEN.get(sees, sees)


def _leak_plots(leaks: Sequence[LeakRecord]) -> list[tuple[str, str]]:
    """(what is seen, drawing), for every sight and promise in which some attack ran."""
    groups: dict[str, list[LeakRecord]] = {sight: [] for sight in _SEEN}
    for leak in leaks:
        groups.setdefault(leak.sees, []).append(leak)
    drawn = [(_seen(sees), audit_plots.leak_plot(sees, group)) for sees, group in groups.items()]
    return [(seen, drawing) for seen, drawing in drawn if drawing]


def _trade_offs(views: Sequence[ViewRecord]) -> list[tuple[str, str]]:
    """(what is seen, against whose claim, drawing), once for observers who see and are promised the same."""
    drawn = [
        (f"{_SEEN[view.view]}, against {who}", audit_plots.trade_off_plot(view))
        for who, view in audit_plots.distinct(views)
    ]
    return [(seen, drawing) for seen, drawing in drawn if drawing]


def _spend_plot(record: AuditRecord) -> str:
    """Epsilon over rounds; one round needs no drawing."""
    last = max((entry.round for entry in record.spend), default=0)
    rounds: list[dict[str, Any]] = [{} for _ in range(last)]
    for entry in record.spend:
        rounds[entry.round - 1] = {"epsilon": entry.epsilon}
    target = record.claim.certificate.get("target_epsilon")
    drawn = plots.spend_lines(rounds) if last > 1 else {}
    return plots.spend_plot(drawn, target if _is_number(target) else None, width_in=audit_plots.HALF_IN)


def _cost_plots(scores: Sequence[QualityRecord]) -> list[tuple[str, str, str]]:
    """(task, baseline, drawing) for every figure of quality."""
    groups: dict[tuple[str, str], list[QualityRecord]] = {}
    for score in scores:
        groups.setdefault((score.task, score.metric), []).append(score)
    drawn = [(task, group[0].baseline_name, audit_plots.quality_plot(group)) for (task, _), group in groups.items()]
    return [(task, baseline, drawing) for task, baseline, drawing in drawn if drawing]


def _map_plot(mapped: MapRecord | None) -> str:
    return "" if mapped is None else plots.map_plot(np.column_stack([mapped.x, mapped.y]), mapped.keys)
