"""The table of faults: phases are read from the node's log, and what was lost cannot pass for kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from dp_accounting import dp_event

from client.ledger import Ledger, Reservation
from client.node import ACTIVITY_FILE
from common.deployment.journal import Journal
from common.errors import ConfigError, RoundError
from common.privacy.accounting import event_to_json
from server.checkpoint import CheckpointDirectory
from server.coordinate import STATE_FOLDER
from simulations.benchmarks import _fault_lane, _fault_table, faults
from simulations.benchmarks._fault_lane import Lane, pids, received
from simulations.benchmarks._fault_table import Fault, cell, losses

EVENT = json.dumps(event_to_json(dp_event.GaussianDpEvent(1.0)))


def test_the_phases_of_the_table_are_all_or_those_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert faults.chosen_phases() == _fault_table.PHASES
    monkeypatch.setenv(faults.PHASES_VARIABLE, "mask reveal")
    assert faults.chosen_phases() == ("mask", "reveal")
    monkeypatch.setenv(faults.PHASES_VARIABLE, "mask unmask")
    with pytest.raises(ConfigError, match="unmask"):
        faults.chosen_phases()


def test_the_faults_of_the_table_are_all_or_those_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def number() -> float:
        return faults.BENCHMARK.run(quick=True)[0].value

    monkeypatch.setenv(faults.PHASES_VARIABLE, "mask")
    assert number() == 18
    monkeypatch.setenv(_fault_table.FAULTS_VARIABLE, "disk;the coordinator loses")
    assert number() == 3
    monkeypatch.setenv(_fault_table.FAULTS_VARIABLE, "earthquake")
    with pytest.raises(ConfigError, match="no fault"):
        number()


def test_a_phase_begins_with_the_message_and_not_with_an_older_one(tmp_path: Path) -> None:
    log = tmp_path / "node.log"
    log.write_text("INFO : Receiving: train.mask message (ID: 1)\n")
    begin = log.stat().st_size
    assert list(received(log, begin)) == []
    with log.open("a") as more:
        more.write("INFO : Sending: train.mask message (ID: 2)\nINFO : Receiving: query.reveal message (ID: 3)\n")
    assert list(received(log, begin)) == ["reveal"]
    log.write_text("INFO : Receiving: query.share message\n")  # set aside and begun again
    assert list(received(log, begin)) == ["share"]


def test_the_processes_of_a_folder_are_found_and_nobody_else_s(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    script = "import time; time.sleep(60)  # flower-supernode"
    running = [subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path / name) for name in ("one", "other")]
    try:
        assert pids(tmp_path / "one", "node") == [running[0].pid]
        assert pids(tmp_path / "one", "executor") == []
    finally:
        for process in running:
            process.kill()
            process.wait()


class Clock:
    """A lane whose run tells, by the second, what a script says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, script: dict[float, dict[str, Any]], app: list[int]) -> None:
        self.now = 0.0
        monkeypatch.setattr(_fault_lane, "time", SimpleNamespace(monotonic=lambda: self.now, sleep=self._sleep))
        monkeypatch.setattr(_fault_lane, "pids", lambda folder, program: app)
        self.lane = Lane.__new__(Lane)
        self.lane.sites = 4
        self.resumed = 0

        def told(event: str) -> list[dict[str, object]]:
            return [line for second, line in script.items() if second <= self.now and line["event"] == event]

        def resume() -> int:
            self.resumed += 1
            return 1

        monkeypatch.setattr(Lane, "told", lambda _, event: told(event))
        monkeypatch.setattr(Lane, "folder", lambda _, owner: Path(owner))
        monkeypatch.setattr(Lane, "_resumed", lambda _: resume())

    def _sleep(self, seconds: float) -> None:
        self.now += seconds


def test_a_round_without_the_struck_site_is_not_a_whole_one(monkeypatch: pytest.MonkeyPatch) -> None:
    script = {10.0: {"event": "round", "ok": 3}, 30.0: {"event": "round", "ok": 4}}
    found = Clock(monkeypatch, script, [1]).lane.recover(0.0, 0, 0)
    assert (round(found.next_s), round(found.whole_s), found.resumed) == (10, 30, 0)


def test_a_run_that_has_ended_is_resumed_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    script: dict[float, dict[str, Any]] = {5.0: {"event": "failed"}, 60.0: {"event": "round", "ok": 4}}
    clock = Clock(monkeypatch, script, [1])
    assert clock.lane.recover(0.0, 0, 0).resumed == clock.resumed == 1


def test_what_does_not_come_back_is_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    lane = Clock(monkeypatch, {}, [1]).lane
    monkeypatch.setattr(Lane, "await_phase", lambda _, phase: None)
    monkeypatch.setattr(_fault_table, "time", _fault_lane.time)
    (row,) = cell(lane, Fault("nothing comes back", lambda _: None), "mask")
    assert row.holds is False
    with pytest.raises(RoundError):
        lane.recover(_fault_lane.time.monotonic(), 0, 0)


@pytest.mark.parametrize(("answers", "attempts", "missed"), [(2, 2, set()), (3, 2, {"answers"}), (2, 1, {"charges"})])
def test_an_answer_without_a_charge_and_a_charge_without_an_attempt_are_seen(
    tmp_path: Path, answers: int, attempts: int, missed: set[str]
) -> None:
    state = tmp_path / "site" / "state"
    state.mkdir(parents=True)
    ledger = Ledger.open(state / "ledger.sqlite")
    ledger.reserve([Reservation("account", "client", "run", "c", EVENT, 4, 1e-5)])
    for attempt in (1, 2):
        ledger.charge("run", 1, attempt, ["account"])
    ledger.close()
    for _ in range(answers):
        Journal(state / ACTIVITY_FILE).write("answered", {"kind": "train.mask", "status": "done"})
    checkpoints = CheckpointDirectory(tmp_path / "run" / STATE_FOLDER, "digest")
    for _ in range(attempts):
        checkpoints.begin_attempt(1)
    site = SimpleNamespace(inside=lambda *parts: tmp_path.joinpath("site", *parts))
    run = SimpleNamespace(folder=tmp_path / "run", scenario=SimpleNamespace(digest="digest"), rounds_done=1)
    lane: Any = SimpleNamespace(run=run, deployed=SimpleNamespace(agents={"north": site}))
    rows = {row.measure: row.holds for row in losses(lane, "trial")}
    failed = {measure for measure, holds in rows.items() if holds is False}
    assert {word for word in ("answers", "charges") if any(f"trial: {word}" in measure for measure in failed)} == missed


def test_root_alone_may_cut_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert len(faults.BENCHMARK.run(quick=True)) == 1
