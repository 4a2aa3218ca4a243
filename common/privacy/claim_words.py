"""The words and facts of a claim: everything in it that follows from the plan without an accountant."""

from __future__ import annotations

import dataclasses
import math
from decimal import ROUND_CEILING, Context
from typing import TYPE_CHECKING, Any

from common.privacy import accounting

if TYPE_CHECKING:
    from common.privacy.grid import SecureSum
    from common.privacy.plan import PrivacyPlan

WEAK_EPSILON = 10.0  # from here on the claim says in words how little it means


def sentence(plan: PrivacyPlan, value: float | None) -> str:
    """The claim against the public in one sentence, with epsilon ``value`` (``None``: nothing protects)."""
    if plan.test_mode:
        return "NOT PRIVATE: made in test mode, with noise from a public seed."
    if plan.mode == "none" or value is None:
        return "NOT PRIVATE: no noise was added."
    whom = "anyone, the coordinator included" if plan.protects("coordinator") else "anyone but the coordinator"
    if plan.protects("coordinator") and plan.secure is not None and not plan.secure.roster:
        whom += " as long as it keeps to the protocol"
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


def mechanism_facts(plan: PrivacyPlan) -> dict[str, Any]:
    """What bounds a contribution and what noise is added."""
    where = {
        "none": "nowhere",
        "central": "coordinator",
        "local": "client, once a round",
        "example": "client, every step",
        "distributed": "every client, a share of it, under the masks of the secure sum",
    }
    return {
        "name": plan.mechanism,
        "noise_added": where[plan.mode],
        "noise_multiplier": plan.noise_multiplier,
        "l2_clip_norm": plan.l2_clip_norm if math.isfinite(plan.l2_clip_norm) else None,
        "noise_stddev": plan.noise_stddev,
        "rows": plan.rows,
        "selection_ratio": plan.selection_ratio,
        "selection_threshold": plan.selection_threshold,
        "test_mode": plan.test_mode,
        "random_source": "public seed" if plan.test_mode else "AES-256-CTR keyed by the operating system",
    }


def secure_sum_facts(plan: PrivacyPlan) -> dict[str, Any] | None:
    """The secure sum of mode distributed: what every party must agree on, and what follows; ``None`` elsewhere."""
    if plan.secure is None:
        return None
    grid = plan.grid
    return {
        **dataclasses.asdict(plan.secure),
        "coordinator": "identities from a signed roster" if plan.secure.roster else "semi-honest coordinator",
        "scale": grid.scale,
        "length": grid.length,
        "rotated": grid.shape.rotated,
        "clamp": grid.clamp,
        "noise_share": grid.share,
        "noise_shares_accounted": plan.secure.honest,
        "l2_sensitivity_in_steps": grid.l2_sensitivity,
        "l1_sensitivity_in_steps": grid.l1_sensitivity,
        "sensitivity_added_by_rounding": grid.inflation,
    }


def votes_facts(plan: PrivacyPlan) -> dict[str, Any] | None:
    """The votes that select rows in mode distributed, and what follows from their terms; ``None`` elsewhere."""
    if plan.votes is None:
        return None
    grid = plan.vote_grid
    return {
        **dataclasses.asdict(plan.votes),
        "noise": "skellam, a share of it by every client on every row",
        "noise_multiplier": plan.vote_multiplier,
        "value_noise_multiplier": plan.value_multiplier,
        "noise_share": grid.share,
        "noise_stddev": grid.stddev,
        "bits": grid.bits,
        "threshold": grid.threshold,
        "accounted": "the noised votes of all rows, seen by the coordinator, and not the selected rows alone",
    }


def sampler_facts(plan: PrivacyPlan) -> dict[str, Any]:
    """How clients and units are drawn."""
    return {
        "clients": plan.sampling,
        "client_rate": plan.rate,
        "amplification_by_client_sampling": plan.amplified,
        "units": "poisson" if plan.mode == "example" else "all",
        "unit_rate": plan.unit_rate,
        "local_steps": plan.local_steps,
    }


def public_facts(plan: PrivacyPlan) -> list[str]:
    """What the guarantee takes to be public."""
    known = [
        "the configuration of the run",
        "the row domain (its keys and frequencies)",
        "the divisor of the sum, and what follows from it",
    ]
    if not (plan.mode == "central" and plan.unit_is_client):
        known.append("which clients took part in which round")
    if plan.secure is not None:
        known.append("who was drawn: the coordinator draws the cohort, so sampling amplifies nothing for anybody")
    return known


def _secure_sum_gaps(secure: SecureSum) -> list[str]:
    gaps = [
        f"an observer who knows the shares of noise of more than {secure.colluders} other clients of a sum, and "
        "clients that leave their share out",
        f"a sum of fewer than {secure.survivors} clients: none may be opened, and clients refuse to help open one",
    ]
    if secure.aggregation == "ideal":
        gaps.append("the coordinator: a simulator added up in the clear what the protocol would have masked")
    elif not secure.roster:
        gaps.append("a coordinator that departs from the protocol or invents clients: no roster vouches for them")
    return gaps


def not_covered(plan: PrivacyPlan) -> list[str]:
    """What the guarantee says nothing about."""
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
    if plan.secure is not None:
        gaps += _secure_sum_gaps(plan.secure)
    if plan.amplified:
        gaps.append("an observer who learns which clients were drawn or how many answered: do not publish either")
    return [*gaps, "which clients there are, and which of them were held out for evaluation: both are taken as given"]
