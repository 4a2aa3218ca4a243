"""The engine benchmark runs at its tiny size, counts the work of every side, and makes environments for peers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from common.errors import DependencyError
from simulations.benchmarks import _peers, engine
from simulations.benchmarks._engine_ours import EngineJob, client_store, measure
from simulations.benchmarks._harness import at_least


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.npz"
    engine.write_data(path, engine.TINY, seed=1)
    return path


def job(path: Path) -> EngineJob:
    return EngineJob(str(path), dimensions=4, cohort=8, rounds=3, steps=4, negatives=16, window=1)


def test_pairs_are_the_neighbours_in_a_sentence(data: Path) -> None:
    with np.load(data) as arrays:
        tokens, centres, contexts = arrays["tokens"][0], arrays["centres"][0], arrays["contexts"][0]
    expected = [
        (int(sentence[i]), int(sentence[j]))
        for sentence in tokens
        for i in range(len(sentence))
        for j in (i - 1, i + 1)
        if 0 <= j < len(sentence)
    ]
    found = list(zip(centres.tolist(), contexts.tolist(), strict=True))
    assert sorted(found) == sorted(expected)
    assert len(found) == engine.PAIRS == 200


def test_a_longer_table_holds_the_same_words_elsewhere(tmp_path: Path) -> None:
    for name, spread in (("short", 1), ("long", 10)):
        engine.write_data(tmp_path / name, engine.TINY, seed=2, spread=spread)
    with np.load(tmp_path / "short.npz") as short, np.load(tmp_path / "long.npz") as long:
        assert np.array_equal(long["tokens"] // 10, short["tokens"])
        assert len(long["frequencies"]) == 10 * len(short["frequencies"])
        assert np.array_equal(long["frequencies"][long["frequencies"] > 1e-20], short["frequencies"])


def test_clients_of_the_store_are_those_of_the_data() -> None:
    tokens = np.arange(12).reshape(2, 3, 2)
    store = client_store(tokens)
    assert len(store) == 2
    assert store.client(1).columns["rows"].tolist() == [6, 7, 8, 9, 10, 11]
    assert store.client(1).count == 3


def test_our_side_counts_clients_and_rows(data: Path) -> None:
    result = measure(job(data))
    assert len(result["seconds"]) == len(result["clients"]) == 2  # the first round is not timed
    assert all(0 <= n <= engine.TINY.population for n in result["clients"])
    with np.load(data) as arrays:
        words = np.median([len(np.unique(client)) for client in arrays["tokens"]])
    assert result["touched"]["centre.weight"] == words
    assert words < result["touched"]["context.weight"] <= words + 4 * 16


def test_bars_are_judged_at_full_size_alone() -> None:
    assert engine._unjudged("m", 0.5, 5.0).holds is None
    assert at_least("m", 0.5, 5.0).holds is False


def test_ratios_are_medians_of_repetitions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Ours takes 1, 2, 3 s for 8 clients; the peer always 4 s."""
    ours = iter([1.0, 2.0, 3.0, 1.0])
    touched = {"centre.weight": 1.0, "context.weight": 2.0}
    monkeypatch.setattr(
        _peers, "run_ours", lambda module, job: {"seconds": [next(ours)], "clients": [8], "touched": touched}
    )
    monkeypatch.setattr(_peers, "run_peer", lambda peer, directory, job: {"seconds": [4.0], "clients": [8]})
    task = engine.Task(50, 4, 10, 8, 2, repetitions=3)
    rows = engine._against(tmp_path, task, tmp_path, [(engine.PFL, 5.0), (engine.FLOWER, None)], at_least)
    found = {row.measure.rpartition(": ")[2]: row for row in rows}
    assert found["clients/s, ours"].value == 4.0
    assert (found["ours / pfl"].value, found["ours / pfl"].holds) == (2.0, False)
    assert (found["ours / flower"].value, found["ours / flower"].holds) == (2.0, None)


def test_peers_are_measured_on_request_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(_peers.FOLDER_VARIABLE, raising=False)
    assert _peers.folder() is None
    monkeypatch.setenv(_peers.FOLDER_VARIABLE, str(tmp_path))
    assert _peers.folder() == tmp_path.resolve()


def test_a_script_runs_in_an_environment_made_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made: list[list[str]] = []
    checked = _peers._checked

    def instead(command: list[str], timeout_s: float, search: tuple[str, ...] = ()) -> str:
        if "venv" in command:
            made.append(command)
            home = Path(command[-1]) / "bin"
            home.mkdir(parents=True)
            (home / "python").symlink_to(sys.executable)
            return ""
        return "" if "pip" in command else checked(command, timeout_s, search)

    monkeypatch.setattr(_peers, "_checked", instead)
    script = tmp_path / "echo.py"
    script.write_text("import sys\nprint('chatter')\nprint(sys.argv[1])\n")
    peer = _peers.Peer("echo", ("nothing",), str(script))
    assert [_peers.run_peer(peer, tmp_path, {"n": k}) for k in (1, 2)] == [{"n": 1}, {"n": 2}]
    assert len(made) == 1


def test_a_failing_or_silent_script_is_named(tmp_path: Path) -> None:
    with pytest.raises(DependencyError, match="boom"):
        _peers._result([sys.executable, "-c", "raise SystemExit('boom')"], {})
    with pytest.raises(DependencyError, match="no result"):
        _peers._result([sys.executable, "-c", "pass"], {})


@pytest.mark.slow
def test_quick_run_ends_with_a_table(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "simulations.benchmarks", "engine", "--quick", "--json", str(tmp_path / "r.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["holds"] and any("peak memory" in row["measure"] for row in result["rows"])
