"""Records of audits, made up, and a reader of the page."""

from __future__ import annotations

from typing import Any

from common.evaluation.report.audit_record import AuditRecord

REASON = "none of 4 tests rejects epsilon = 2.99591 at delta = 1e-06"


def certificate() -> dict[str, Any]:
    def observer(epsilon: float | None) -> dict[str, Any]:
        return {
            "epsilon": epsilon,
            "reason": None if epsilon else "it is trusted",
            "tpr_at_fpr": {"0.01": 0.20091} if epsilon else None,
            "event": {"event": "gaussian", "noise_multiplier": 2.676455} if epsilon else {"event": "non_private"},
            "second_opinion": {"lower": 2.98101, "estimate": 2.99202, "upper": 3.01303} if epsilon else None,
        }

    return {
        "sentence": "For anyone but the coordinator, epsilon = 2.996.",
        "mode": "central",
        "void": False,
        "void_reason": None,
        "unit": "record",
        "unit_is_client": False,
        "adjacency": "add or remove one unit",
        "delta": 1e-6,
        "target_epsilon": 3.0,
        "observers": {name: observer(2.99591) for name in ("other_clients", "public")}
        | {"coordinator": observer(None)},
        "accountants": {"first": {"name": "PLD"}},
        "not_covered": ["other runs on the same data"],
    }


def line(**changes: Any) -> dict[str, Any]:
    """One test of canaries."""
    return {
        "method": "one_run_fdp",
        "design": "dedicated",
        "bound": 1.23456,
        "estimate": 1.78901,
        "alpha": 0.0125,
        "guesses": 160,
        "right": 131,
        "cap": 6.52345,
        "attainable": 1.67345,
        "detectable": 2.0,
        "refutes": False,
        **changes,
    }


def view(**changes: Any) -> dict[str, Any]:
    """What canaries showed to one adversary."""
    split = [line(design="split"), line(design="split", method="mean_difference", guesses=None, right=None, cap="inf")]
    return {
        "view": "sums",
        "observer": "other_clients",
        "claimed_epsilon": 2.99591,
        "delta": 1e-6,
        "canaries": 1000,
        "outcome": "CONSISTENT",
        "reason": REASON,
        "auc": 0.70234,
        "auc_interval": [0.66123, 0.74256],
        "tpr_at_fpr": {"0.01": 0.04012, "0.1": None},
        "trade_off": {"fpr": [0.0, 0.125, 1.0], "measured": [0.01, 0.34567, 1.0], "claimed": [1e-6, 0.9554, 1.0]},
        "tests": [line(), line(method="mean_difference", detectable=1.41, cap="inf", guesses=None, right=None), *split],
        **changes,
    }


def leak(**changes: Any) -> dict[str, Any]:
    """An attack on real clients."""
    return {
        "attack": "membership",
        "sees": "table",
        "metric": "tpr@0.01:loss",
        "value": 0.01923,
        "ci_low": 0.00234,
        "ci_high": 0.03345,
        "n": 400,
        "chance_name": "coin",
        "chance_value": 0.01167,
        "control_value": 0.41078,
        "promised": True,
        **changes,
    }


LEAKS = (
    leak(),
    leak(metric="auc:loss", value=0.5191, ci_low=0.4702, ci_high=0.5683, chance_value=0.5, control_value=0.9124),
    leak(attack="row_support", sees="updates", metric="f1", value=0.3905, ci_low=None, ci_high=None, chance_value=0.39),
    leak(attack="inversion", metric="f1", value=0.6176, ci_low=0.6037, ci_high=0.6338, promised=False),
)


def audit(**changes: Any) -> AuditRecord:
    """The audit of a scenario in mode central."""
    content: dict[str, Any] = {
        "identity": {
            "audited": "reviews.toml",
            "kind": "scenario",
            "fedembed": "0.1.0",
            "date": "2026-03-01T12:00:00+00:00",
            "scenario": {"task": {"family": "spectral", "dimensions": 48}, "data": {"path": "docs"}},
        },
        "outcome": "CONSISTENT",
        "reason": REASON,
        "claim": {"sentence": certificate()["sentence"], "certificate": certificate()},
        "views": [view(), view(view="table", observer="public", tests=[line(detectable=None)])],
        "leaks": list(LEAKS),
        "not_run": [{"attack": "links", "sees": "table", "reason": "it needs pairs of rows"}],
        "conformance": [
            {"test": "T1", "subject": "over-norm", "statistic": "moves 1.0000 C, bound 1", "holds": True},
            {"test": "T2", "subject": "table words", "statistic": "sd ratio 1.002, p = 0.4", "holds": True},
        ],
        "settings": {"canaries": 1000, "seed": 8123456789012345678, "clients": 60},
        "not_covered": ["An audit tries attacks; it cannot show that none exists."],
        "seconds": 41.7,
    }
    return AuditRecord.model_validate({**content, **changes})


def audit_of_release(**changes: Any) -> AuditRecord:
    """The audit of a folder: no canaries, no unprotected control."""
    identity = {**audit().identity.model_dump(), "kind": "release", "audited": "runs/first/release"}
    leaks = [{**leak, "control_value": None} for leak in LEAKS if leak["sees"] == "table"]
    found = {"identity": identity, "outcome": "INCONCLUSIVE", "views": [], "leaks": leaks, "reason": "no canary was in"}
    return audit(**{**found, "settings": {"canaries": 0, "seed": 0}, **changes})
