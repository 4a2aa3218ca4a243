"""A later process of a site takes up a run: what the policy said is asked again where anything of it has changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import client.session as session_module
from client.policy import Policy
from client.session import Session
from common.errors import WireError
from tests.client.test_session import LOCAL, instruction, preparation, scenario, session

CODE, OTHER_CODE = "a" * 64, "b" * 64
WHICH = scenario()


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every time that the policy is asked about the terms of a run."""
    real, times = session_module.check_run, []

    def check_run(*args: Any) -> Any:
        times.append(args)
        return real(*args)

    monkeypatch.setattr(session_module, "check_run", check_run)
    return times


@pytest.fixture
def process(tmp_path: Path) -> Callable[..., Session]:
    """A process of the site, with the policy and the code that it finds."""

    def begin(policy: Policy | None = None, *, bundle: str = CODE) -> Session:
        made = session(tmp_path, WHICH, policy)
        made.state_dir, made.bundle = tmp_path, bundle
        return made

    return begin


def test_the_terms_of_a_run_are_looked_at_once(process: Callable[..., Session], looked_at: list[Any]) -> None:
    assert process().prepare(preparation(WHICH)).config["status"] == "ready"
    assert process().train(instruction(WHICH)).config["status"] == "done"
    assert process().train(instruction(WHICH, round_number=2)).config["status"] == "done"
    assert len(looked_at) == 1


def test_a_policy_that_has_changed_is_asked(process: Callable[..., Session], looked_at: list[Any]) -> None:
    process().prepare(preparation(WHICH))
    strict = Policy.permissive().model_copy(update={"modes": ("distributed",)})
    assert process(strict).train(instruction(WHICH)).config["code"] == "mode"


@pytest.mark.parametrize("bundle", [OTHER_CODE, ""])
def test_other_code_and_code_without_a_hash_ask_again(
    process: Callable[..., Session], looked_at: list[Any], bundle: str
) -> None:
    process(bundle=bundle if not bundle else CODE).prepare(preparation(WHICH))
    process(bundle=bundle).train(instruction(WHICH))
    assert len(looked_at) == 2


@pytest.mark.parametrize("kept", ["run-*.json", "run-*.terms"])
def test_a_file_that_was_altered_or_removed_is_asked_about(
    process: Callable[..., Session], looked_at: list[Any], tmp_path: Path, kept: str
) -> None:
    process().prepare(preparation(WHICH))
    (path,) = tmp_path.glob(kept)
    if path.suffix == ".json":
        path.write_text(path.read_text() + " ")
    else:
        path.unlink()
    assert process().train(instruction(WHICH)).config["status"] == "done"
    assert len(looked_at) == 2


def second_run(seed: int) -> Any:
    """The announcement of another run on the same data."""
    which = scenario(seed=seed)
    announced = preparation(which)
    return which, type(announced)({**announced.config, "run": f"r{seed}"}, announced.arrays)


def test_a_limit_that_is_lowered_below_what_is_spent_stops_what_was_admitted(process: Callable[..., Session]) -> None:
    """Each run is below the new limit, all together are not."""
    one = process()
    one.prepare(preparation(WHICH))
    for seed in (1, 2):
        assert process().prepare(second_run(seed)[1]).config["status"] == "ready"
    admitted = one.admitted
    assert admitted is not None
    plan, spent = admitted.work.plan, one.ledger.epsilon("account-0", "client", 1e-5)
    limit = (plan.epsilon("public") + spent) / 2
    assert plan.epsilon("public") < limit < spent
    assert process().train(instruction(WHICH)).config["status"] == "done"
    strict = Policy.permissive().model_copy(update={"max_epsilon": limit})
    charges = [charges for _, charges in one.ledger.accounts()]
    reply = process(strict).train(instruction(WHICH, round_number=2))
    assert (reply.config["status"], reply.config["code"]) == ("refused", "budget")
    assert [charges for _, charges in one.ledger.accounts()] == charges, "what is refused here is not charged"
    assert process().train(instruction(WHICH, round_number=2)).config["status"] == "done"


def test_a_run_is_not_stopped_by_another_that_was_admitted_beside_it(process: Callable[..., Session]) -> None:
    """The other states a larger delta: at the first one's own, both together cost more than the limit."""
    first = scenario(privacy={**LOCAL, "delta": 1e-6})
    one = process()
    one.prepare(preparation(first))
    spent = one.ledger.epsilon("account-0", "client", 1e-6)
    limited = Policy.permissive().model_copy(update={"max_epsilon": spent * 1.02})
    assert process(limited).train(instruction(first)).config["status"] == "done"
    other = preparation(scenario(seed=1, privacy={**LOCAL, "noise_multiplier": 12.0}))
    announced = type(other)({**other.config, "run": "other"}, other.arrays)
    together = process(limited).prepare(announced)
    assert (together.config["status"], together.config["code"]) == ("refused", "budget")
    assert process(limited).train(instruction(first, round_number=2)).config["status"] == "done"


@pytest.mark.parametrize("bundle", [OTHER_CODE, ""])
def test_other_code_looks_at_the_account_again(
    process: Callable[..., Session], monkeypatch: pytest.MonkeyPatch, bundle: str
) -> None:
    limited = Policy.permissive().model_copy(update={"max_epsilon": 100.0})
    process(limited, bundle=bundle if not bundle else CODE).prepare(preparation(WHICH))
    process(limited, bundle=bundle if not bundle else CODE).train(instruction(WHICH))
    real, times = session_module.check_account, []

    def check_account(*given: Any, **named: Any) -> Any:
        times.append(given)
        return real(*given, **named)

    monkeypatch.setattr(session_module, "check_account", check_account)
    process(limited, bundle=bundle).train(instruction(WHICH, round_number=2))
    assert len(times) >= 2


def test_an_account_is_looked_at_once_while_nothing_changes(
    process: Callable[..., Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, times = session_module.check_account, []

    def check_account(policy: Any, ledger: Any, plan: Any, name: str, extra: Any) -> Any:
        times.append(name)
        return real(policy, ledger, plan, name, extra)

    monkeypatch.setattr(session_module, "check_account", check_account)
    limited = Policy.permissive().model_copy(update={"max_epsilon": 100.0})
    process(limited).prepare(preparation(WHICH))
    times.clear()
    process(limited).train(instruction(WHICH))
    assert sorted(times) == ["account-0", "account-1"]
    process(limited).train(instruction(WHICH, round_number=2))
    assert len(times) == 2
    process(limited).prepare(second_run(1)[1])
    times.clear()
    process(limited).train(instruction(WHICH, attempt=2))
    assert set(times) == {"account-0", "account-1"}, "more was spent since"


def test_what_cannot_be_kept_is_refused_before_it_is_reserved(process: Callable[..., Session]) -> None:
    announced, one = preparation(WHICH), process()
    with pytest.raises(WireError):
        one.prepare(type(announced)({**announced.config, "more": b"bytes"}, announced.arrays))
    assert not list(one.ledger.accounts())


def test_data_are_not_read_for_a_run_that_there_is_no_room_for(
    process: Callable[..., Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    limited = Policy.permissive().model_copy(update={"max_epsilon": 2.0})
    one = process(limited)
    one.accounts = ("account-0", "account-1")
    assert one.prepare(preparation(WHICH)).config["status"] == "ready"
    other = process(limited)
    other.accounts = one.accounts
    monkeypatch.setattr(other.source, "store", lambda scenario, domain: pytest.fail("the data were read"))
    limit_reached = limited.model_copy(update={"max_epsilon": one.ledger.epsilon("account-0", "client", 1e-5) + 1e-9})
    other.policy = limit_reached
    assert other.prepare(second_run(1)[1]).config["code"] == "budget"


def test_a_run_that_is_announced_again_is_not_counted_twice(process: Callable[..., Session]) -> None:
    one = process()
    one.accounts = ("account-0", "account-1")
    one.prepare(preparation(WHICH))
    exact = one.ledger.epsilon("account-0", "client", 1e-5)
    again = process(Policy.permissive().model_copy(update={"max_epsilon": exact * (1 + 1e-9)}))
    again.accounts = one.accounts
    assert again.prepare(preparation(WHICH)).config["status"] == "ready"
