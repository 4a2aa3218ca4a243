"""Full disks, Ctrl-C, altered releases and ledgers, wrong commands: nothing is lost, nothing is hidden."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from client.answers import failure_reply
from common import formats
from common.errors import DataFormatError, PrivacyConfigError
from common.work import refuse_large_delta
from server.checkpoint import CheckpointDirectory
from simulations.commands.help_page import GROUPS
from tests.e2e.unlucky import SECRET, Run, check_refusal, here, run, simulate

__all__ = ["here", "run"]  # fixtures


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_out_of_another_scenario_is_left_alone(here: Path, run: Run) -> None:
    assert simulate(run, "federation.dropout=0.99")[0] == 11  # began, and has no checkpoint yet
    begun = contents(here / "out")
    check_refusal(simulate(run, "seed=5"), 12, "another scenario")
    assert contents(here / "out") == begun
    assert simulate(run, out="done")[0] == 0
    done = contents(here / "done")
    check_refusal(simulate(run, "seed=5", out="done"), 12, "another scenario")
    assert contents(here / "done") == done


def resumes(run: Run, out: object) -> None:
    code, answer, err = simulate(run, out=out)
    assert code == 0 and json.loads(answer), err
    assert run("verify", out)[0] == 0 and run("ledger", "verify", out)[0] == 0


@pytest.mark.parametrize("call", [1, 3, 7, 12, 20])
def test_full_disk_and_interrupt_at_any_write(
    call: int, here: Path, run: Run, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """The n-th fsync finds the disk full, or meets Ctrl-C; with that gone, the same command ends well."""

    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def interrupted() -> None:
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    real = os.fsync
    for code, trouble in ((13, full), (130, interrupted)):
        calls = iter(range(1, 1000))

        def struck(file: int, calls: Iterator[int] = calls, trouble: Callable[[], None] = trouble) -> None:
            if next(calls) == call:
                trouble()
            real(file)

        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", struck)
            got, out, err = simulate(run, out=f"out{code}")
        assert got == code, err
        assert not (here / f"out{code}" / "release").exists() and not list(here.rglob("*partial*"))
        assert code == 130 or json.loads(out)["error"]["remedy"]
        resumes(run, f"out{code}")


@pytest.fixture
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Path]]:
    """Mounts a real file system of a given size, where that is allowed."""
    path = tmp_path_factory.mktemp("disk")
    mounted = []

    def sized(size: str) -> Path:
        option = f"size={size},remount" if mounted else f"size={size}"
        if subprocess.run(["mount", "-t", "tmpfs", "-o", option, "tmpfs", path], capture_output=True).returncode:
            pytest.skip("mounting needs privileges")
        mounted.append(size)
        return path

    yield sized
    if mounted:
        subprocess.run(["umount", path], check=True)


@pytest.mark.parametrize("kib", [4, 16, 64, 96, 128])
def test_really_full_disk(kib: int, here: Path, run: Run, small_disk: Callable[[str], Path]) -> None:
    out = small_disk(f"{kib}k") / "run"
    check_refusal(simulate(run, out=out), 13, "full" if kib > 16 else "")
    small_disk("8m")
    resumes(run, out)


@pytest.mark.parametrize("content", [None, b"", b"no database"])
def test_rounds_without_their_ledger_do_not_go_on(content: bytes | None, here: Path, run: Run) -> None:
    assert simulate(run, "federation.dropout=0.99")[0] == 11
    for name in ("ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm"):
        (here / "out" / name).unlink(missing_ok=True)
    if content is not None:
        (here / "out" / "ledger.sqlite").write_bytes(content)
    check_refusal(simulate(run, "federation.dropout=0.99"), 8, "ledger")


@pytest.mark.parametrize("task", ["similarity", "similarity:pairs.tsv", "knn"])
def test_an_unusable_benchmark_stops_the_run_before_a_round(task: str, here: Path, run: Run) -> None:
    (here / "pairs.tsv").write_text("cat\tdog\t3\nsun\tmoon\t4\n")
    check_refusal(simulate(run, f'evaluation.tasks=["{task}"]'), 15, "")
    assert not (here / "out" / "state").exists()


def test_torn_journal_line_swallows_nothing(tmp_path: Path) -> None:
    directory = CheckpointDirectory(tmp_path, "digest")
    directory.begin_attempt(1)
    with (tmp_path / "journal.jsonl").open("a") as journal:
        journal.write('{"round": 1, "att')
    assert directory.begin_attempt(1) == 2
    assert len(directory.attempts()) == 2


def test_unforeseen_error_quotes_nothing(here: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ValueError(SECRET)

    for target in ("common.families.spectral.FAMILY.encode", "common.families.spectral.FAMILY.contributions"):
        with monkeypatch.context() as patched:
            patched.setattr(target, broken)
            code, out, err = simulate(run, out=target)
        assert code == 1 and SECRET not in out + err and "ValueError" in err and "--debug" in err


def test_no_private_number_or_name_leaves_a_node() -> None:
    plan = SimpleNamespace(mode="central", delta=0.5, unit="record")
    with pytest.raises(PrivacyConfigError) as caught:
        refuse_large_delta(plan, 7919)  # type: ignore[arg-type]
    assert "7919" not in caught.value.message + caught.value.hint
    reply = failure_reply("run", DataFormatError(f"/{SECRET}/patients.csv, line 7919: no field"))
    assert SECRET not in str(reply.config) and "7919" not in str(reply.config)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run, which no test alters."""
    import contextlib
    import io

    from simulations import cli
    from tests.e2e.unlucky import prepare

    folder = prepare(tmp_path_factory.mktemp("finished"))
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert cli.main(["simulate", str(folder / "s.toml"), "--out", str(folder / "out")]) == 0
    return folder / "out"


def test_one_flipped_byte_in_any_file_of_a_release(finished: Path, tmp_path: Path, run: Run) -> None:
    shutil.copytree(finished / "release", tmp_path / "release")
    files = [p for p in (tmp_path / "release").rglob("*") if p.is_file()]
    assert len(files) == 8
    for file in files:
        whole = file.read_bytes()
        for damaged in (whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:], whole[:-1], b""):
            file.write_bytes(damaged)
            code, out, err = run("verify", tmp_path, "--json")
            assert (code, json.loads(out)["verified"]) == (9, False), file
            assert "do not rely" in err
        file.write_bytes(whole)
    assert run("verify", tmp_path)[0] == 0


@pytest.mark.parametrize(
    ("words", "code", "hint"),
    [
        (("neighbors", "OUT", "wbb"), 2, "did you mean 'wb'?"),
        (("neighbors", "OUT", "wb", "-k", "0"), 2, "at least 1"),
        (("neighbors", "absent", "wb"), 9, "there is no folder"),
        (("export", "OUT", "--format", "word2vec", "--out", "x"), 3, "did you mean 'word2vec_text'?"),
        (("export", "OUT", "--format", "numpy", "--out", "absent/x"), 13, "folder does not exist"),
        (("export", "OUT", "--format", "glove_text", "--out", "folder"), 13, "it is a folder"),
        (("export", "OUT", "--format", "glove_text", "--out", "pipe"), 13, "it is a device"),
        (("evaluate", "OUT", "--task", "similarity:pairs.tsv"), 15, "0 of 2 pairs"),
        (("evaluate", "OUT", "--task", "similarity:absent.tsv"), 15, "cannot read absent.tsv"),
        (("evaluate", "OUT", "--task", "simlarity"), 3, "did you mean 'similarity'?"),
        (("evaluate", "OUT"), 2, "names no tasks"),
        (("verify", "absent"), 9, "there is no folder"),
        (("report", "folder"), 9, "manifest.json"),
        (("ledger", "show", "absent"), 8, "no ledger"),
        (("ledger", "verify", "pairs.tsv"), 8, "no ledger"),
        (("ledger", "verify", "empty.sqlite"), 8, "is empty"),
        (("ledger", "verify", "foreign.sqlite"), 8, "something else"),
        (("ledger", "verify", "OUT", "--head", "0f"), 8, "replaced"),
        (("ledger", "show", "OUT", "--delta", "7"), 4, "delta"),
        (("list", "familys"), 2, "'families'"),
        (("plann", "s.toml"), 2, "Did you mean 'plan'?"),
        (("simulate", "--seed", "x"), 2, "integer"),
    ],
)
def test_wrong_commands(
    words: tuple[str, ...], code: int, hint: str, finished: Path, tmp_path: Path, run: Run, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "pairs.tsv").write_text("cat\tdog\t3\nsun\tmoon\t4\n")
    (tmp_path / "empty.sqlite").touch()
    os.mkfifo(tmp_path / "pipe")
    with sqlite3.connect(tmp_path / "foreign.sqlite") as foreign:
        foreign.execute("CREATE TABLE other (x)")
    foreign.close()
    before = sorted(tmp_path.rglob("*"))
    check_refusal(run(*(str(finished) if word == "OUT" else word for word in words), "--json"), code, hint)
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "pipe").is_fifo() and (tmp_path / "empty.sqlite").stat().st_size == 0


@pytest.mark.parametrize(
    "statement", ["UPDATE entries SET rounds = 1 WHERE seq = 1", "DELETE FROM entries WHERE seq = 9"]
)
@pytest.mark.parametrize("command", ["show", "verify"])
def test_altered_ledger(statement: str, command: str, finished: Path, tmp_path: Path, run: Run) -> None:
    copy = tmp_path / "ledger.sqlite"
    shutil.copy(finished / "ledger.sqlite", copy)
    book = sqlite3.connect(copy)
    triggers = book.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
    for name, _ in triggers:
        book.execute(f"DROP TRIGGER {name}")
    book.execute(statement)
    for _, sql in triggers:  # put back, so that only the chain can tell
        book.execute(sql)
    book.commit()
    book.close()
    check_refusal(run("ledger", command, tmp_path, "--json"), 8, "row ")


def test_an_existing_export_is_replaced_whole_or_kept(
    finished: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "x.txt"
    target.write_text("old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for name in formats.names():
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", full)
            out = target if formats.load(name).suffix else tmp_path / "folder"
            check_refusal(run("export", finished, "--format", name, "--out", out, "--json"), 13, "the disk is full")
        assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]
    assert run("export", finished, "--format", "glove_text", "--out", target)[0] == 0
    assert target.read_text().startswith("wa ")


def test_every_command_teaches(run: Run) -> None:
    names = [name for group in GROUPS.values() for name in group]
    for words in (*((name,) for name in names), ("ledger", "show"), ("ledger", "verify"), ("roster", "sign")):
        code, page, err = run(*words, "--help")
        assert (code, err) == (0, "") and len(page.splitlines()) > 6 and "\\[" not in page
        assert "Example: " in page or words in {("doctor",), ("ledger",), ("roster",)}, words
    assert all(f"  {code} " in run("--help")[1] for code in range(16))
