"""Following a run: Flower is asked rarely, and at once when the run says that it has ended."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from common.config import build_scenario
from common.deployment.journal import Journal
from common.errors import DeploymentError, RoundError
from server.checkpoint import CheckpointDirectory, RunState, last_round
from server.coordinate import STATE_FOLDER
from server.coordinator import home as homes
from server.coordinator import runs
from server.progress import ROUNDS_FILE

SCENARIO = build_scenario({"task": {"family": "word2vec"}, "privacy": {"mode": "local", "noise_multiplier": 1.0}})


@pytest.fixture
def home(tmp_path: Path) -> homes.Home:
    made = homes.make_home(tmp_path / "c", "trial", ["127.0.0.1"], bind="127.0.0.1", port=8443, first_port=9091)
    folder = made.inside("runs", "first")
    folder.mkdir(parents=True)
    content = {"scenario": SCENARIO.canonical_json(), "submissions": [{"number": "1", "time": "now"}]}
    (folder / runs.RUN_FILE).write_text(json.dumps(content))
    return made


class Flower:
    """A run that tells its journal what a script says, by the second, and what Flower then says of it."""

    def __init__(self, journal: Journal, script: dict[int, str], end: tuple[int, str]) -> None:
        self.journal, self.script, self.end = journal, script, end
        self.now, self.asked = 0.0, 0

    def sleep(self, seconds: float) -> None:
        before, self.now = self.now, self.now + seconds
        for second, event in self.script.items():
            if before < second <= self.now:
                self.journal.write(event, {"message": "why"})

    def status(self, *_: Any) -> str:
        self.asked += 1
        self.sleep(1.0)
        second, said = self.end
        return said if self.now >= second else "running"


def followed(home: homes.Home, flower: Flower, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    monkeypatch.setattr(runs, "status", flower.status)
    monkeypatch.setattr(runs, "time", SimpleNamespace(sleep=flower.sleep, monotonic=lambda: flower.now))
    return [line["event"] for line in runs.follow(home, "first", {})]


def test_flower_is_asked_rarely_and_at_the_end(home: homes.Home, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(home.inside("runs", "first", ROUNDS_FILE))
    script = {10: "round", 50: "round", 100: "done"}
    flower = Flower(journal, script, (102, "finished:completed"))
    assert followed(home, flower, monkeypatch) == ["round", "round", "done"]
    assert flower.asked <= 12
    assert flower.now <= 105


def test_scoring_after_the_last_round_is_waited_for_without_asking_all_the_time(
    home: homes.Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    flower = Flower(Journal(home.inside("runs", "first", ROUNDS_FILE)), {1: "done"}, (100, "finished:completed"))
    assert followed(home, flower, monkeypatch) == ["done"]
    assert flower.asked <= 50, "asking takes a second of computing"


def test_a_run_that_never_began_cannot_be_stopped_and_says_so(home: homes.Home) -> None:
    path = home.inside("runs", "first", runs.RUN_FILE)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"submissions": []}))
    with pytest.raises(DeploymentError, match="never began") as caught:
        runs.stop(home, "first", {})
    assert "resume first" in caught.value.hint


def test_a_run_that_is_killed_is_noticed_and_named(home: homes.Home, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(home.inside("runs", "first", ROUNDS_FILE))
    flower = Flower(journal, {10: "round"}, (20, "finished:failed"))
    with pytest.raises(RoundError, match="finished:failed"):
        followed(home, flower, monkeypatch)
    assert flower.now <= 20 + runs.STATUS_INTERVAL_S + 5


def test_the_end_of_an_earlier_submission_is_not_that_of_this_one(
    home: homes.Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = home.inside("runs", "first", runs.RUN_FILE)
    raw = json.loads(path.read_text())
    raw["submissions"] *= 2
    path.write_text(json.dumps(raw))
    journal = Journal(home.inside("runs", "first", ROUNDS_FILE))
    journal.write("failed", {"message": "the first time"})
    flower = Flower(journal, {100: "done"}, (101, "finished:completed"))
    assert followed(home, flower, monkeypatch) == ["failed", "done"]
    assert flower.asked <= 12


def test_the_rounds_that_are_done_are_read_from_the_header_alone(tmp_path: Path) -> None:
    assert last_round(tmp_path) == 0
    checkpoints = CheckpointDirectory(tmp_path / STATE_FOLDER, "digest")
    checkpoints.save(RunState(4, {"t": np.zeros((50_000, 4), np.float32)}, history=[{"round": 4}]))
    assert last_round(tmp_path / STATE_FOLDER) == 4
    file = tmp_path / STATE_FOLDER / "state.safetensors"
    file.write_bytes(file.read_bytes()[:2000])  # the tables are gone, the header is there
    assert last_round(tmp_path / STATE_FOLDER) == 4
    file.write_bytes(b"\xff" * 100)
    assert last_round(tmp_path / STATE_FOLDER) == 0
