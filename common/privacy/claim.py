"""The claim of a release as JSON, complete enough that anyone can recompute every epsilon in it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from common.errors import PrivacyConfigError
from common.privacy import accounting
from common.privacy.claim_words import (
    mechanism_facts,
    not_covered,
    public_facts,
    sampler_facts,
    secure_sum_facts,
    sentence,
    votes_facts,
)
from common.privacy.grid import MECHANISMS, SecureSum
from common.privacy.plan_checks import adjacency_of
from common.privacy.row_votes import RowVotes

if TYPE_CHECKING:
    from dp_accounting import DpEvent

    from common.privacy.plan import PrivacyPlan

FORMAT = 1
OBSERVERS = ("coordinator", "other_clients", "public")
_TEST_MODE = "test mode: noise and sampling come from a public seed and can be subtracted"
_UNPROTECTED = {
    "none": "mode none adds no noise",
    "central": "the coordinator sees updates before the noise: it is trusted",
    "distributed": "ideal: a simulator adds up in the clear, no protocol hides the updates from a coordinator",
}


def make_claim(plan: PrivacyPlan, rounds_released: int, selections_released: int | None = None) -> dict[str, Any]:
    """The claim after ``rounds_released`` rounds; plain JSON, ``None`` where no epsilon can be claimed.

    Args:
        selections_released: how many of the rounds began with votes on rows; never fewer than planned are claimed.
    """
    least = plan.selections(rounds_released)
    selections = max(least, least if selections_released is None else selections_released)
    observers = {name: _observer(plan, name, plan.event(name, rounds_released, selections)) for name in OBSERVERS}
    return {
        "format": FORMAT,
        "sentence": sentence(plan, observers["public"]["epsilon"]),
        "mode": plan.mode,
        "void": plan.test_mode or plan.mode == "none",
        "void_reason": _TEST_MODE if plan.test_mode else _UNPROTECTED["none"] if plan.mode == "none" else None,
        "unit": plan.unit,
        "unit_is_client": plan.unit_is_client,
        "adjacency": plan.adjacency,
        "delta": plan.delta,
        "target_epsilon": plan.target_epsilon,
        "rounds_planned": plan.rounds,
        "rounds_released": rounds_released,
        "selections_released": selections,
        "observers": observers,
        "accountants": _accountants(plan, observers["public"]),
        "mechanism": mechanism_facts(plan),
        "sampler": sampler_facts(plan),
        "secure_sum": secure_sum_facts(plan),
        "votes": votes_facts(plan),
        "public": public_facts(plan),
        "not_covered": not_covered(plan),
        "plan_digest": plan.digest,
    }


def plan_of(claim: Mapping[str, Any]) -> PrivacyPlan:
    """The plan that a stored claim describes.

    Raises:
        PrivacyConfigError: a field is missing or of the wrong kind, or the accountant's answer is no upper bound.
    """
    from common.privacy.plan import PrivacyPlan

    first = _field(_field(claim, "accountants", dict), "first", dict).get("name")
    if _field(claim, "format", int) != FORMAT or first not in ("PLD", "RDP", "PLD + RDP"):
        raise PrivacyConfigError(
            f"only claims of format {FORMAT} by the accountants PLD and RDP are accepted, not by {first!r} (the GDP "
            "approximation, for one, reports too small an epsilon)"
        )
    mechanism, sampler = _field(claim, "mechanism", dict), _field(claim, "sampler", dict)
    rows, ratio = _field(mechanism, "rows", str), _field(mechanism, "selection_ratio", float)
    if (rows, ratio) != ("dense", 0) and not (rows == "selected" and 1 < ratio < math.inf):
        raise PrivacyConfigError(f"a stored claim has rows {rows!r} with the selection ratio {ratio}")
    bounded = mechanism.get("l2_clip_norm") is not None
    return PrivacyPlan(
        mode=_field(claim, "mode", str),
        unit=_field(claim, "unit", str),
        unit_is_client=_field(claim, "unit_is_client", bool),
        adjacency=_field(claim, "adjacency", str),
        l2_clip_norm=_field(mechanism, "l2_clip_norm", float) if bounded else math.inf,
        noise_multiplier=_field(mechanism, "noise_multiplier", float),
        delta=_field(claim, "delta", float),
        target_epsilon=_field(claim, "target_epsilon", float) if claim.get("target_epsilon") is not None else None,
        rounds=_field(claim, "rounds_planned", int),
        sampling=_field(sampler, "clients", str),
        rate=_field(sampler, "client_rate", float),
        local_steps=_field(sampler, "local_steps", int),
        unit_rate=_field(sampler, "unit_rate", float),
        test_mode=_field(mechanism, "test_mode", bool),
        mechanism=_field(mechanism, "name", str),
        rows=rows,
        selection_ratio=ratio,
        selection_threshold=_field(mechanism, "selection_threshold", float),
        secure=_secure_sum_of(claim),
        votes=_votes_of(claim),
    )


def _secure_sum_of(claim: Mapping[str, Any]) -> SecureSum | None:
    """The terms stated; what follows from them is compared, like every other sentence and number."""
    if claim.get("secure_sum") is None:
        return None
    stated = _field(claim, "secure_sum", dict)
    counts = {
        name: _field(stated, name, int) for name in ("max_clients", "survivors", "colluders", "dimension", "bits")
    }
    if not counts["dimension"] or not counts["bits"]:
        raise PrivacyConfigError("a stored claim names no dimension or no bits of its secure sum")
    return SecureSum(aggregation=_field(stated, "aggregation", str), roster=_field(stated, "roster", bool), **counts)


def _votes_of(claim: Mapping[str, Any]) -> RowVotes | None:
    """The terms stated of votes on rows, as those of the secure sum."""
    if claim.get("votes") is None:
        return None
    stated = _field(claim, "votes", dict)
    names = ("max_selected_rows", "rows_per_client", "select_every", "min_contributors", "rows")
    counts = {name: _field(stated, name, int) for name in names}
    if not counts["rows"]:
        raise PrivacyConfigError("a stored claim names no rows that were voted on")
    return RowVotes(**counts)


def recompute(claim: Mapping[str, Any]) -> dict[str, float]:
    """Epsilon per observer, computed afresh from the events of a stored claim (``inf`` where nothing protects).

    Raises:
        PrivacyConfigError: the claim is malformed.
    """
    delta = _field(claim, "delta", float)
    return {
        str(name): accounting.epsilon(accounting.event_from_json(_field(entry, "event", dict)), delta)
        for name, entry in _field(claim, "observers", dict).items()
    }


def problems(claim: Mapping[str, Any], *, tolerance: float = 1e-3) -> list[str]:
    """What does not hold in a stored claim, in words; empty when all of it is confirmed.

    Checked: the stated clip, noise and sampling give the stated events; the events give the stated epsilons; a void
    claim states none; the digest is that of the plan described.

    Args:
        tolerance: relative amount by which a recomputed epsilon may exceed the stated one.

    Raises:
        PrivacyConfigError: the claim is malformed.
    """
    plan, rounds = plan_of(claim), _field(claim, "rounds_released", int)
    if (plan.mode == "distributed") != (plan.secure is not None):
        return ["mode distributed, and it alone, has a secure sum"]
    if (plan.secure is not None and plan.rows == "selected") != (plan.votes is not None):
        return ["votes select the rows of mode distributed, and of it alone"]
    selections = _field(claim, "selections_released", int)
    found = [] if plan.digest == claim.get("plan_digest") else ["the digest is not that of the plan described"]
    if claim["accountants"]["first"]["name"] != _first(plan):
        found.append("the first accountant is not the one that covers the stated mechanism")
    found += _wording_problems(plan, claim) + _combination_problems(plan)
    if rounds < 1:
        found.append("the claim counts no released round")
    if selections < plan.selections(rounds):
        found.append("the claim counts fewer selections of rows than its rounds have")
    if _field(claim, "void", bool) != (plan.test_mode or plan.mode == "none"):
        found.append("the claim says the wrong thing about being void")
    costs = recompute(claim)
    if set(costs) != set(OBSERVERS):
        found.append("the claim does not speak about exactly the known observers")
    for name in sorted(set(costs) & set(OBSERVERS)):
        entry = claim["observers"][name]
        if accounting.event_to_json(plan.event(name, rounds, selections)) != entry["event"]:
            found.append(f"against {name} the events are not those of the stated noise, sampling and rounds")
        found += _epsilon_problems(plan, name, entry.get("epsilon"), costs[name] / (1 + tolerance))
    return found


def _wording_problems(plan: PrivacyPlan, claim: Mapping[str, Any]) -> list[str]:
    """Every sentence of the claim must be the one that follows from its numbers."""
    observers = claim.get("observers")
    public = observers.get("public") if isinstance(observers, Mapping) else None
    stated = public.get("epsilon") if isinstance(public, Mapping) else None
    number = stated if isinstance(stated, (int, float)) and not isinstance(stated, bool) else None
    expected = {
        "sentence": sentence(plan, number),
        "public": public_facts(plan),
        "not_covered": not_covered(plan),
        "mechanism": mechanism_facts(plan),
        "sampler": sampler_facts(plan),
        "secure_sum": secure_sum_facts(plan),
        "votes": votes_facts(plan),
    }
    return [
        f"the field {name!r} is not what follows from the plan"
        for name, value in expected.items()
        if claim.get(name) != value
    ]


def _combination_problems(plan: PrivacyPlan) -> list[str]:
    """What ``make_plan`` refuses must not come back in a stored claim."""
    example = plan.mode == "example"
    wrong = {
        "the adjacency is not that of the mode and the unit": plan.mode != "none"
        and plan.adjacency != adjacency_of(plan.mode, plan.unit_is_client),
        "mode example protects no whole client": example and plan.unit_is_client,
        "mode example adds Gaussian noise alone": example and plan.mechanism != "gaussian",
        "mode distributed adds integer noise alone": plan.secure is not None and plan.mechanism not in MECHANISMS,
        "rows are selected where no guarantee is known": plan.rows == "selected" and not example and not plan.votes,
        "votes on rows protect whole clients alone": plan.votes is not None and not plan.unit_is_client,
    }
    return [problem for problem, found in wrong.items() if found]


def _epsilon_problems(plan: PrivacyPlan, observer: str, stated: Any, least: float) -> list[str]:
    if plan.test_mode or not plan.protects(observer):
        return [] if stated is None else [f"an epsilon is stated against {observer}, where nothing protects"]
    if stated is None and math.isinf(least):
        return []
    good = isinstance(stated, (int, float)) and not isinstance(stated, bool) and least <= stated
    return [] if good else [f"against {observer} the events cost epsilon {least:.6g}, the claim states {stated!r}"]


def _field(data: Any, name: str, kind: type) -> Any:
    value = data.get(name) if isinstance(data, Mapping) else None
    if kind is bool:
        good = isinstance(value, bool)
    else:
        good = isinstance(value, (int, float) if kind is float else kind) and not isinstance(value, bool)
    if not good:
        raise PrivacyConfigError(f"a stored claim lacks a valid field {name!r}")
    return value


def _observer(plan: PrivacyPlan, observer: str, event: DpEvent) -> dict[str, Any]:
    if plan.test_mode:
        reason: str | None = _TEST_MODE
    else:
        reason = None if plan.protects(observer) else _UNPROTECTED[plan.mode]
    entry: dict[str, Any] = {
        "epsilon": None,
        "reason": reason,
        "tpr_at_fpr": None,
        "event": accounting.event_to_json(event),
        "second_opinion": None,
        "second_opinion_reason": reason,
    }
    if reason is None:
        value = accounting.epsilon(event, plan.delta)
        entry["epsilon"] = value if math.isfinite(value) else None
        entry["reason"] = None if math.isfinite(value) else "too little noise: the accountant gives no finite epsilon"
        if math.isfinite(value):
            entry["tpr_at_fpr"] = {str(fpr): accounting.tpr_bound(value, plan.delta, fpr) for fpr in (0.001, 0.01, 0.1)}
        entry |= _second(accounting.second_opinion(event, plan.delta))
    return entry


def _second(opinion: accounting.SecondOpinion) -> dict[str, Any]:
    """The second accountant's value with its name; or ``None``, and always the reason why it is not PRV's."""
    if not math.isfinite(opinion.upper):
        reason = opinion.reason or "the accountant gives no finite epsilon"
        return {"second_opinion": None, "second_opinion_reason": reason}
    stated = {name: getattr(opinion, name) for name in ("accountant", "lower", "estimate", "upper")}
    stated["error"] = (opinion.upper - opinion.lower) / 2
    return {"second_opinion": stated, "second_opinion_reason": opinion.reason or None}


def _accountants(plan: PrivacyPlan, public: Mapping[str, Any]) -> dict[str, Any]:
    """Who computed what: the name of the second one is that of the opinion against the public."""
    name = (public["second_opinion"] or {}).get("accountant", "PRV")
    packages = {"first": "dp-accounting", "second": "dp-accounting" if name == "RDP" else "opacus"}
    names = {"first": _first(plan), "second": name}
    return {which: {"name": names[which], "package": p, "version": version(p)} for which, p in packages.items()}


def _first(plan: PrivacyPlan) -> str:
    return accounting.first_accountant(plan.event("public", 1))
