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
import functools
import json
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from client._chain import RESTORE, Entry, append, connect, entries_with_hashes, flaw, last, translated
from common.errors import LedgerError

__all__ = ["Entry", "Ledger", "Reservation"]

_LIMIT = 2**31
_CHARGES = "(SELECT COUNT(*) FROM entries c WHERE c.kind = 'charge' AND c.account = r.seq)"


@dataclass(frozen=True)
class Reservation:
    """A run's planned spend on one data set.

    Attributes:
        fingerprint: names the data set (see ``client.fingerprint``).
        unit: the privacy unit that the run protects.
        run: the run's identifier.
        coordinator: who asks.
        event_json: one round, as JSON of ``common.privacy.accounting.event_to_json``.
        rounds: how many rounds are planned.
        delta: at which the run states its epsilon.
        bundle: hash of the approved code that runs; empty in a simulation.
    """

    fingerprint: str
    unit: str
    run: str
    coordinator: str
    event_json: str
    rounds: int
    delta: float
    bundle: str = ""

    def entry(self, seq: int) -> Entry:
        """The row that holds this reservation."""
        return Entry(
            seq=seq,
            kind="reserve",
            fingerprint=self.fingerprint,
            run=self.run,
            unit=self.unit,
            coordinator=self.coordinator,
            event=self.event_json,
            rounds=self.rounds,
            delta=self.delta,
            bundle=self.bundle,
        )


class Ledger:
    """One SQLite file; several processes and threads may use it at once.

    Every method raises ``StorageError`` where the disk is full or not writable, and ``LedgerError`` where the file is
    damaged, belongs to something else, or is held by another process for a minute.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        self._lock = threading.RLock()

    @classmethod
    def open(cls, path: Path | str, *, create: bool = True) -> Self:
        """Open a ledger; without one, make it (``create``) or raise ``LedgerError``."""
        return cls(Path(path), connect(Path(path), create=create))

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
            _check(item)
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
            start = last(connection)[0] + 1
            append(connection, [item.entry(start + i) for i, item in enumerate(wanted.values())])

    def charge(self, run: str, round_number: int, attempt: int, fingerprints: Sequence[str]) -> list[str]:
        """Record that these data sets take part in an attempt at a round; on disk before this returns.

        The same attempt is refused a second time: whoever asks for it again would get a second noised answer.

        Returns:
            The data sets that have now been charged more often than they reserved.

        Raises:
            LedgerError: a data set has no reservation in this run, or the attempt was charged before.
        """
        if not (0 <= round_number < _LIMIT and 0 <= attempt < _LIMIT):
            raise LedgerError("rounds and attempts count from 0", remedy="Check the coordinator's messages.")
        _check_text(run, *fingerprints)
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
            start = last(connection)[0] + 1
            append(
                connection,
                [
                    Entry(start + i, "charge", account=account, round=round_number, attempt=attempt)
                    for i, account in enumerate(numbers)
                ],
            )
            beyond = "SELECT fingerprint FROM entries r WHERE seq IN (SELECT value FROM json_each(?)) AND rounds < "
            return [row[0] for row in connection.execute(beyond + _CHARGES, (json.dumps(numbers),))]

    def spent(self, fingerprint: str, unit: str) -> Counter[str]:
        """Event (JSON) -> how often it counts against this data set and unit, over all runs."""
        counts: Counter[str] = Counter()
        query = f"SELECT r.event, MAX(r.rounds, {_CHARGES}) FROM entries r WHERE r.kind = 'reserve' "
        for event, count in self._fetch(query + "AND r.fingerprint = ? AND r.unit = ?", fingerprint, unit):
            counts[event] += count
        return counts

    def units(self, fingerprint: str) -> tuple[str, ...]:
        """The privacy units under which this data set has ever been used, sorted."""
        query = "SELECT DISTINCT unit FROM entries WHERE kind = 'reserve' AND fingerprint = ? ORDER BY unit"
        return tuple(row[0] for row in self._fetch(query, fingerprint))

    def epsilon(self, fingerprint: str, unit: str, delta: float, extra: Mapping[str, int] | None = None) -> float:
        """Epsilon of everything spent on this data set and unit, and of ``extra`` events (JSON -> count) on top.

        Composition by ``common.privacy.accounting`` (adaptive composition of the stored events); ``inf`` once the
        data took part in a run without noise.

        Raises:
            PrivacyConfigError: delta out of range, or an event that no accountant covers.
        """
        total = self.spent(fingerprint, unit)
        for event, count in (extra or {}).items():
            total[event] += count
        return _composed_epsilon(tuple(sorted(total.items())), delta)

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

    def _fetch(self, query: str, *values: str) -> list[Any]:
        with self._lock, translated(self.path):
            return self._connection.execute(query, values).fetchall()

    def _accounts(self, columns: str, run: str, fingerprints: Sequence[str]) -> list[Any]:
        """The given columns of a run's reservations for these data sets."""
        query = f"SELECT {columns} FROM entries WHERE kind = 'reserve' AND run = ? AND fingerprint IN "
        return self._fetch(query + "(SELECT value FROM json_each(?))", run, json.dumps(list(fingerprints)))


def _check(item: Reservation) -> None:
    if not (1 <= item.rounds < _LIMIT and 0 <= item.delta < 1 and item.fingerprint and item.run and item.unit):
        raise LedgerError(
            "a reservation needs a data set, a unit, a run, rounds >= 1 and 0 <= delta < 1",
            remedy="Check the plan of the run.",
        )
    _check_text(item.run, item.coordinator, item.unit, item.fingerprint, item.bundle)
    _event(item.event_json)


def _check_text(*texts: str) -> None:
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        raise LedgerError("a name is not Unicode text", remedy="Check the coordinator's messages.") from None


@functools.lru_cache(maxsize=256)  # pure: events are few, data sets many
def _event(event_json: str) -> object:
    from common.errors import FedembedError
    from common.privacy.accounting import event_from_json

    try:
        return event_from_json(json.loads(event_json))
    except (ValueError, TypeError, FedembedError):
        raise LedgerError("an event in a reservation is not one that can be accounted") from None


@functools.lru_cache(maxsize=4096)
def _composed_epsilon(events: tuple[tuple[str, int], ...], delta: float) -> float:
    import dp_accounting

    from common.privacy import accounting

    parts = [dp_accounting.SelfComposedDpEvent(_event(event), count) for event, count in events if count > 0]
    return accounting.epsilon(dp_accounting.ComposedDpEvent(parts), delta)
