"""Records of audits, made up."""

from __future__ import annotations

import functools
from typing import Any

from common.evaluation.report.audit_page import write_audit_page
from common.evaluation.report.audit_record import AuditRecord
from tests.common.report._pages import certificate, text_of

REASON = "none of 4 tests rejects epsilon = 2.99591 at delta = 1e-06"


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
        "supplementary": False,
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
        "noticed": 2.0,
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


def quality(**changes: Any) -> dict[str, Any]:
    """A figure of quality of one run."""
    return {
        "run": "audited",
        "epsilon": 2.99591,
        "task": "similarity:pairs.tsv",
        "metric": "spearman",
        "value": 0.51234,
        "ci_low": 0.43017,
        "ci_high": 0.59028,
        "n": 203,
        "coverage": 0.57143,
        "higher_is_better": True,
        "baseline_name": "random table",
        "baseline_value": 0.01234,
        **changes,
    }


BARE = quality(run="unprotected", epsilon="inf", value=0.61122, ci_low=0.54033, ci_high=0.67044)
SPEND = tuple({"round": k, "epsilon": {"public": e, "other_clients": e}} for k, e in ((2, 1.98765), (4, 2.99591)))
MAP = {
    "keys": ["one", "two", "three", "four"],
    "x": [0.1, -1.5, 1.25, 0.5],
    "y": [1.0, -0.25, 0.5, -2.0],
    "variance_share": 0.40832,
}


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
        "views": [view(), view(view="table", observer="public", noticed=None, tests=[line(detectable=None)])],
        "leaks": list(LEAKS),
        "not_run": [{"attack": "links", "sees": "table", "reason": "it needs pairs of rows"}],
        "conformance": [
            {"test": "T1", "subject": "over-norm", "statistic": "moves 1.0000 C, bound 1", "holds": True},
            {"test": "T2", "subject": "table words", "statistic": "sd ratio 1.002, p = 0.4", "holds": True},
        ],
        "spend": SPEND,
        "quality": [quality(), BARE],
        "map": MAP,
        "settings": {"canaries": 1000, "seed": 8123456789012345678, "clients": 60},
        "not_covered": ["An audit tries attacks; it cannot show that none exists."],
        "seconds": 41.7,
    }
    return AuditRecord.model_validate({**content, **changes})


def audit_of_release(**changes: Any) -> AuditRecord:
    """The audit of a folder: no canaries, no unprotected control."""
    identity = {**audit().identity.model_dump(), "kind": "release", "audited": "runs/first/release"}
    leaks = [{**leak, "control_value": None} for leak in LEAKS if leak["sees"] == "table"]
    found: dict[str, Any] = {
        "quality": [quality(run="released")],
        "identity": identity,
        "outcome": "INCONCLUSIVE",
        "views": [],
        "leaks": leaks,
        "reason": "no canary was in",
    }
    return audit(**{**found, "settings": {"canaries": 0, "seed": 0}, **changes})


RECORDS = {"scenario": audit, "release": audit_of_release}
UNPICTURED: dict[str, Any] = {"spend": (), "quality": (), "map": None}


@functools.cache
def drawn(kind: str) -> str:
    """The page of a made-up audit; drawing takes most of its time, so it is done once."""
    return write_audit_page(RECORDS[kind]())


def first_part(html: str) -> str:
    """What the privacy officer reads, as text."""
    return text_of(html).split("For engineers")[0]
