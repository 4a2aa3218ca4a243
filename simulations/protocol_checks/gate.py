"""What a site asks before it works on a message: who signed, against whom a run protects, what it costs."""

from __future__ import annotations

import datetime
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from client.ledger import Ledger
from client.policy import Policy
from client.session import Session
from common import wire
from common.announcement import announcement
from common.config import Scenario, build_scenario
from common.errors import FedembedError
from common.evaluation.conformance import Finding
from common.secagg.keys import Identity
from common.table import RowDomain
from common.units import ClientStore, Units

_DOMAIN, _OTHER_DOMAIN = RowDomain(("wa", "wb")), RowDomain(("wa", "wc"))
_IDENTITY, _STRANGER = Identity.fresh(b"c".__mul__), Identity.fresh(b"s".__mul__)
_CODE, _BUNDLE = "a" * 64, b"a bundle"
_PRIVACY: dict[str, Any] = {"mode": "local", "noise_multiplier": 4.0, "l2_clip_norm": 1.0, "delta": 1e-5}
_TERMS: dict[str, Any] = {
    "task": {"family": "word2vec", "dimension": 2},
    "data": {"unit": "client"},
    "privacy": _PRIVACY,
    "federation": {"rounds": 2},
}
_NOON = datetime.datetime(2026, 3, 1, 12)


def fields(domain: RowDomain = _DOMAIN, *, seed: int = 0, run: str = "run", bundle: str = _CODE) -> dict[str, str]:
    """What the honest coordinator signs."""
    scenario = build_scenario({**_TERMS, "seed": seed}).canonical_json()
    return {"run": run, "scenario": scenario, "domain": domain.digest, "bundle": bundle}


def site_knows_its_coordinator() -> list[Finding]:
    """Another signer, a signature of something else, and code that was not signed for: nothing is admitted."""
    honest = _announced()
    attempts = {
        "the announcement as it was signed": (honest, "ready"),
        "nobody's signature": (_announced(signer=None), "coordinator"),
        "a stranger's signature": (_announced(signer=_STRANGER), "coordinator"),
        "another run": (_with(honest, run="another"), "signature"),
        "another scenario": (_with(honest, scenario=fields(seed=1)["scenario"]), "signature"),
        "other rows": (_with(honest, domain=_OTHER_DOMAIN), "signature"),
        "another bundle": (_with(honest, bundle="b" * 64), "signature"),
        "a signature of another announcement": (_with(honest, signature=_signed(fields(run="x"))), "signature"),
        "signed for code that does not run here": (_announced(bundle="b" * 64), "bundle"),
    }
    found = []
    for subject, (payload, expected) in attempts.items():
        with _site(coordinators=(_IDENTITY.public.hex(),)) as site:
            found.append(_finding(subject, _admitted(site, payload), expected))
    return found


def site_keeps_its_policy() -> list[Finding]:
    """Runs against which one limit speaks, and the same runs without it."""
    central = {"privacy": _PRIVACY | {"mode": "central"}}
    attempts: tuple[tuple[dict[str, Any], dict[str, Any], str], ...] = (
        ({}, {}, "ready"),
        ({"modes": ("example",)}, {}, "mode"),
        ({"observers": ("coordinator",), "max_epsilon": 1e6}, central, "observer"),
        ({"observers": ("public",), "max_epsilon": 1e6}, central, "ready"),
        ({"min_noise_multiplier": 4.5}, {}, "noise"),
        ({"secure_aggregation_required": True}, {}, "secure_aggregation"),
        ({"max_message_bytes": 100}, {}, "message_bytes"),
        ({"hours": (13, 18)}, {}, "hours"),
        ({"hours": (8, 13)}, {}, "ready"),
    )
    found = []
    for limits, sections, expected in attempts:
        with _site(**limits) as site:
            found.append(_finding(f"limits {limits}", _admitted(site, _announced(**sections)), expected))
    return found


def site_looks_at_every_message() -> list[Finding]:
    """A round that is asked for after closing time, and one whose message is larger than the policy takes in."""
    most = _announced().size_bytes
    with _site(hours=(8, 13), max_message_bytes=most) as site:
        before = _admitted(site, _announced())
        large = _answered(site, {"zeros": np.zeros(most, np.uint8)})
        site.now = lambda: _NOON.replace(hour=14)
        late = _answered(site, {})
    found = [_finding("at noon", before, "ready"), _finding("a round at two", late, "hours")]
    return [*found, _finding("a large message", large, "message_bytes")]


def site_counts_what_it_spent() -> list[Finding]:
    """Runs that fit one by one: together they are over the limit, of the account or of a period."""
    with _site() as site:
        _admitted(site, _announced())
        cost = _spent(site)
    found = []
    attempts: tuple[tuple[dict[str, Any], str], ...] = (
        ({"max_epsilon": cost * 1.1}, "budget"),
        ({"max_epsilon_per_period": cost * 1.1}, "period"),
    )
    for limits, expected in attempts:
        with _site(**limits) as site:
            answers = [_admitted(site, _announced(run=run)) for run in ("first", "second")]
            found.append(_finding(f"limits {sorted(limits)}", " ".join(answers), f"ready {expected}"))
    return found


def site_counts_rounds_of_old_runs() -> list[Finding]:
    """Two runs admitted in two periods, whose rounds are asked for in a third: they do not both fit it."""
    days = [80]
    with _site(days=days) as site:
        _admitted(site, _announced())
        cost = _spent(site)
    found = []
    limits = {"max_epsilon_per_period": cost * 1.1, "period_days": 30}
    with _site(days=days, **limits) as site, tempfile.TemporaryDirectory() as folder:
        site.state_dir = Path(folder)
        for run, ago in (("first", 80), ("second", 40)):
            days[0] = ago
            found.append(_finding(f"{run}, {ago} days ago", _admitted(site, _announced(run=run)), "ready"))
        days[0] = 0
        for run, attempt, expected in (("first", 1, "done"), ("second", 1, "period"), ("first", 2, "period")):
            _admitted(site, _announced(run=run))
            found.append(_finding(f"a round of the {run}", _round(site, run, attempt), expected))
    return found


def site_asks_again_what_has_changed() -> list[Finding]:
    """What was allowed is asked of a later process whose policy has changed, and of accounts that have filled up."""
    found = []
    with _site() as site, tempfile.TemporaryDirectory() as folder:
        site.state_dir = Path(folder)
        for run in ("first", "second"):
            _admitted(site, _announced(run=run, federation={"rounds": 6}))
        cost = _spent(site)
        found.append(_finding("nothing has changed", _later(site, {}), "done"))
        found.append(_finding("another mode", _later(site, {"modes": ("example",)}), "mode"))
        found.append(_finding("a limit that is too low by now", _later(site, {"max_epsilon": cost * 0.99}), "budget"))
        found.append(_finding("a limit that is not", _later(site, {"max_epsilon": cost * 1.01}, attempt=2), "done"))
        site.policy = Policy.permissive()
        _admitted(site, _announced(run="third"))
        found.append(_finding("more spent", _later(site, {"max_epsilon": cost * 1.01}, attempt=3), "budget"))
    return found


def _later(site: Session, limits: dict[str, Any], *, attempt: int = 1) -> str:
    """A round of the first run, for a process that finds this policy; the checks come before its table is read."""
    site.policy, site.admitted = Policy.model_validate(Policy.permissive().model_dump() | limits), None
    try:
        return str(site.served(wire.Payload({"run": "first"}), _charged(site, attempt)).config.get("code", "done"))
    except Exception as error:  # a site whose check is left out may fail in any way
        return type(error).__name__


def _charged(site: Session, attempt: int) -> Callable[[Any, wire.Payload], wire.Payload]:
    def answer(admitted: Any, payload: wire.Payload) -> wire.Payload:
        site.charge(admitted, np.array([0]), replace(_first_round(), attempt=attempt))
        return wire.Payload({})

    return answer


class _OneClient:
    """One client with one text that is not there."""

    def store(self, scenario: Scenario, domain: RowDomain | None) -> ClientStore:
        return ClientStore(("a",), np.zeros(2, np.int64), Units(np.array([0]), {}))

    def fingerprints(self, store: ClientStore) -> tuple[str, ...]:
        return ("account",)


@contextmanager
def _site(*, days: list[int] | None = None, **limits: Any) -> Iterator[Session]:
    ago = days if days is not None else [0]

    def today() -> str:
        return (datetime.date.today() - datetime.timedelta(days=ago[0])).isoformat()

    with tempfile.TemporaryDirectory() as name, Ledger.open(Path(name) / "ledger.sqlite", today=today) as ledger:
        policy = Policy.model_validate(Policy.permissive().model_dump() | limits)
        yield Session(_OneClient(), ledger, policy, bundle=_CODE, now=lambda: _NOON)


def _signed(named: dict[str, str], signer: Identity = _IDENTITY) -> str:
    return signer.sign(announcement(**named)).hex()


def _announced(
    *, signer: Identity | None = _IDENTITY, run: str = "run", bundle: str = _CODE, **sections: Any
) -> wire.Payload:
    scenario = build_scenario({**_TERMS, **sections}).canonical_json()
    named = {"run": run, "scenario": scenario, "domain": _DOMAIN.digest, "bundle": bundle}
    signed = {} if signer is None else {"signer": signer.public.hex(), "signature": _signed(named, signer)}
    domain = wire.encode_domain(_DOMAIN)
    config = {"run": run, "scenario": scenario, "coordinator": "anybody", "bundle": bundle, **domain.config, **signed}
    return wire.Payload(config, domain.arrays)


def _with(payload: wire.Payload, *, domain: RowDomain = _DOMAIN, **config: str) -> wire.Payload:
    rows = wire.encode_domain(domain)
    return replace(payload, config={**payload.config, **rows.config, **config}, arrays=rows.arrays)


def _admitted(site: Session, payload: wire.Payload) -> str:
    """``ready``, the code of a refusal, or the name of an error."""
    try:
        reply = site.prepare(payload)
    except Exception as error:  # a site whose check is left out may fail in any way
        return type(error).__name__
    return str(reply.config.get("code", reply.config["status"]))


def _answered(site: Session, arrays: dict[str, Any]) -> str:
    """What a message of a round is answered, or the name of an error: it says nothing that a node could work on."""
    try:
        return str(site.train(wire.Payload({"run": "run"}, arrays)).config.get("code"))
    except FedembedError as error:
        return type(error).__name__


def _round(site: Session, run: str, attempt: int = 1) -> str:
    """What is answered to a round whose message names nobody's table: the site's checks come before it is read."""
    admitted = site.admitted
    if admitted is None or admitted.run != run:
        return "not admitted"
    try:
        site.charge(admitted, np.array([0]), replace(_first_round(), attempt=attempt))
    except Exception as error:
        return str(getattr(getattr(error, "refusal", None), "code", type(error).__name__))
    return "done"


def _first_round() -> Any:
    """The first attempt at the first round."""
    from client.answers import Asked

    return Asked(1, 1, np.array([0]))


def _spent(site: Session) -> float:
    plan = site._admitted().work.plan
    return site.ledger.epsilon("account", plan.unit, plan.delta)


def _finding(subject: str, got: str, expected: str) -> Finding:
    return Finding("P", subject, f"{got}, must be {expected}", got == expected)


GATE = (
    site_knows_its_coordinator,
    site_keeps_its_policy,
    site_looks_at_every_message,
    site_counts_what_it_spent,
    site_counts_rounds_of_old_runs,
    site_asks_again_what_has_changed,
)
