"""The client's own record of the privacy it has spent: durable before anything is computed, append-only, hash-chained.

Spend is *reserved* for a whole planned run and *charged* round by round, each in one transaction that is on disk
before the call returns; a crash in between can only over-count. A run costs the larger of what it reserved and what
it was charged. Data sets are named by a fingerprint; spend adds up over runs, jobs and coordinators.

What is spent under one privacy unit is an account of its own: a bound for sentences says nothing about documents.
``units`` lists the accounts of a data set, and a policy should not let a coordinator open a second one.

The chain shows altered, inserted, removed and reordered rows. Somebody who can write the file can make a new chain, or
put an old copy back: keep ``head()`` elsewhere and give it to ``verify``.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from client._chain import RESTORE, Entry, append, connect, entries_with_hashes, flaw, last, translated
from client._composition import composed_epsilon
from client._reservation import LIMIT, Reservation, check_reservation, check_text
from common.errors import LedgerError

__all__ = ["Entry", "Ledger", "Reservation"]

_LATEST = "MAX(r.seq, COALESCE((SELECT MAX(c.seq) FROM entries c WHERE c.kind = 'charge' AND c.account = r.seq), 0))"
_CHARGES = "(SELECT COUNT(*) FROM entries c WHERE c.kind = 'charge' AND c.account = r.seq)"


class Ledger:
    """One SQLite file; several processes and threads may use it at once.

    Every method raises ``StorageError`` where the disk is full or not writable, and ``LedgerError`` where the file is
    damaged, belongs to something else, or is held by another process for a minute.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, today: Callable[[], str] | None = None) -> None:
        self.path = path
        self._connection = connection
        self._today = today
        self._lock = threading.RLock()

    @classmethod
    def open(cls, path: Path | str, *, create: bool = True, today: Callable[[], str] | None = None) -> Self:
        """Open a ledger; without one, make it (``create``) or raise ``LedgerError``.

        With ``today`` (ISO dates), a row says when a new day begins, so that ``spent`` can look at a period.
        """
        return cls(Path(path), connect(Path(path), create=create), today)

    def close(self) -> None:
        """Close the file. The ledger cannot be used afterwards."""
        with self._lock, translated(self.path):
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def reserve(
        self, reservations: Sequence[Reservation], *, admit: Callable[[Reservation], None] | None = None
    ) -> None:
        """Write planned spend, all or nothing. Reserving the same again changes nothing.

        ``admit`` is asked about every new reservation inside the transaction, so that no other process can spend in
        between; what it raises undoes everything and reaches the caller.

        Raises:
            LedgerError: a (fingerprint, unit, run) is reserved with other terms, or rounds or event make no sense.
        """
        wanted: dict[tuple[str, str, str], Reservation] = {}
        for item in reservations:
            check_reservation(item)
            if wanted.setdefault((item.fingerprint, item.unit, item.run), item) != item:
                raise LedgerError(f"two reservations of run {item.run} differ", remedy="Start a run under a new name.")
        with self._transaction() as connection:
            for run in {item.run for item in wanted.values()}:
                names = [item.fingerprint for item in wanted.values() if item.run == run]
                for row in self._accounts(", ".join(Entry._fields), run, names):
                    entry = Entry(*row)
                    key = (str(entry.fingerprint), str(entry.unit), run)
                    if key in wanted and wanted.pop(key).entry(entry.seq) != entry:
                        raise LedgerError(
                            f"run {run} has already reserved other terms (row {entry.seq})",
                            remedy="Start a run with other settings under a new name.",
                        )
            if admit is not None:
                for item in wanted.values():
                    admit(item)
            start = self._next_row(connection)
            append(connection, [item.entry(start + i) for i, item in enumerate(wanted.values())])

    def charge(self, run: str, round_number: int, attempt: int, fingerprints: Sequence[str]) -> list[str]:
        """Record that these data sets take part in an attempt at a round; on disk before this returns.

        The same attempt is refused a second time: whoever asks for it again would get a second noised answer.

        Returns:
            The data sets that have now been charged more often than they reserved.

        Raises:
            LedgerError: a data set has no reservation in this run, or the attempt was charged before.
        """
        if not (0 <= round_number < LIMIT and 0 <= attempt < LIMIT):
            raise LedgerError("rounds and attempts count from 0", remedy="Check the coordinator's messages.")
        check_text(run, *fingerprints)
        with self._transaction() as connection:
            accounts = self._accounts("fingerprint, seq", run, fingerprints)
            missing = len(set(fingerprints) - {row[0] for row in accounts})
            if missing:
                raise LedgerError(
                    f"run {run} has no reservation for {missing} of the data sets it wants to charge",
                    remedy="Reserve the run first: what a round costs is not known without.",
                )
            numbers = sorted(row[1] for row in accounts)
            repeated = connection.execute(
                "SELECT COUNT(*) FROM json_each(?) WHERE EXISTS (SELECT 1 FROM entries WHERE "
                "kind = 'charge' AND account = value AND round = ? AND attempt = ?)",
                (json.dumps(numbers), round_number, attempt),
            ).fetchone()[0]
            if repeated:
                raise LedgerError(
                    f"attempt {attempt} at round {round_number} of run {run} was charged before: this is a replay",
                    remedy="A coordinator that tries a round again gives the attempt a new number.",
                )
            start = self._next_row(connection)
            append(
                connection,
                [
                    Entry(start + i, "charge", account=account, round=round_number, attempt=attempt)
                    for i, account in enumerate(numbers)
                ],
            )
            beyond = "SELECT fingerprint FROM entries r WHERE seq IN (SELECT value FROM json_each(?)) AND rounds < "
            return [row[0] for row in connection.execute(beyond + _CHARGES, (json.dumps(numbers),))]

    def spent(self, fingerprint: str, unit: str, since: str = "") -> Counter[str]:
        """Event (JSON) -> how often it counts against this data set and unit, over all runs.

        With ``since`` (an ISO date), over runs that were reserved or charged on that day or later: these in full.
        """
        counts: Counter[str] = Counter()
        query = f"SELECT r.event, MAX(r.rounds, {_CHARGES}) FROM entries r WHERE r.kind = 'reserve' "
        query += f"AND r.fingerprint = ? AND r.unit = ? AND {_LATEST} >= ?"
        for event, count in self._fetch(query, fingerprint, unit, self._row_of(since)):
            counts[event] += count
        return counts

    def units(self, fingerprint: str) -> tuple[str, ...]:
        """The privacy units under which this data set has ever been used, sorted."""
        query = "SELECT DISTINCT unit FROM entries WHERE kind = 'reserve' AND fingerprint = ? ORDER BY unit"
        return tuple(row[0] for row in self._fetch(query, fingerprint))

    # exception: a parameter for each thing that an account is asked about; the last two are keywords.
    def epsilon(
        self, fingerprint: str, unit: str, delta: float, extra: Mapping[str, int] | None = None, *, since: str = ""
    ) -> float:
        """Epsilon of everything spent on this data set and unit, and of ``extra`` events (JSON -> count) on top.

        Composition by ``common.privacy.accounting`` (adaptive composition of the stored events); ``inf`` once the
        data took part in a run without noise.

        Raises:
            PrivacyConfigError: delta out of range, or an event that no accountant covers.
        """
        total = self.spent(fingerprint, unit, since)
        for event, count in (extra or {}).items():
            total[event] += count
        return composed_epsilon(tuple(sorted(total.items())), delta)

    def accounts(self) -> Iterator[tuple[Entry, int]]:
        """Every reservation with the number of its charges, in order: what ``fedembed ledger show`` prints."""
        query = f"SELECT r.*, {_CHARGES} FROM entries r WHERE r.kind = 'reserve' ORDER BY r.seq"
        for row in self._fetch(query):
            yield Entry(*row[:-2]), row[-1]  # the last but one is the hash

    def rows(self) -> Iterator[Entry]:
        """Every row in order."""
        with self._lock, translated(self.path):
            for entry, _ in entries_with_hashes(self._connection):
                yield entry

    def head(self) -> tuple[int, str]:
        """Number and hash (hex) of the last row: kept elsewhere, it shows a ledger that was put back or replaced."""
        with self._lock, translated(self.path):
            seq, previous = last(self._connection)
        return seq, previous.hex()

    def verify(self, head: str | None = None) -> None:
        """Recompute the whole chain; with ``head`` (hex), demand that the chain runs through it.

        Raises:
            LedgerError: names the first row that is altered, missing or out of order.
        """
        with self._lock, translated(self.path):
            wrong = flaw(self._connection, head)
        if wrong:
            raise LedgerError(f"the ledger {self.path} does not verify: {wrong}", remedy=RESTORE)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, translated(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def _next_row(self, connection: sqlite3.Connection) -> int:
        """Number of the next row, after one for the day where that has changed. Days never go back: clocks may."""
        seq = last(connection)[0] + 1
        if self._today is None:
            return seq
        found = connection.execute("SELECT MAX(run) FROM entries WHERE kind = 'day'").fetchone()[0]
        today = self._today()
        if found is not None and today <= found:
            return seq
        append(connection, [Entry(seq, "day", run=today)])
        return seq + 1

    def _row_of(self, since: str) -> int:
        """The first row of a day or later; where none is dated so late, a number beyond every row."""
        if not since:
            return 0
        found = self._fetch("SELECT MIN(seq) FROM entries WHERE kind = 'day' AND run >= ?", since)[0][0]
        return LIMIT if found is None else int(found)

    def _fetch(self, query: str, *values: str | int) -> list[Any]:
        with self._lock, translated(self.path):
            return self._connection.execute(query, values).fetchall()

    def least_delta(self, fingerprint: str, unit: str, delta: float) -> float:
        """The smallest delta that a run on this data set and unit has stated; ``delta`` where none is smaller."""
        query = "SELECT MIN(delta) FROM entries WHERE kind = 'reserve' AND fingerprint = ? AND unit = ?"
        found = self._fetch(query, fingerprint, unit)[0][0]
        return delta if found is None else min(delta, float(found))

    def has_reserved(self, run: str, fingerprint: str) -> bool:
        """Whether this data set has a reservation in a run."""
        return bool(self._accounts("seq", run, [fingerprint]))

    def _accounts(self, columns: str, run: str, fingerprints: Sequence[str]) -> list[Any]:
        """The given columns of a run's reservations for these data sets."""
        query = f"SELECT {columns} FROM entries WHERE kind = 'reserve' AND run = ? AND fingerprint IN "
        return self._fetch(query + "(SELECT value FROM json_each(?))", run, json.dumps(list(fingerprints)))
