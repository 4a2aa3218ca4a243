"""Checkpoints: whole or absent, bound to their run, and a journal that never forgets an attempt."""

import numpy as np
import pytest

from common.errors import CheckpointError, StorageError
from server.checkpoint import CheckpointDirectory, RunState


def state(round_number=3):
    return RunState(
        round_number,
        {"t": np.arange(6, dtype=np.float32).reshape(3, 2)},
        {"squares/t": np.ones((3, 2), np.float32)},
        [{"round": r} for r in range(1, round_number + 1)],
    )


def test_round_trip(tmp_path):
    directory = CheckpointDirectory(tmp_path / "run", "digest")
    assert directory.load() is None
    directory.save(state())
    back = directory.load()
    assert back.round == 3
    assert back.history == [{"round": 1}, {"round": 2}, {"round": 3}]
    np.testing.assert_array_equal(back.parameters["t"], state().parameters["t"])
    np.testing.assert_array_equal(back.optimizer["squares/t"], 1)


def test_another_scenario_is_refused(tmp_path):
    CheckpointDirectory(tmp_path, "one").save(state())
    with pytest.raises(CheckpointError, match="another scenario"):
        CheckpointDirectory(tmp_path, "two").load()


@pytest.mark.parametrize("position", [0, 40, 200, -1])
def test_one_flipped_byte_is_noticed(tmp_path, position):
    directory = CheckpointDirectory(tmp_path, "digest")
    directory.save(state())
    path = tmp_path / "state.safetensors"
    raw = bytearray(path.read_bytes())
    raw[position] ^= 1
    path.write_bytes(raw)
    with pytest.raises(CheckpointError, match="damaged"):
        directory.load()


def test_a_failed_save_keeps_the_earlier_checkpoint(tmp_path, monkeypatch):
    directory = CheckpointDirectory(tmp_path, "digest")
    directory.save(state(1))

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full_disk)
    with pytest.raises(StorageError, match="full"):
        directory.save(state(2))
    monkeypatch.undo()
    assert directory.load().round == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run-id", "state.safetensors"]


def test_attempts_are_numbered_and_survive_reopening(tmp_path):
    first = CheckpointDirectory(tmp_path, "digest")
    assert [first.begin_attempt(1), first.begin_attempt(1), first.begin_attempt(2)] == [1, 2, 1]
    again = CheckpointDirectory(tmp_path, "digest")
    assert again.begin_attempt(2) == 2
    assert len(again.attempts()) == 4
    assert again.run_id == first.run_id


def test_two_directories_are_two_runs(tmp_path):
    assert CheckpointDirectory(tmp_path / "a", "d").run_id != CheckpointDirectory(tmp_path / "b", "d").run_id


def test_a_torn_journal_line_does_not_stop_the_run(tmp_path):
    directory = CheckpointDirectory(tmp_path, "digest")
    directory.begin_attempt(1)
    with (tmp_path / "journal.jsonl").open("a") as journal:
        journal.write('{"round": 2, "att')
    assert len(CheckpointDirectory(tmp_path, "digest").attempts()) == 1
