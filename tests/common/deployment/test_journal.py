"""The structured log: whole lines from writers at once, cut lines skipped, no fact that crowds out the others."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from common.deployment import journal
from common.deployment.journal import LONGEST_TEXT, Journal


def test_lines_of_writers_at_once_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"

    def write(number: int) -> None:
        for k in range(50):
            Journal(path).write("counted", {"writer": number, "k": k, "text": "x" * 500})

    threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = sorted((line["writer"], line["k"]) for line in Journal(path).read())
    assert found == [(n, k) for n in range(8) for k in range(50)]


def test_cut_lines_and_others_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    Journal(path).write("first", {})
    with path.open("ab") as file:
        file.write(b'{"time": "2026-\n\xff\xfe\n5\n[1]\nnull\n' + b"[" * 100_000 + b"\n")
    Journal(path).write("last", {})
    assert [line["event"] for line in Journal(path).read()] == ["first", "last"]


def test_what_others_say_cannot_forge_or_crowd_out_lines(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    said = 'a"}\n{"event": "forged"}\n' + "x" * 10**6
    Journal(path).write("answered", {"reason": said, "event": "forged", "time": "never"})
    (line,) = Journal(path).read()
    assert line["event"] == "answered" and line["time"] != "never"
    assert line["reason"] == said[:LONGEST_TEXT] and path.stat().st_size < 3 * LONGEST_TEXT


def test_a_full_file_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "LARGEST_BYTES", 200)
    path = tmp_path / "log.jsonl"
    for k in range(10):
        Journal(path).write("counted", {"k": k})
    assert path.stat().st_size <= 300 and path.with_name("log.jsonl.1").exists()
    assert list(Journal(path).read())[-1]["k"] == 9


def test_a_disk_that_takes_nothing_loses_the_line_alone(tmp_path: Path) -> None:
    Journal(tmp_path / "absent" / "log.jsonl").write("lost", {})
    Journal(Path("/dev/full")).write("lost", {})
    assert list(Journal(tmp_path / "absent" / "log.jsonl").read()) == []


def test_others_cannot_write_it(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        Journal(tmp_path / "log.jsonl").write("x", {"path": Path("/a"), "n": 1})
    finally:
        os.umask(old)
    assert (tmp_path / "log.jsonl").stat().st_mode & 0o777 == 0o640
    assert json.loads((tmp_path / "log.jsonl").read_text())["path"] == "/a"


def test_no_more_is_read_than_a_journal_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "LARGEST_BYTES", 1000)
    monkeypatch.setattr(journal, "LONGEST_LINE", 200)
    path = tmp_path / "journal.jsonl"
    whole = json.dumps({"event": "x"})
    path.write_text("y" * 10_000 + "\n" + whole + "\n")
    assert list(Journal(path).read()) == []
    path.write_text("y" * 500 + "\n" + (whole + "\n") * 2)
    assert len(list(Journal(path).read())) == 2


@pytest.mark.parametrize("kind", ["a pipe", "a link", "a folder", "nothing"])
def test_what_is_no_file_is_not_read(tmp_path: Path, kind: str) -> None:
    """Root reads what an agent's account wrote: a pipe would hold it for ever, a link show it another's file."""
    path, other = tmp_path / "journal.jsonl", tmp_path / "other.jsonl"
    Journal(other).write("secret", {})
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a link":
        path.symlink_to(other)
    elif kind == "a folder":
        path.mkdir()
    assert list(Journal(path).read()) == []
    assert len(list(Journal(other).read())) == 1
