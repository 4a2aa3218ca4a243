"""What a node sends is known, and refused, before anything is charged or computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from client.policy import Policy
from client.upload import check_upload
from common.work import work_for
from tests.client.test_session import DOMAIN, instruction, preparation, scenario, session

MODES: dict[str, dict[str, Any]] = {
    "local": {},
    "central": {"privacy": {"mode": "central", "noise_multiplier": 4.0, "l2_clip_norm": 1.0, "delta": 1e-5}},
    "statistics": {"task": {"family": "spectral", "dimension": 2}, "privacy": {"mode": "none"}},
    "none": {"privacy": {"mode": "none"}},
}


def least_limit(which: Any, clients: int) -> int:
    """The lowest limit that lets an answer out: found by halving, from the refusals alone."""
    work, low, high = work_for(which, DOMAIN), 1, 2**20
    while low < high:
        middle = (low + high) // 2
        refused = check_upload(Policy(max_epsilon=1, max_message_bytes=middle), work, clients)
        low, high = (middle + 1, high) if refused else (low, middle)
    return low


@pytest.mark.parametrize("mode", MODES)
def test_no_answer_is_larger_than_was_said_before(mode: str, tmp_path: Path) -> None:
    which = scenario(**MODES[mode])
    node = session(tmp_path, which)
    assert node.prepare(preparation(which)).config["status"] == "ready"
    reply = node.train(instruction(which))
    assert reply.config["status"] == "done"
    assert reply.size_bytes <= least_limit(which, 2) <= reply.size_bytes + 2 * 512


def test_a_run_whose_answer_is_too_large_is_refused(tmp_path: Path) -> None:
    which = scenario()
    policy = Policy.permissive().model_copy(update={"max_message_bytes": least_limit(which, 1) - 1})
    node = session(tmp_path, which, policy)
    reply = node.prepare(preparation(which))
    assert (reply.config["status"], reply.config["code"]) == ("refused", "message_bytes")
    assert list(node.ledger.accounts()) == []


def test_a_round_whose_answer_is_too_large_is_not_charged(tmp_path: Path) -> None:
    """One client's answer may leave, two may not: and the message of this round is smaller than either."""
    which = scenario(task={"family": "word2vec", "dimension": 512})
    limit = least_limit(which, 2) - 1
    asked = instruction(which)
    assert asked.size_bytes <= limit
    node = session(tmp_path, which, Policy.permissive().model_copy(update={"max_message_bytes": limit}))
    assert node.prepare(preparation(which)).config["status"] == "ready"
    reply = node.train(asked)
    assert (reply.config["status"], reply.config["code"]) == ("refused", "message_bytes")
    assert [charges for _, charges in node.ledger.accounts()] == [0, 0]
    assert node.train(instruction(which, clients=(1,))).config["status"] == "done"
