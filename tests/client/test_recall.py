"""A later process of a site takes up a run without computing its terms again, unless anything of them has changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import client.session as session_module
from client.policy import Policy
from client.session import Session
from tests.client.test_session import instruction, preparation, scenario, session

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


@pytest.mark.parametrize("kept", ["run-*.json", "run-*.allowed"])
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
