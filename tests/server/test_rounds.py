"""The round as a state machine: only well-formed replies of this round enter the sum, all else is counted by reason."""

import numpy as np
import pytest

from common import wire
from common.config import build_scenario
from common.privacy.private_sum import release
from common.privacy.rng import NoiseSource
from common.table import RowDomain
from common.update import UpdateBatch, coalesce
from common.work import work_for
from server.rounds import Node, RoundMachine, cohort_waves, run_payload

WORDS = tuple(f"w{i}" for i in range(6))
UNPROTECTED = {"privacy": {"mode": "none"}, "task": {"family": "spectral", "dimension": 2}}
PER_CLIENT = {
    "privacy": {"mode": "central", "noise_multiplier": 1.0, "l2_clip_norm": 1.0},
    "data": {"unit": "client"},
    "task": {"family": "word2vec", "dimension": 2},
}


def machine(raw=UNPROTECTED):
    work = work_for(build_scenario(raw), RowDomain(WORDS))
    made = RoundMachine(work, "run", 4)
    made.ask("m1", np.array([0, 1, 2]))
    return made, work


def reply(work, values, *, round_number=4, clients=(0, 1, 2), status=None, run="run", **config):
    """A reply in which client k sends ``values[k]`` in row k of every table."""
    status = np.zeros(len(clients), np.int8) if status is None else np.array(status, np.int8)
    count = len(values)
    ids, ones = np.arange(count), np.ones((1, 2), np.float32)
    column = np.array(values, np.float32)[:, None] * ones
    rows = {s.name: coalesce(ids, ids, column, count=count, rows=6) for s in work.update_specs if s.is_table}
    arrays = {"clients": np.array(clients), "status": status, **wire.encode_updates(UpdateBatch(count, rows))}
    return run_payload(run, {"status": "done", "round": round_number, **config}, arrays)


def total(made, work):
    """What the sum holds, through the only gate there is."""
    released = release(made.close(), work.plan, NoiseSource.seeded_for_tests(0))
    ids, values = released.rows[work.update_specs[0].name]
    table = np.zeros((6, 2), np.float32)
    table[slice(None) if ids is None else ids] = values
    return table[:, 0].tolist()


def test_valid_replies_are_summed():
    made, work = machine()
    made.accept("m1", reply(work, [1.0, 2.0, 3.0]))
    assert total(made, work) == [1, 2, 3, 0, 0, 0]
    assert dict(made.reasons) == {"ok": 3}


REJECTED = {
    "malformed": lambda work: run_payload("run", {"status": "done", "round": 4}, {}),
    "other_round": lambda work: reply(work, [1, 1, 1], round_number=3),
    "other_run": lambda work: reply(work, [1, 1, 1], run="another"),
    "refused": lambda work: run_payload("run", {"status": "refused", "code": "budget"}, {}),
    "failed": lambda work: run_payload("run", {"status": "failed", "code": "DataError"}, {}),
}


@pytest.mark.parametrize("reason", REJECTED)
def test_unusable_replies_change_nothing_and_are_counted(reason):
    made, work = machine()
    made.accept("m1", REJECTED[reason](work))
    assert dict(made.reasons) == {reason: 3}
    assert total(made, work) == [0] * 6


def test_a_reply_about_other_clients_is_malformed():
    made, work = machine()
    made.accept("m1", reply(work, [1, 1, 1], clients=(0, 1, 5)))
    assert dict(made.reasons) == {"malformed": 3}


def test_a_second_reply_is_a_duplicate():
    made, work = machine()
    made.accept("m1", reply(work, [1, 2, 3]))
    made.accept("m1", reply(work, [1, 2, 3]))
    assert made.reasons["duplicate"] == 1
    assert total(made, work)[:3] == [1, 2, 3]


def test_replies_after_the_close_are_late_and_unasked_ones_foreign():
    made, work = machine()
    made.accept("m9", reply(work, [1, 2, 3]))
    made.close()
    made.accept("m1", reply(work, [1, 2, 3]))
    assert dict(made.reasons) == {"foreign": 1, "no_reply": 3, "late": 1}


def test_a_dead_node_is_counted_once():
    made, _ = machine()
    made.fail("m1", "node_unavailable")
    made.fail("m1", "node_unavailable")
    made.close()
    assert dict(made.reasons) == {"node_unavailable": 3}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_non_finite_client_does_not_spoil_the_others(bad):
    made, work = machine()
    made.accept("m1", reply(work, [1.0, bad, 3.0]))
    assert total(made, work) == [1, 0, 3, 0, 0, 0]
    assert made.reasons["non_finite"] == 1
    assert made.reasons["ok"] == 2


def test_a_client_above_the_clip_is_left_out_where_clients_clip():
    made, work = machine(PER_CLIENT)
    made.accept("m1", reply(work, [0.1, 5.0, 0.1]))
    assert made.reasons["over_norm"] == 1
    assert made.reasons["ok"] == 2


def test_dropped_and_late_clients_are_not_summed():
    made, work = machine()
    made.accept("m1", reply(work, [1.0, 7.0], status=[wire.OK, wire.DROPPED, wire.LATE]))
    assert total(made, work) == [1, 0, 0, 0, 0, 0]
    assert dict(made.reasons) == {"ok": 1, "dropped": 1, "late": 1}


def test_waves_ask_every_client_once_and_a_node_once_a_wave():
    nodes = [Node(1, 10), Node(2, 3), Node(3, 5)]
    drawn = {1: np.arange(10), 2: np.array([0, 2]), 3: np.empty(0, np.int64)}
    asked = {1: [], 2: [], 3: []}
    for wave in cohort_waves(nodes, drawn, 4):
        assert len({n.node_id for n, _ in wave}) == len(wave)
        for node, clients in wave:
            assert 1 <= len(clients) <= 4
            asked[node.node_id].extend(clients.tolist())
    assert asked == {1: list(range(10)), 2: [0, 2], 3: []}
