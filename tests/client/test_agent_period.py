"""What a site spends in a period, whatever was admitted before it; and how long it works on one message."""

from __future__ import annotations

import datetime
import faulthandler
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from client import gate
from client.agent.task import end_after
from client.ledger import Ledger, Reservation
from client.policy import Policy, Refusal
from common.config import build_scenario
from common.errors import TimeLimitError
from common.privacy.accounting import event_to_json
from common.privacy.plan import PrivacyPlan
from common.table import RowDomain
from common.work import work_for

TERMS = {
    "task": {"family": "word2vec", "dimension": 2},
    "data": {"unit": "client"},
    "privacy": {"mode": "local", "noise_multiplier": 4.0, "l2_clip_norm": 1.0, "delta": 1e-5},
    "federation": {"rounds": 2},
}


def plan() -> PrivacyPlan:
    return work_for(build_scenario(TERMS), RowDomain(("wa",))).plan


def limits_of(**limits: Any) -> Policy:
    return Policy.model_validate(Policy.permissive().model_dump() | limits)


def code_of(refusal: Refusal | None) -> str:
    return "" if refusal is None else refusal.code


def dated(folder: Path, days: list[int]) -> Ledger:
    """A ledger whose clock shows, from call to call, a day so many days ago."""
    today = datetime.date.today()
    return Ledger.open(folder / "dated.sqlite", today=lambda: (today - datetime.timedelta(days=days[0])).isoformat())


def reserve(ledger: Ledger, run: str, rounds: int = 4) -> None:
    terms = plan()
    event, _ = terms.parts("public", terms.rounds)["round"]
    text = json.dumps(event_to_json(event), sort_keys=True)
    ledger.reserve([Reservation("account", terms.unit, run, "c", text, rounds, terms.delta)])


def test_a_period_forgets_and_an_account_does_not(tmp_path: Path) -> None:
    days = [40]
    with dated(tmp_path, days) as ledger:
        reserve(ledger, "old")
        days[0] = 5
        reserve(ledger, "recent")
        terms = plan()
        both = ledger.epsilon("account", terms.unit, terms.delta)
        one = ledger.epsilon("account", terms.unit, terms.delta, since=limits_of(period_days=30).period_begins)
        assert 0 < one < both
        for limit, days_counted, code in ((one, 30, ""), (one * 0.99, 30, "period"), (one, 60, "period"), (0, 3, "")):
            limits = limits_of(max_epsilon=both, max_epsilon_per_period=limit, period_days=days_counted, units=("*",))
            assert code_of(gate.check_account(limits, ledger, terms, "account", {})) == code, (limit, days_counted)
        assert code_of(gate.check_account(limits_of(max_epsilon=one), ledger, terms, "account", {})) == "budget"


def test_runs_admitted_long_ago_are_not_all_worked_on_in_one_week(tmp_path: Path) -> None:
    """Each fits the period in which it is admitted; their rounds, asked for together, do not fit one."""
    days, terms = [80], plan()
    with dated(tmp_path, days) as ledger:
        reserve(ledger, "first")
        days[0] = 40
        reserve(ledger, "second")
        days[0] = 0
        ledger.charge("first", 1, 1, ["account"])
        one = ledger.epsilon("account", terms.unit, terms.delta, since=limits_of(period_days=30).period_begins)
        limits = limits_of(max_epsilon_per_period=one, period_days=30)
        assert gate.check_lately(limits, ledger, terms, "account") is None
        ledger.charge("second", 1, 1, ["account"])
        assert code_of(gate.check_lately(limits, ledger, terms, "account")) == "period"
        assert gate.check_lately(limits_of(), ledger, terms, "account") is None


def test_a_message_ends_after_its_time() -> None:
    before = signal.getsignal(signal.SIGALRM)
    try:
        end_after(None)
        end_after(1)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(TimeLimitError, match="more than the 1 s"):
            time.sleep(5)
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(("mib", "ended"), [(0, False), (512, True), (4096, False)])
def test_a_message_takes_no_more_memory_than_the_site_allows(mib: int, ended: bool) -> None:
    code = f"from client.agent.task import bound_memory; bound_memory({mib}); bytearray(2**30); print('done')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ("MemoryError" in done.stderr, "done" in done.stdout) == (ended, not ended), done.stderr
