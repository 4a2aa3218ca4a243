"""Check a certificate from its own events, against the scenario that it belongs to, and against the history."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any

from common.errors import ReleaseError
from common.release.checks import Check, guarded

if TYPE_CHECKING:
    from common.config import Scenario
    from common.privacy.plan import PrivacyPlan

# Recomputing on another machine may move the accountant's last digits, nothing more.
RELATIVE_TOLERANCE = 1e-3


def check_claim(
    certificate: Any, scenario: Mapping[str, Any], rounds: Sequence[Mapping[str, Any]], *, row_counts: Set[int]
) -> Iterator[Check]:
    """Yield every check of a certificate; a void one also yields a warning, whatever else holds.

    Args:
        row_counts: how many rows the tables of the release have; empty for encoders.
    """
    if not isinstance(certificate, Mapping):
        yield Check("certificate", False, "certificate.json does not hold an object")
        return
    if certificate.get("void") is not False:
        reason = certificate.get("void_reason") or "it does not say why"
        yield Check("VOID", True, f"this release makes no privacy claim: {ascii(reason)[1:-1]}", warning=True)
    yield guarded("epsilon recomputed from events", lambda: _recomputed(certificate))
    yield guarded("second accountant", lambda: _second_opinion(certificate))
    yield guarded("claim agrees with the scenario", lambda: _as_configured(certificate, scenario))
    if certificate.get("secure_sum") is not None:
        yield guarded("claim agrees with the tables", lambda: _as_large(certificate, scenario, row_counts))
    yield guarded("claim agrees with the history", lambda: _as_run(certificate, rounds))


def refuse_unsound(certificate: Mapping[str, Any]) -> None:
    """Raise ``ReleaseError`` if a claim does not follow from its own events: it must not be published."""
    from common.privacy.claim import problems

    found = problems(certificate)
    if found:
        raise ReleaseError(
            f"the certificate does not hold: {'; '.join(found)}",
            remedy="Write the dictionary that PrivacyPlan.claim returned, unchanged.",
        )


def _recomputed(certificate: Mapping[str, Any]) -> str:
    from common.privacy.accounting import event_to_json
    from common.privacy.claim import plan_of, problems, recompute

    stated = plan_of(certificate)
    for name, entry in certificate["observers"].items():
        # First, because an invented list of events could keep the accountant busy for ever.
        event = stated.event(name, certificate["rounds_released"], certificate["selections_released"])
        if entry["event"] != event_to_json(event):
            raise ReleaseError(f"against {name!a} the events are not those of the stated noise, sampling and rounds")
    found = problems(certificate, tolerance=RELATIVE_TOLERANCE)
    if found:
        raise ReleaseError("; ".join(found))
    costs = recompute(certificate)
    if certificate["void"]:
        return "no epsilon is stated, as it must be for a void certificate"
    words = {n: f"{e:.4f}" if math.isfinite(e) else "no protection" for n, e in costs.items()}
    return ", ".join(f"{name}: {word}" for name, word in sorted(words.items()))


def _second_opinion(certificate: Mapping[str, Any]) -> str:
    """The stated lower bound of the second accountant must not exceed the claim, for then the claim is too small."""
    seen = 0
    for name, entry in certificate["observers"].items() if isinstance(certificate.get("observers"), dict) else ():
        second, stated = (entry.get(k) if isinstance(entry, dict) else None for k in ("second_opinion", "epsilon"))
        if second is None or stated is None:
            continue
        lower = second.get("lower") if isinstance(second, dict) else None
        if not isinstance(lower, (int, float)) or not isinstance(stated, (int, float)):
            raise ReleaseError(f"the second accountant's value against {name!a} is not a number")
        if lower > stated * (1 + RELATIVE_TOLERANCE):
            raise ReleaseError(f"against {name!a} the second accountant finds at least {lower:.4f}")
        seen += 1
    return f"agrees against {seen} observers" if seen else "nothing to compare"


def _as_configured(certificate: Mapping[str, Any], raw: Mapping[str, Any]) -> str:
    from common.config import build_scenario
    from common.privacy.claim import plan_of

    stated, scenario = plan_of(certificate), build_scenario(raw)
    derived = dataclasses.replace(_plan_with_noise_of(scenario, stated), target_epsilon=scenario.privacy.epsilon)
    wanted, found = dataclasses.asdict(derived), dataclasses.asdict(stated)
    different = [name for name in wanted if wanted[name] != found[name]]
    if scenario.privacy.noise_multiplier not in (None, stated.noise_multiplier):
        different.append("noise_multiplier")
    if different:
        raise ReleaseError(
            f"the scenario gives another {', '.join(sorted(set(different)))} than the certificate states"
        )
    _refuse_overspent(certificate, scenario.privacy.epsilon)
    return "mode, unit, delta, clip, sampling, rounds and budget are those of the scenario"


def _plan_with_noise_of(scenario: Scenario, stated: PrivacyPlan) -> PrivacyPlan:
    """The scenario's own plan, but at the stated noise: calibrating again would differ in the last digit."""
    from common.privacy.plan_sizing import sized
    from common.work import work_for

    if scenario.privacy.mode != "none":
        noise = {"epsilon": None, "noise_multiplier": stated.noise_multiplier or None}
        privacy = scenario.privacy.model_copy(update=noise)
        scenario = scenario.model_copy(update={"privacy": privacy})
    plan = work_for(scenario, None).plan
    if stated.secure is None or plan.secure is None:
        return plan
    bits = plan.secure.bits or stated.secure.bits  # left open, they were chosen together with the noise
    plan = dataclasses.replace(plan, secure=dataclasses.replace(plan.secure, bits=bits))
    return sized(plan, stated.secure.dimension, 0 if stated.votes is None else stated.votes.rows)


def _as_large(certificate: Mapping[str, Any], raw: Mapping[str, Any], row_counts: Set[int]) -> str:
    """The dimension of an update enters the sensitivity of a secure sum: it must be that of the released tables."""
    from common.config import build_scenario
    from common.work import work_for

    work, stated = work_for(build_scenario(raw), None), certificate["secure_sum"]["dimension"]
    possible = {work.dimension_of(rows) for rows in row_counts or {0}}
    if stated not in possible:
        raise ReleaseError(f"an update has {sorted(possible)} numbers by the tables, {stated!a} by the certificate")
    if work.plan.votes is not None and certificate["votes"]["rows"] not in row_counts:
        raise ReleaseError("the rows voted on, by the certificate, are not those of the tables")
    return f"updates of {stated} numbers"


def _refuse_overspent(certificate: Mapping[str, Any], budget: float | None) -> None:
    for name, entry in certificate["observers"].items():
        if budget is not None and entry["epsilon"] is not None and entry["epsilon"] > budget * (1 + RELATIVE_TOLERANCE):
            raise ReleaseError(f"against {name} the run spent {entry['epsilon']:.4f} of a budget of {budget:g}")


def _same_number(left: Any, right: Any) -> bool:
    numbers = all(isinstance(value, (int, float)) for value in (left, right))
    return numbers and math.isclose(left, right, rel_tol=1e-6, abs_tol=1e-12)


def _as_run(certificate: Mapping[str, Any], rounds: Sequence[Mapping[str, Any]]) -> str:
    released, stddev = certificate["rounds_released"], certificate["mechanism"]["noise_stddev"]
    if len(rounds) > released:
        raise ReleaseError(f"rounds.json lists {len(rounds)} rounds, the certificate counts {released}")
    for number, entry in enumerate(rounds, start=1):
        noted = entry.get("noise_stddev", stddev)
        if not _same_number(noted, stddev):
            raise ReleaseError(f"round {number} has another noise_stddev than the certificate states")
    spent = rounds[-1].get("epsilon", {}) if rounds else {}
    for name, entry in certificate["observers"].items() if spent else ():
        if entry["epsilon"] is not None and not _same_number(spent.get(name), entry["epsilon"]):
            raise ReleaseError(f"the last round spends another epsilon against {name} than the certificate states")
    return f"{len(rounds)} rounds listed, {released} counted against the budget, noise as stated"
