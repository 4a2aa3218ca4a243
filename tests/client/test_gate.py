"""The gate: what a site's policy and account refuse of a run, who may ask, and when."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client import gate
from client.ledger import Ledger
from client.policy import Policy, Refusal
from client.session import Session
from common import wire
from common.announcement import announcement
from common.config import Scenario, build_scenario
from common.errors import WireError
from common.secagg.keys import Identity
from common.table import RowDomain
from common.units import ClientStore, Units
from common.work import Work, work_for
from server.sender import Sender

DOMAIN = RowDomain(("wa", "wb", "wc"))
LOCAL = {"mode": "local", "noise_multiplier": 4.0, "l2_clip_norm": 1.0, "delta": 1e-5}
CENTRAL = {"mode": "central", "noise_multiplier": 4.0, "l2_clip_norm": 1.0, "delta": 1e-5}
CODE, OTHER_CODE = "a" * 64, "b" * 64
COORDINATOR, STRANGER = (Identity.fresh(lambda size, letter=letter: letter * size) for letter in (b"c", b"s"))


def scenario(**sections: Any) -> Scenario:
    base = {"task": {"family": "word2vec", "dimension": 2}, "data": {"unit": "client"}, "privacy": LOCAL}
    return build_scenario({**base, "federation": {"rounds": 2}, **sections})


def work(**sections: Any) -> Work:
    return work_for(scenario(**sections), DOMAIN)


def policy(**limits: Any) -> Policy:
    return Policy.model_validate(Policy.permissive().model_dump() | limits)


def announced(
    which: Scenario | None = None, *, signer: Identity | None = COORDINATOR, run: str = "r", code: str = CODE
) -> wire.Payload:
    """A message that asks a site to admit a run."""
    which = which or scenario()
    domain = wire.encode_domain(DOMAIN)
    signed = Sender(signer, code).signed(run, which.canonical_json(), DOMAIN.digest)
    config = {"protocol": wire.PROTOCOL, "run": run, "scenario": which.canonical_json(), "coordinator": "somebody"}
    return wire.Payload({**config, **domain.config, **signed}, domain.arrays)


def code_of(refusal: Refusal | None) -> str:
    return "" if refusal is None else refusal.code


@pytest.mark.parametrize(
    ("limits", "sections", "code"),
    [
        ({"observers": ("coordinator",), "max_epsilon": 1e6}, {"privacy": CENTRAL}, "observer"),
        ({"observers": ("coordinator",), "max_epsilon": 1e6}, {}, ""),
        ({"observers": ("other_clients", "public"), "max_epsilon": 1e6}, {"privacy": CENTRAL}, ""),
        ({"observers": ("public",), "max_epsilon": 0.1}, {}, "epsilon"),
        ({"min_noise_multiplier": 4.0}, {}, ""),
        ({"min_noise_multiplier": 4.001}, {}, "noise"),
        ({"min_noise_multiplier": 0.001}, {"privacy": {"mode": "none"}}, "noise"),
        ({"secure_aggregation_required": True}, {}, "secure_aggregation"),
        ({"secure_aggregation_required": True}, {"privacy": {"mode": "none"}}, "secure_aggregation"),
        ({"max_message_bytes": 999}, {}, "message_bytes"),
        ({"max_message_bytes": 1000}, {}, ""),
    ],
)
def test_what_a_policy_demands_of_a_plan(limits: dict[str, Any], sections: dict[str, Any], code: str) -> None:
    assert code_of(gate.check_run(policy(**limits), work(**sections), 1000)) == code


def test_secure_aggregation_that_is_demanded() -> None:
    distributed = {"mode": "distributed", "noise_multiplier": 2.0, "l2_clip_norm": 1.0, "delta": 1e-3}
    federation = {"rounds": 1, "min_clients": 10, "max_clients": 12, "secure_aggregation": "full"}
    secure = work(privacy=distributed, federation=federation)
    assert gate.check_run(policy(secure_aggregation_required=True), secure, 0) is None
    without = replace(secure, plan=replace(secure.plan, secure=None))
    assert code_of(gate.check_demands(policy(secure_aggregation_required=True), without.plan)) == "secure_aggregation"


def test_a_number_that_is_none_is_refused() -> None:
    plan = replace(work().plan, noise_multiplier=float("nan"))
    assert code_of(gate.check_demands(policy(observers=()), plan)) == "noise"


@pytest.mark.parametrize(
    ("hours", "inside", "outside"),
    [
        ((8, 18), (8, 12, 17), (0, 7, 18, 23)),
        ((20, 6), (20, 23, 0, 5), (6, 12, 19)),
        ((0, 1), (0,), (1, 23)),
        ((18, 24), (18, 23), (0, 17)),
        ((0, 24), (0, 12, 23), ()),
        (None, (0, 12, 23), ()),
    ],
)
def test_hours(hours: tuple[int, int] | None, inside: tuple[int, ...], outside: tuple[int, ...]) -> None:
    limited = policy(hours=hours)
    for hour in (*inside, *outside):
        now = datetime.datetime(2026, 3, 1, hour, 59, 59)
        assert code_of(gate.check_hours(limited, now)) == ("hours" if hour in outside else ""), hour


@pytest.mark.parametrize("hours", [(6, 6), (24, 1), (-1, 5), (1, 25), (1, 0)])
def test_hours_that_are_none(hours: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="hours are two numbers"):
        policy(hours=hours)


def asked(payload: wire.Payload, *, running: str = CODE, trusted: tuple[str, ...] | None = None) -> tuple[str, str]:
    """(who asks, code of the refusal)"""
    trusted = (COORDINATOR.public.hex(),) if trusted is None else trusted
    signer, refusal = gate.check_coordinator(
        policy(coordinators=trusted), payload, wire.decode_domain(payload), running=running
    )
    return signer, code_of(refusal)


def changed(payload: wire.Payload, **config: Any) -> wire.Payload:
    return replace(payload, config={k: v for k, v in {**payload.config, **config}.items() if v is not None})


def test_a_coordinator_that_the_site_works_for() -> None:
    assert asked(announced()) == (COORDINATOR.public.hex(), "")


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (announced(signer=None), "coordinator"),
        (announced(signer=STRANGER), "coordinator"),
        (changed(announced(signer=STRANGER), signer=COORDINATOR.public.hex()), "signature"),
        (changed(announced(), signer=COORDINATOR.public.hex().upper()), "coordinator"),
        (changed(announced(), signature=""), "signature"),
        (changed(announced(), signature="no hexadecimal digits"), "signature"),
        (changed(announced(), signature="00" * 64), "signature"),
        (changed(announced(), run="another"), "signature"),
        (changed(announced(), scenario=scenario(seed=1).canonical_json()), "signature"),
        (changed(announced(), bundle=OTHER_CODE), "signature"),
        (changed(announced(), bundle=None), "signature"),
        (replace(announced(), arrays={}), "signature"),
        (announced(code=OTHER_CODE), "bundle"),
        (announced(code=""), "bundle"),
    ],
)
def test_announcements_that_are_refused(payload: wire.Payload, code: str) -> None:
    assert asked(payload) == ("", code)


def test_a_signature_for_other_rows() -> None:
    other = wire.encode_domain(RowDomain(("wa", "wb", "wd")))
    moved = replace(announced(), config=announced().config | dict(other.config), arrays=other.arrays)
    assert asked(moved) == ("", "signature")


def test_a_signature_that_is_missing_is_a_malformed_message() -> None:
    with pytest.raises(WireError, match="signature"):
        asked(changed(announced(), signature=None))


def test_nobody_may_ask() -> None:
    assert asked(announced(), trusted=()) == ("", "coordinator")


def test_whoever_reaches_a_site_that_names_nobody() -> None:
    """A signature that is there is still looked at: the ledger would name somebody else."""
    anybody = policy(coordinators=None)
    for payload, found in (
        (announced(signer=None), ("", "")),
        (announced(signer=STRANGER), (STRANGER.public.hex(), "")),
        (changed(announced(), run="another"), ("", "signature")),
    ):
        signer, refusal = gate.check_coordinator(anybody, payload, DOMAIN, running=CODE)
        assert (signer, code_of(refusal)) == found


def test_an_announcement_is_canonical_and_binds_every_field() -> None:
    fields = {"run": "r", "scenario": "{}", "domain": "d", "bundle": "b"}
    text = announcement(**fields)
    assert text == announcement(**fields)
    others = {announcement(**{**fields, key: value + "x"}) for key, value in fields.items()}
    shifted = {announcement(**{**fields, "domain": "db", "bundle": ""}), announcement(**{**fields, "run": 'r","'})}
    assert len(others | shifted | {text}) == 7


class Empty:
    """One client without data; whoever looks for it has admitted the run."""

    looked = 0

    def store(self, scenario: Scenario, domain: RowDomain | None) -> ClientStore:
        self.looked += 1
        return ClientStore(("a",), np.zeros(2, np.int64), Units(np.array([0]), {}))

    def fingerprints(self, store: ClientStore) -> tuple[str, ...]:
        return ("account",)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "ledger.sqlite") as opened:
        yield opened


def node(ledger: Ledger, **limits: Any) -> tuple[Session, list[Scenario]]:
    """A site, and the scenarios whose cost it has worked out."""
    planned: list[Scenario] = []

    def noted(which: Scenario, domain: RowDomain | None) -> Work:
        planned.append(which)
        return work_for(which, domain)

    return Session(Empty(), ledger, policy(**limits), work_of=noted, bundle=CODE), planned


@pytest.mark.parametrize(
    ("limits", "payload", "code"),
    [
        ({"coordinators": (STRANGER.public.hex(),)}, announced(), "coordinator"),
        ({"coordinators": (COORDINATOR.public.hex(),)}, changed(announced(), run="s"), "signature"),
        ({"max_message_bytes": 10}, announced(), "message_bytes"),
        ({"hours": (8, 23)}, announced(), "hours"),
        ({"hours": (20, 6)}, announced(), ""),
    ],
)
def test_a_stranger_costs_no_computation(
    ledger: Ledger, limits: dict[str, Any], payload: wire.Payload, code: str
) -> None:
    site, planned = node(ledger, **limits)
    site.now = lambda: datetime.datetime(2026, 3, 1, 23)
    reply = site.prepare(payload)
    assert reply.config.get("code", "") == code
    assert bool(planned) == (code == "") and not (code and list(ledger.accounts()))


def test_who_signed_is_in_the_ledger_whatever_name_the_message_gives(ledger: Ledger) -> None:
    site, _ = node(ledger, coordinators=(COORDINATOR.public.hex(),))
    assert site.prepare(announced()).config["status"] == "ready"
    ((entry, _),) = ledger.accounts()
    assert (entry.coordinator, entry.bundle) == (COORDINATOR.public.hex(), CODE)


def test_a_replayed_announcement_spends_nothing_more(ledger: Ledger) -> None:
    site, _ = node(ledger, coordinators=(COORDINATOR.public.hex(),))
    for _ in range(3):
        assert site.prepare(announced()).config["status"] == "ready"
    assert len(list(ledger.accounts())) == 1


def test_lists_weigh_something() -> None:
    """A limit on messages that overlooks lists is none."""
    assert wire.Payload({"a": "xy", "b": ["xyz", b"z"], "c": [1, 2.0], "d": 5, "e": True}).size_bytes == 2 + 4 + 16
