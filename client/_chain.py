"""The ledger's table, its hash chain and the errors of its file; ``client.ledger`` is the door to it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from common.errors import FedembedError, LedgerError, StorageError

APPLICATION_ID = 0x66656D62  # "femb": marks the file as a ledger
VERSION = 1
BUSY_TIMEOUT_MS = 60_000
GENESIS = hashlib.sha256(b"fedembed ledger 1").digest()

# AUTOINCREMENT: SQLite itself remembers the highest number, so rows cut off at the end are missed.
SCHEMA = (
    "CREATE TABLE entries (seq INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, fingerprint TEXT, run TEXT, "
    "unit TEXT, coordinator TEXT, event TEXT, rounds INTEGER, delta REAL, bundle TEXT, "
    "account INTEGER, round INTEGER, attempt INTEGER, hash BLOB NOT NULL)",
    "CREATE UNIQUE INDEX reserved ON entries (fingerprint, unit, run) WHERE kind = 'reserve'",
    "CREATE UNIQUE INDEX charged ON entries (account, round, attempt) WHERE kind = 'charge'",
    "CREATE TRIGGER no_update BEFORE UPDATE ON entries BEGIN SELECT RAISE(ABORT, 'append-only'); END",
    "CREATE TRIGGER no_delete BEFORE DELETE ON entries BEGIN SELECT RAISE(ABORT, 'append-only'); END",
)
_CANONICAL = json.JSONEncoder(separators=(",", ":"), default=repr)  # repr: a blob where text should be is no match
_STORAGE_CODES = (
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
)


class Entry(NamedTuple):
    """One row of the ledger: a reservation, a charge, or the beginning of a day; what does not apply is None.

    Attributes:
        seq: 1, 2, 3, ... without gaps.
        kind: ``reserve``, ``charge`` or ``day`` (``run`` is then its ISO date).
        account: of a charge: the row of the reservation that it belongs to.
    """

    seq: int
    kind: str
    fingerprint: str | None = None
    run: str | None = None
    unit: str | None = None
    coordinator: str | None = None
    event: str | None = None
    rounds: int | None = None
    delta: float | None = None
    bundle: str | None = None
    account: int | None = None
    round: int | None = None
    attempt: int | None = None

    def hash_after(self, previous: bytes) -> bytes:
        """SHA-256 over the previous row's hash and the canonical JSON of this row."""
        return hashlib.sha256(previous + _CANONICAL.encode(self).encode()).digest()


RESTORE = "Restore the ledger from a backup; never delete it, and find out who altered it."
INSERT = f"INSERT INTO entries ({', '.join(Entry._fields)}, hash) VALUES ({', '.join('?' * (len(Entry._fields) + 1))})"
SELECT = f"SELECT {', '.join(Entry._fields)}, hash FROM entries"


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into ours.

    Raises:
        StorageError: the disk is full, read-only or failing.
        LedgerError: another process holds the ledger, or the file is damaged.
    """
    try:
        yield
    except sqlite3.Error as error:
        raise _explained(path, error) from None


def _explained(path: Path, error: sqlite3.Error) -> FedembedError:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code in _STORAGE_CODES:
        return StorageError(
            f"the ledger {path} cannot be written or opened ({error}); nothing was computed",
            remedy="Free disk space and make the ledger's folder writable: without a ledger nothing may be spent.",
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return LedgerError(
            f"the ledger {path} was held by another process for {BUSY_TIMEOUT_MS // 1000} s",
            remedy="Wait for the other process, or end it.",
        )
    return LedgerError(f"the ledger {path} is damaged or no ledger ({error})")


def connect(path: Path, *, create: bool) -> sqlite3.Connection:
    """A connection in WAL mode with full synchronisation; the file is readable by its owner alone.

    Raises:
        LedgerError: no such ledger, or the file is something else.
        StorageError: see ``translated``.
    """
    if create and not path.exists():
        _touch(path)
    elif not path.is_file():
        raise LedgerError(f"no ledger at {path}", remedy="Check the path; a run creates its ledger itself.")
    with translated(path):
        connection = sqlite3.connect(
            path, timeout=BUSY_TIMEOUT_MS / 1000, isolation_level=None, check_same_thread=False
        )
    try:
        with translated(path):
            if not create and not _check_marks(connection, path):
                raise LedgerError(
                    f"{path} is empty, not a ledger", remedy="Restore it from a backup if it once was a ledger."
                )
            _prepare(connection, path)
    except FedembedError:
        connection.close()
        raise
    return connection


def _touch(path: Path) -> None:
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # SQLite syncs the file, and the folder only for its journals
        finally:
            os.close(folder)
    except OSError as error:
        raise StorageError(f"the ledger {path} cannot be created ({error.strerror})") from None


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    _check_marks(connection, path)  # before anything is changed: the file may be somebody else's
    if connection.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
        raise LedgerError(
            f"the file system of {path} cannot hold a write-ahead log", remedy="Keep the ledger on a local disk."
        )
    for pragma in ("synchronous = FULL", "fullfsync = ON", "checkpoint_fullfsync = ON", "cache_size = -65536"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute("BEGIN IMMEDIATE")  # two processes may open a new ledger at once
    if not _check_marks(connection, path):
        for statement in SCHEMA:
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute("COMMIT")


def _check_marks(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether the file is a ledger already; False for an empty one. Raises ``LedgerError`` for anything else."""
    application, version = (connection.execute(f"PRAGMA {n}").fetchone()[0] for n in ("application_id", "user_version"))
    if application == 0 and not connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
        return False
    if application != APPLICATION_ID:
        raise LedgerError(f"{path} is a database of something else, not a ledger", remedy="Check the path.")
    if version != VERSION:
        raise LedgerError(f"{path} is a ledger of version {version}, this is {VERSION}", remedy="Upgrade fedembed.")
    return True


def flaw(connection: sqlite3.Connection, head: str | None) -> str:
    """The first thing that is wrong with a ledger, in words; empty if it is whole and runs through ``head`` (hex)."""
    return _structural_flaw(connection) or _chain_flaw(connection, head)


def _structural_flaw(connection: sqlite3.Connection) -> str:
    found = {row[0] for row in connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")}
    if not found.issuperset(SCHEMA):
        return "its table, indexes or append-only triggers were altered"
    if len(found) > len(SCHEMA) + 1:  # sqlite_sequence is SQLite's own
        return "it holds tables or triggers that are not a ledger's"
    sound = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    return "" if sound == "ok" else "the database file is damaged"


def _chain_flaw(connection: sqlite3.Connection, head: str | None) -> str:
    seq, previous, seen = 0, GENESIS, head in (None, GENESIS.hex())
    try:
        for entry, stored in entries_with_hashes(connection):
            seq += 1
            previous = entry.hash_after(previous)
            if entry.seq != seq or stored != previous:
                return f"row {seq} is altered, missing or out of order"
            seen = seen or previous.hex() == head
    except sqlite3.OperationalError:  # text that is no longer UTF-8
        return f"row {seq + 1} is altered, missing or out of order"
    highest = connection.execute("SELECT MAX(seq) FROM sqlite_sequence").fetchone()[0] or 0
    if highest != seq:
        return f"row {seq + 1} is missing: rows were cut off at the end"
    return "" if seen else "it does not run through the head given, so it was replaced or put back"


def entries_with_hashes(connection: sqlite3.Connection) -> Iterator[tuple[Entry, bytes]]:
    """All rows in order."""
    for row in connection.execute(f"{SELECT} ORDER BY seq"):
        yield Entry(*row[:-1]), row[-1]


def last(connection: sqlite3.Connection) -> tuple[int, bytes]:
    """Number and hash of the last row; 0 and the genesis hash where there is none."""
    row = connection.execute("SELECT seq, hash FROM entries ORDER BY seq DESC LIMIT 1").fetchone()
    return (int(row[0]), bytes(row[1])) if row else (0, GENESIS)


def append(connection: sqlite3.Connection, entries: Sequence[Entry]) -> None:
    """Add rows, each hashed after the one before it, inside the caller's transaction."""
    previous = last(connection)[1]
    rows = []
    for entry in entries:
        previous = entry.hash_after(previous)
        rows.append((*entry, previous))
    connection.executemany(INSERT, rows)
