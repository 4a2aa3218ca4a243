"""The claim of a release as JSON, complete enough that anyone can recompute every epsilon in it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from common.errors import PrivacyConfigError
from common.privacy import accounting

if TYPE_CHECKING:
    from common.privacy.plan import PrivacyPlan

FORMAT = 1
_TEST_MODE = "test mode: noise and sampling come from a public seed and can be subtracted"
_UNPROTECTED = {
    "none": "mode none adds no noise",
    "central": "the coordinator sees updates before the noise: it is trusted",
}


def make_claim(plan: PrivacyPlan, rounds_released: int) -> dict[str, Any]:
    """The claim after ``rounds_released`` rounds; plain JSON, ``None`` where no epsilon can be claimed."""
    from common.privacy.plan import OBSERVERS

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


def recompute(claim: Mapping[str, Any]) -> dict[str, float]:
    """Epsilon per observer, computed afresh from the events of a stored claim (``inf`` where nothing protects).

    Raises:
        PrivacyConfigError: the claim is malformed or names an accountant whose answer is no upper bound.
    """
    first = _field(_field(claim, "accountants", dict), "first", dict).get("name")
    if first != "PLD":
        raise PrivacyConfigError(
            f"the claim was made by the accountant {first!r}; only PLD is accepted (the GDP approximation, for one, "
            "reports too small an epsilon)"
        )
    delta = _field(claim, "delta", float)
    observers = _field(claim, "observers", dict)
    return {
        str(name): accounting.epsilon(accounting.event_from_json(_field(entry, "event", dict)), delta)
        for name, entry in observers.items()
    }


def problems(claim: Mapping[str, Any], *, tolerance: float = 1e-3) -> list[str]:
    """What does not hold in a stored claim, in words; empty when it can be confirmed.

    Args:
        tolerance: relative difference from the recomputed epsilon that counts as equal.

    Raises:
        PrivacyConfigError: as ``recompute``.
    """
    found = []
    void = bool(_field(claim, "void", bool))
    for name, value in recompute(claim).items():
        stated = _field(claim, "observers", dict)[name].get("epsilon")
        if stated is None:
            continue
        if void:
            found.append(f"the claim is void, yet it states an epsilon against {name}")
        elif not isinstance(stated, (int, float)) or not value <= stated * (1 + tolerance):
            found.append(f"against {name} the events cost epsilon {value:.6g}, the claim states {stated!r}")
    return found


def _field(data: Any, name: str, kind: type) -> Any:
    value = data.get(name) if isinstance(data, Mapping) else None
    good = isinstance(value, (int, float)) and not isinstance(value, bool) if kind is float else isinstance(value, kind)
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
        "event": accounting.event_to_json(event),
        "second_opinion": None,
    }
    if reason is None:
        value, second = accounting.epsilon(event, plan.delta), accounting.second_opinion(event, plan.delta)
        entry["epsilon"] = value if math.isfinite(value) else None
        entry["reason"] = None if math.isfinite(value) else "too little noise: the accountant gives no finite epsilon"
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
    act = (
        "replacing the updates of one client by zero"
        if plan.adjacency.startswith("zero")
        else f"adding or removing {what}"
    )
    return (
        f"For {whom}, {act} changes the probability of any outcome of all released rounds by a factor of at most "
        f"e^{value:.4g}, but for a probability of {plan.delta:g} (epsilon = {value:.4g}, delta = {plan.delta:g})."
    )


def _mechanism(plan: PrivacyPlan) -> dict[str, Any]:
    where = {
        "none": "nowhere",
        "central": "coordinator",
        "local": "client, once a round",
        "example": "client, every step",
    }
    return {
        "name": plan.mechanism if plan.mode != "none" else None,
        "noise_added": where[plan.mode],
        "noise_multiplier": plan.noise_multiplier,
        "l2_clip_norm": plan.l2_clip_norm if math.isfinite(plan.l2_clip_norm) else None,
        "noise_stddev": plan.noise_stddev,
        "random_source": "public seed" if plan.test_mode else "AES-256-CTR keyed by the operating system",
    }


def _sampler(plan: PrivacyPlan) -> dict[str, Any]:
    return {
        "clients": plan.sampling,
        "client_rate": plan.rate,
        "amplification_by_client_sampling": plan.amplified,
        "units": "poisson" if plan.mode == "example" else "all",
        "unit_rate": plan.unit_rate if plan.mode == "example" else 1.0,
        "local_steps": plan.local_steps,
    }


def _public(plan: PrivacyPlan) -> list[str]:
    known = ["the configuration of the run", "the row domain (its keys and frequencies)", "the divisor of the sum"]
    if not (plan.mode == "central" and plan.unit_is_client):
        known.append("which clients took part in which round")
    return known


def _not_covered(plan: PrivacyPlan) -> list[str]:
    gaps = [
        "other runs and other releases on the same data: the client's ledger adds them up",
        "choices made by looking at private data before this run, such as tuning",
        "what the data of the other units tells about a unit (attributes, correlations)",
        "message sizes, timing and network addresses",
        "attacks on floating-point arithmetic: the noise is continuous noise rounded to float32",
    ]
    if not plan.unit_is_client:
        gaps.append(f"a person whose data forms several units ({plan.unit}), or lies with several clients")
    if plan.mode == "central":
        gaps.append("the coordinator, who sees every client's update; and anyone who breaks into it")
    if plan.amplified:
        gaps.append("an observer who learns which clients were drawn or how many answered: do not publish either")
    return gaps
