"""The claim of a release as JSON, complete enough that anyone can recompute every epsilon in it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import ROUND_CEILING, Context
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from common.errors import PrivacyConfigError
from common.privacy import accounting

if TYPE_CHECKING:
    from common.privacy.plan import PrivacyPlan

FORMAT = 1
WEAK_EPSILON = 10.0  # from here on the claim says in words how little it means
OBSERVERS = ("coordinator", "other_clients", "public")
_TEST_MODE = "test mode: noise and sampling come from a public seed and can be subtracted"
_UNPROTECTED = {
    "none": "mode none adds no noise",
    "central": "the coordinator sees updates before the noise: it is trusted",
}


def make_claim(plan: PrivacyPlan, rounds_released: int) -> dict[str, Any]:
    """The claim after ``rounds_released`` rounds; plain JSON, ``None`` where no epsilon can be claimed."""
    observers = {observer: _observer(plan, observer, rounds_released) for observer in OBSERVERS}
    return {
        "format": FORMAT,
        "sentence": _sentence(plan, observers["public"]["epsilon"]),
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
        "observers": observers,
        "accountants": {
            "first": {"name": "PLD", "package": "dp-accounting", "version": version("dp-accounting")},
            "second": {"name": "PRV", "package": "opacus", "version": version("opacus")},
        },
        "mechanism": _mechanism(plan),
        "sampler": _sampler(plan),
        "public": _public(plan),
        "not_covered": _not_covered(plan),
        "plan_digest": plan.digest,
    }


def plan_of(claim: Mapping[str, Any]) -> PrivacyPlan:
    """The plan that a stored claim describes.

    Raises:
        PrivacyConfigError: a field is missing or of the wrong kind, or the accountant's answer is no upper bound.
    """
    from common.privacy.plan import PrivacyPlan

    first = _field(_field(claim, "accountants", dict), "first", dict).get("name")
    if _field(claim, "format", int) != FORMAT or first != "PLD":
        raise PrivacyConfigError(
            f"only claims of format {FORMAT} by the accountant PLD are accepted, not by {first!r} (the GDP "
            "approximation, for one, reports too small an epsilon)"
        )
    mechanism, sampler = _field(claim, "mechanism", dict), _field(claim, "sampler", dict)
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
    )


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
    found = [] if plan.digest == claim.get("plan_digest") else ["the digest is not that of the plan described"]
    found += _wording_problems(plan, claim)
    if rounds < 1:
        found.append("the claim counts no released round")
    if _field(claim, "void", bool) != (plan.test_mode or plan.mode == "none"):
        found.append("the claim says the wrong thing about being void")
    costs = recompute(claim)
    if set(costs) != set(OBSERVERS):
        found.append("the claim does not speak about exactly the known observers")
    for name in sorted(set(costs) & set(OBSERVERS)):
        entry = claim["observers"][name]
        if accounting.event_to_json(plan.event(name, rounds)) != entry["event"]:
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
        "sentence": _sentence(plan, number),
        "public": _public(plan),
        "not_covered": _not_covered(plan),
        "mechanism": _mechanism(plan),
        "sampler": _sampler(plan),
    }
    return [
        f"the field {name!r} is not what follows from the plan"
        for name, value in expected.items()
        if claim.get(name) != value
    ]


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


def _observer(plan: PrivacyPlan, observer: str, rounds: int) -> dict[str, Any]:
    event = plan.event(observer, rounds)
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
    }
    if reason is None:
        value, second = accounting.epsilon(event, plan.delta), accounting.second_opinion(event, plan.delta)
        entry["epsilon"] = value if math.isfinite(value) else None
        entry["reason"] = None if math.isfinite(value) else "too little noise: the accountant gives no finite epsilon"
        if math.isfinite(value):
            entry["tpr_at_fpr"] = {str(fpr): accounting.tpr_bound(value, plan.delta, fpr) for fpr in (0.001, 0.01, 0.1)}
        if math.isfinite(second.upper):
            entry["second_opinion"] = {
                "lower": second.lower,
                "estimate": second.estimate,
                "upper": second.upper,
                "error": (second.upper - second.lower) / 2,
            }
    return entry


def _sentence(plan: PrivacyPlan, value: float | None) -> str:
    if plan.test_mode:
        return "NOT PRIVATE: made in test mode, with noise from a public seed."
    if plan.mode == "none" or value is None:
        return "NOT PRIVATE: no noise was added."
    whom = "anyone but the coordinator" if plan.mode == "central" else "anyone, the coordinator included"
    what = "one client" if plan.unit_is_client else f"one {plan.unit} of a client"
    zeroed = plan.adjacency.startswith("zero")
    act = "replacing the updates of one client by zero" if zeroed else f"adding or removing {what}"
    shown, delta = rounded_up(value), rounded_up(plan.delta)
    return (
        f"For {whom}, {act} changes the probability of any outcome of all released rounds by a factor of at most "
        f"e^{shown}, but for a probability of {delta} (epsilon = {shown}, delta = {delta})."
    ) + (_weakness(value, plan.delta) if value > WEAK_EPSILON else "")


def _weakness(value: float, delta: float) -> str:
    found = math.floor(1000 * accounting.tpr_bound(value, delta, 0.01)) / 10
    return f" WEAK: an attack that errs on 1 % of the others may find {found:g} % of the units."


def rounded_up(value: float) -> str:
    """Four significant digits, never below the value: a claim must not shrink on its way into a sentence."""
    return f"{float(Context(prec=4, rounding=ROUND_CEILING).create_decimal(repr(value))):.4g}"


def _mechanism(plan: PrivacyPlan) -> dict[str, Any]:
    where = {
        "none": "nowhere",
        "central": "coordinator",
        "local": "client, once a round",
        "example": "client, every step",
    }
    return {
        "name": plan.mechanism,
        "noise_added": where[plan.mode],
        "noise_multiplier": plan.noise_multiplier,
        "l2_clip_norm": plan.l2_clip_norm if math.isfinite(plan.l2_clip_norm) else None,
        "noise_stddev": plan.noise_stddev,
        "test_mode": plan.test_mode,
        "random_source": "public seed" if plan.test_mode else "AES-256-CTR keyed by the operating system",
    }


def _sampler(plan: PrivacyPlan) -> dict[str, Any]:
    return {
        "clients": plan.sampling,
        "client_rate": plan.rate,
        "amplification_by_client_sampling": plan.amplified,
        "units": "poisson" if plan.mode == "example" else "all",
        "unit_rate": plan.unit_rate,
        "local_steps": plan.local_steps,
    }


def _public(plan: PrivacyPlan) -> list[str]:
    known = [
        "the configuration of the run",
        "the row domain (its keys and frequencies)",
        "the divisor of the sum, and what follows from it",
    ]
    if not (plan.mode == "central" and plan.unit_is_client):
        known.append("which clients took part in which round")
    return known


def _not_covered(plan: PrivacyPlan) -> list[str]:
    gaps = [
        "other runs and other releases on the same data: the client's ledger adds them up",
        "choices made by looking at private data before this run, such as tuning",
        "what the data of the other units tells about a unit (attributes, correlations)",
        "message sizes, timing and network addresses",
        "attacks on floating-point arithmetic, but for the rounding of all noise to a public grid",
    ]
    if not plan.unit_is_client:
        gaps.append(f"a person whose data forms several units ({plan.unit}), or lies with several clients")
    if plan.mode == "central":
        gaps.append("the coordinator, who sees every client's update; and anyone who breaks into it")
    if plan.amplified:
        gaps.append("an observer who learns which clients were drawn or how many answered: do not publish either")
    return [*gaps, "which clients there are, and which of them were held out for evaluation: both are taken as given"]
