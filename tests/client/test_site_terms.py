"""What a site refuses before it reserves a run, what it leaves on its disk, and what it never writes into its log."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

import pytest

from client import app
from client.device import Device
from client.gate import check_cohort
from client.node import HALF_WRITTEN_S, KEPT_ENCODED, SiteSource, open_session
from client.policy import Policy
from client.session import Session
from client.store import load_store
from common.config import DataConfig, Scenario, build_scenario
from common.privacy.grid import SecureSum
from common.table import RowDomain
from common.work import work_for
from tests.client.test_session import DOMAIN, Given, preparation, scenario, session

SECURE = {"rounds": 2, "secure_aggregation": "full", "min_clients": 4, "max_clients": 6}


def secure(**federation: object) -> Scenario:
    privacy = {"mode": "distributed", "noise_multiplier": 4.0, "l2_clip_norm": 1.0, "delta": 1e-5}
    return scenario(privacy=privacy, task={"family": "spectral", "dimension": 2}, federation={**SECURE, **federation})


def plan_of(which: Scenario) -> SecureSum:
    found = work_for(which, DOMAIN).plan.secure
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        ({}, None),
        ({"min_cohort": 4, "min_survivors": 4}, None),
        ({"min_cohort": 5}, "min_cohort"),
        ({"min_survivors": 5}, "min_survivors"),
        ({"roster_required": True}, "roster"),
    ],
)
def test_a_site_that_would_refuse_every_round_refuses_the_run(
    tmp_path: Path, limits: dict[str, object], code: str | None
) -> None:
    which = secure()
    policy = Policy.permissive().model_copy(update=limits)
    refusal = check_cohort(policy, plan_of(which))
    assert (refusal.code if refusal else None) == code
    node = session(tmp_path, which, policy)
    reply = node.prepare(preparation(which))
    assert reply.config.get("code") == code
    assert bool(list(node.ledger.accounts())) is (code is None)


def test_a_site_in_no_roster_takes_no_part_in_a_run_that_counts_on_one(tmp_path: Path) -> None:
    which = secure(roster="roster.json", min_clients=5)
    node = session(tmp_path, which)
    assert node.party is None
    assert node.prepare(preparation(which)).config["code"] == "roster"
    assert not list(node.ledger.accounts())


@pytest.fixture
def source(tmp_path: Path) -> SiteSource:
    (tmp_path / "texts.txt").write_text("wa wb wc wd\n" * 20)
    (tmp_path / "state").mkdir()
    return SiteSource("north", DataConfig(reader="text", path=str(tmp_path / "texts.txt")), tmp_path / "state")


def test_few_encoded_copies_of_the_data_are_kept(source: SiteSource) -> None:
    which = scenario()
    for k in range(KEPT_ENCODED + 3):
        source.store(which, RowDomain((*DOMAIN.keys, f"w{k}")))
    kept = sorted(source.state_dir.glob("encoded-*.npz"))
    assert len(kept) == KEPT_ENCODED
    before = [path.stat().st_ino for path in kept]
    source.store(which, RowDomain((*DOMAIN.keys, f"w{KEPT_ENCODED + 2}")))
    assert [path.stat().st_ino for path in kept] == before, "the latest is read again, and not made"
    assert all(len(load_store(path)) == 1 for path in kept)


def test_a_form_of_the_data_that_is_used_stays_before_one_that_is_newer(source: SiteSource) -> None:
    which = scenario()
    source.store(which, DOMAIN)
    (used,) = source.state_dir.glob("encoded-*.npz")
    for k in range(KEPT_ENCODED + 1):
        then = time.time() - 1000 + k
        for path in source.state_dir.glob("encoded-*.npz"):
            if path != used:
                os.utime(path, (then, then))
        source.store(which, DOMAIN)
        source.store(which, RowDomain((*DOMAIN.keys, f"w{k}")))
    assert used.exists()
    assert len(list(source.state_dir.glob("encoded-*.npz"))) == KEPT_ENCODED


@pytest.mark.parametrize(("age_s", "kept"), [(60.0, True), (HALF_WRITTEN_S + 60, False)])
def test_what_a_killed_process_left_half_written_goes(source: SiteSource, age_s: float, kept: bool) -> None:
    partial = source.state_dir / ".encoded-x.npz.1.partial"
    partial.write_bytes(b"some of the data")
    then = time.time() - age_s
    os.utime(partial, (then, then))
    source.store(scenario(), DOMAIN)
    assert partial.exists() is kept


def test_the_text_of_an_error_that_nobody_foresaw_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    def broken(record: str) -> None:
        {}[record]

    with caplog.at_level(logging.DEBUG, logger="fedembed.client"):
        try:
            broken("patient 4711 has X")
        except KeyError as error:
            app._logged(error)
    assert "4711" not in caplog.text
    assert "KeyError at test_site_terms.py" in caplog.text and "broken" in caplog.text


def test_a_policy_with_no_limit_written_into_it_refuses_a_run_that_costs_nothing(tmp_path: Path) -> None:
    which = build_scenario(
        {
            **scenario().model_dump(),
            "privacy": {"mode": "local", "noise_multiplier": 1e5, "l2_clip_norm": 1.0, "delta": 1e-5},
        }
    )
    node = Session(
        Given(work_for(which, DOMAIN)), session(tmp_path, which).ledger, Policy(max_epsilon=0.0, min_cohort=2)
    )
    assert node.prepare(preparation(which)).config["code"] == "epsilon"


def test_what_a_site_has_decided_reaches_the_process_that_serves_it(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("wa wb wc wd\n")
    (tmp_path / "site.toml").write_text('name = "north"\n[data]\nreader = "text"\npath = "texts.txt"\n')
    (tmp_path / "policy.toml").write_text("max_epsilon = 3.0\n")
    forgotten = tmp_path / "state" / "secagg-x.bin"
    forgotten.parent.mkdir()
    forgotten.write_bytes(b"secrets of a round that broke off")
    os.utime(forgotten, (1.0, 1.0))
    node = {"site": str(tmp_path / "site.toml"), "policy": str(tmp_path / "policy.toml")}
    made = open_session({**node, "state-dir": str(tmp_path / "state"), "device": "cuda", "gpu-memory-mib": 100}, {})
    assert made.device == Device("cuda", 100, or_cpu=True)
    assert made.policy.max_epsilon == 3.0
    assert made.accounts == made.source.fingerprints(made.source.store(scenario(), DOMAIN))
    assert not forgotten.exists(), "whatever the message is about"
