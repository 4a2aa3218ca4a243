"""What the ledger keeps when its file is altered, its process killed, or several write at once."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from pathlib import Path

import pytest

from client._chain import SCHEMA
from client.ledger import Ledger, Reservation
from common.errors import LedgerError, StorageError

GAUSS = json.dumps({"event": "gaussian", "noise_multiplier": 2.0}, sort_keys=True)


def reservation(fingerprint: str = "d1") -> Reservation:
    return Reservation(fingerprint, "client", "r1", "hub", GAUSS, 3, 1e-6)


def _filled(path: Path) -> Path:
    with Ledger.open(path) as ledger:
        ledger.reserve([reservation(f"d{i}") for i in range(3)])
        for number in range(3):
            ledger.charge("r1", number, 0, ["d0", "d2"])
        ledger.verify()
    return path


def _tampered(path: Path, *statements: str) -> str:
    """Alter the file behind the ledger's back, put the triggers back, and return what ``verify`` says."""
    raw = sqlite3.connect(path)
    for name in ("no_update", "no_delete"):
        raw.execute(f"DROP TRIGGER {name}")
    for statement in statements:
        raw.execute(statement)
    for statement in SCHEMA[-2:]:
        raw.execute(statement)
    raw.commit()
    raw.close()
    with Ledger.open(path) as ledger, pytest.raises(LedgerError) as caught:
        ledger.verify()
    return caught.value.message


@pytest.mark.parametrize(
    ("change", "row"),
    [
        *((f"UPDATE entries SET {c} = 'x' WHERE seq = 2", 2) for c in ("kind", "fingerprint", "run", "unit")),
        *((f"UPDATE entries SET {c} = 'x' WHERE seq = 2", 2) for c in ("coordinator", "event", "bundle", "hash")),
        *((f"UPDATE entries SET {c} = 7 WHERE seq = 5", 5) for c in ("account", "round", "attempt")),
        ("UPDATE entries SET rounds = 2 WHERE seq = 1", 1),
        ("UPDATE entries SET delta = delta / 2 WHERE seq = 1", 1),
        ("UPDATE entries SET unit = CAST(unit AS BLOB) WHERE seq = 2", 2),
        ("UPDATE entries SET unit = CAST(x'ff' AS TEXT) WHERE seq = 2", 2),
        ("UPDATE entries SET attempt = NULL WHERE seq = 9", 9),
        ("UPDATE entries SET hash = zeroblob(32) WHERE seq = 9", 9),
        ("DELETE FROM entries WHERE seq = 4", 4),
        ("DELETE FROM entries WHERE seq = 1", 1),
        ("DELETE FROM entries WHERE seq = 9", 9),
        ("DELETE FROM entries WHERE seq >= 8", 8),
        ("DELETE FROM entries", 1),
        ("UPDATE entries SET seq = 20 WHERE seq = 9", 9),
        ("INSERT INTO entries (kind, account, round, attempt, hash) VALUES ('charge', 1, 9, 9, zeroblob(32))", 10),
        ("INSERT INTO entries (seq, kind, hash) VALUES (0, 'x', zeroblob(32))", 1),
    ],
)
def test_verify_names_the_first_bad_row(tmp_path: Path, change: str, row: int) -> None:
    assert f"row {row} is" in _tampered(_filled(tmp_path / "l.sqlite"), change)


def test_verify_finds_an_altered_structure(tmp_path: Path) -> None:
    path = _filled(tmp_path / "l.sqlite")
    assert "not a ledger's" in _tampered(path, "CREATE TABLE extra (x)")
    assert "row 4" in _tampered(path, "DROP TABLE extra", "UPDATE entries SET round = 8 WHERE seq = 4")
    raw = sqlite3.connect(path)
    raw.execute("DROP TRIGGER no_update")
    raw.close()
    with Ledger.open(path) as ledger, pytest.raises(LedgerError, match="triggers were altered"):
        ledger.verify()


def test_a_head_kept_elsewhere_shows_an_old_copy(tmp_path: Path) -> None:
    path = _filled(tmp_path / "l.sqlite")
    old = path.read_bytes()
    with Ledger.open(path) as ledger:
        early = ledger.head()[1]
        ledger.charge("r1", 7, 0, ["d0"])
        late = ledger.head()[1]
        ledger.verify(early)
        ledger.verify(late)
    path.write_bytes(old)
    with Ledger.open(path) as ledger:
        ledger.verify(early)
        with pytest.raises(LedgerError, match="put back"):
            ledger.verify(late)


def test_flipped_bytes_are_found_or_change_nothing(tmp_path: Path) -> None:
    path = _filled(tmp_path / "l.sqlite")
    whole = path.read_bytes()
    with Ledger.open(path) as ledger:
        rows = list(ledger.rows())
    found = 0
    for at in range(0, len(whole), 97):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        try:
            with Ledger.open(path) as ledger:
                ledger.verify()
                assert list(ledger.rows()) == rows
        except (LedgerError, StorageError):
            found += 1
    assert found > 10


def test_threads_share_one_ledger(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path / "l.sqlite")
    ledger.reserve([reservation()])
    threads = [
        threading.Thread(target=lambda k=k: [ledger.charge("r1", i, k, ["d1"]) for i in range(10)]) for k in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ledger.spent("d1", "client").total() == 40
    ledger.verify()
    ledger.close()


GOOD = """
    for number in range(start, start + count):
        ledger.charge("r1", number, 0, names)
        print(number, flush=True)
"""
BROKEN = """
    for number in range(start, start + count):
        print(number, flush=True)
        time.sleep(0.05)
        ledger.charge("r1", number, 0, names)
"""


def _child(root: Path, path: Path, loop: str, start: int, count: int) -> subprocess.Popen[str]:
    head = f"import time\nfrom client.ledger import Ledger\nstart, count = {start}, {count}\n"
    body = f"names = [f'd{{i}}' for i in range(20)]\nwith Ledger.open({str(path)!r}) as ledger:\n"
    code = head + body + textwrap.indent(textwrap.dedent(loop), "    ")
    return subprocess.Popen([sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE, text=True)


def _undercounted(root: Path, path: Path, loop: str, lives: int) -> int:
    """Kill children in the middle of their charges; how many acknowledged charges the ledger lost."""
    with Ledger.open(path) as ledger:
        ledger.reserve([reservation(f"d{i}") for i in range(20)])
    acknowledged: set[int] = set()
    for life in range(lives):
        child = _child(root, path, loop, life * 10_000, 10_000)
        assert child.stdout is not None
        for _ in range(2 + 3 * life):
            acknowledged.add(int(child.stdout.readline()))
        os.kill(child.pid, signal.SIGKILL)
        rest = child.stdout.read().split("\n")[:-1]  # an acknowledgement that was not written whole is none
        acknowledged.update(int(line) for line in rest)
        child.wait()
        child.stdout.close()
    with Ledger.open(path) as ledger:
        ledger.verify()
        charged = Counter(e.round for e in ledger.rows() if e.kind == "charge")
    assert set(charged.values()) <= {20}, "a round is charged whole or not at all"
    return len(acknowledged - set(charged))


def test_a_killed_process_never_undercounts(root: Path, tmp_path: Path) -> None:
    assert _undercounted(root, tmp_path / "l.sqlite", GOOD, lives=5) == 0


def test_the_kill_test_rejects_acknowledging_too_early(root: Path, tmp_path: Path) -> None:
    assert _undercounted(root, tmp_path / "l.sqlite", BROKEN, lives=2) > 0


def test_processes_charge_at_the_same_time(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    with Ledger.open(path) as ledger:
        ledger.reserve([reservation(f"d{i}") for i in range(20)])
    children = [_child(root, path, GOOD, k * 100, 25) for k in range(3)]
    assert [child.communicate()[0].count("\n") for child in children] == [25, 25, 25]
    with Ledger.open(path) as ledger:
        ledger.verify()
        assert ledger.spent("d7", "client").total() == 75


def test_two_openings_of_a_new_file_agree(tmp_path: Path) -> None:
    first, second = Ledger.open(tmp_path / "l.sqlite"), Ledger.open(tmp_path / "l.sqlite")
    first.reserve([reservation()])
    second.charge("r1", 0, 0, ["d1"])
    assert list(first.rows()) == list(second.rows())
    first.close()
    second.close()
