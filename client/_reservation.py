"""What a run reserves in a ledger, and what a reservation must be."""

from __future__ import annotations

from dataclasses import dataclass

from client._chain import Entry
from client._composition import event_of
from common.errors import LedgerError

LIMIT = 2**31


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


def check_reservation(item: Reservation) -> None:
    """Raise ``LedgerError`` for a reservation that makes no sense."""
    if not (1 <= item.rounds < LIMIT and 0 <= item.delta < 1 and item.fingerprint and item.run and item.unit):
        raise LedgerError(
            "a reservation needs a data set, a unit, a run, rounds >= 1 and 0 <= delta < 1",
            remedy="Check the plan of the run.",
        )
    check_text(item.run, item.coordinator, item.unit, item.fingerprint, item.bundle)
    event_of(item.event_json)


def check_text(*texts: str) -> None:
    """Raise ``LedgerError`` for a name that UTF-8 cannot hold."""
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        raise LedgerError("a name is not Unicode text", remedy="Check the coordinator's messages.") from None
