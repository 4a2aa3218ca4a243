"""A run that dies anywhere goes on where it was: the same table bit for bit, and no spend forgotten."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import pytest

from client.ledger import Ledger
from common.config import Scenario, build_scenario
from common.errors import CheckpointError
from server.progress import LogReporter
from simulations import corpora
from simulations.federation import run_simulation

ROUNDS = 2


@pytest.fixture(scope="module", autouse=True)
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The planted corpus' own words, as a public file; beside it the texts of four clients."""
    folder = tmp_path_factory.mktemp("data")
    path = folder / "words.tsv"
    path.write_text("".join(f"{w}\t{n}\n" for w, n in corpora.vocabulary("planted").items()))
    texts = [record.value for record in islice(corpora.load("planted"), 120)]
    (folder / "texts").mkdir()
    for k in range(4):
        (folder / "texts" / f"client{k}.txt").write_text("\n".join(texts[k::4]))
    return path


def scenario(vocabulary: Path, **privacy: object) -> Scenario:
    """A tiny federation in seeded test mode, with dropouts."""
    return build_scenario(
        {
            "task": {"family": "spectral", "dimension": 4},
            "data": {"reader": "text", "path": str(vocabulary.parent / "texts"), "unit": "record"},
            "vocabulary": {"path": str(vocabulary)},
            "privacy": {"mode": "central", "noise_multiplier": 0.5, "delta": 1e-5, "test_mode": True, **privacy},
            "federation": {"rounds": ROUNDS, "dropout": 0.2},
            "seed": 5,
        }
    )


def table_bytes(out: Path) -> bytes:
    return (out / "release" / "tables" / "rows.safetensors").read_bytes()


def run(out: Path, which: Scenario) -> None:
    run_simulation(which, out=out, engine="local", reporter=LogReporter())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, vocabulary: Path) -> bytes:
    out = tmp_path_factory.mktemp("undisturbed")
    run(out, scenario(vocabulary))
    return table_bytes(out)


class Died(BaseException):
    """The process ends here."""


def dies_at(monkeypatch: pytest.MonkeyPatch, call: int) -> list[str]:
    """Let the ``call``-th fsync or replace of the process be its last; returns the names of the calls made."""
    made: list[str] = []

    def counted(name: str):
        original = getattr(os, name)

        def wrapper(*arguments: object, **named: object) -> object:
            made.append(name)
            if len(made) == call:
                raise Died
            return original(*arguments, **named)

        return wrapper

    for name in ("fsync", "replace"):
        monkeypatch.setattr(os, name, counted(name))
    return made


def test_death_at_every_write_leads_to_the_same_table(
    tmp_path: Path, undisturbed: bytes, vocabulary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = 0
    while True:
        call += 1
        out = tmp_path / str(call)
        with monkeypatch.context() as patched:
            made = dies_at(patched, call)
            try:
                run(out, scenario(vocabulary))
            except Died:
                died = True
            else:
                died = False
        if not died:
            break
        run(out, scenario(vocabulary))
        assert table_bytes(out) == undisturbed, f"died at write {call}, {made[-1]}"
        check_spend(out)
    assert call > 4 * ROUNDS


def check_spend(out: Path) -> None:
    """Every data set is charged for at least the rounds of the release, whatever happened in between."""
    with Ledger.open(out / "ledger.sqlite", create=False) as ledger:
        ledger.verify()
        accounts = list(ledger.accounts())
    assert accounts
    assert all(charges >= ROUNDS for _, charges in accounts)


def test_kill_minus_nine(tmp_path: Path, undisturbed: bytes, vocabulary: Path) -> None:
    """A real process, killed at random instants until it gets through."""
    rng = random.Random(7)
    out = tmp_path / "run"
    path = tmp_path / "scenario.json"
    path.write_text(scenario(vocabulary).canonical_json())
    code = (
        "import pathlib, sys; from common.config import scenario_from_json; "
        "from server.progress import LogReporter; from simulations.federation import run_simulation; "
        "run_simulation(scenario_from_json(pathlib.Path(sys.argv[1]).read_text()), out=pathlib.Path(sys.argv[2]), "
        "engine='local', reporter=LogReporter())"
    )
    killed = 0
    for attempt in range(6):
        process = subprocess.Popen([sys.executable, "-c", code, str(path), str(out)])
        deadline = time.monotonic() + 60
        while not (out / "state" / "journal.jsonl").exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(rng.uniform(0.0, 0.1))
        if attempt < 5 and process.poll() is None:
            process.send_signal(signal.SIGKILL)
            killed += 1
        process.wait(timeout=120)
        if process.returncode == 0:
            break
    assert killed > 0
    assert table_bytes(out) == undisturbed
    check_spend(out)


def test_another_scenario_in_the_same_folder_is_refused(tmp_path: Path, vocabulary: Path) -> None:
    run(tmp_path, scenario(vocabulary))
    with pytest.raises(CheckpointError):
        run(tmp_path, scenario(vocabulary, noise_multiplier=0.7))


def test_without_test_mode_two_runs_differ(tmp_path: Path, vocabulary: Path) -> None:
    """Otherwise the comparison above would prove nothing about the noise."""
    for name in ("a", "b"):
        run(tmp_path / name, scenario(vocabulary, test_mode=False))
    assert table_bytes(tmp_path / "a") != table_bytes(tmp_path / "b")
