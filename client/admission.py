"""A run that a node takes part in, and the ledger account that it belongs to."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from client.ledger import Reservation
from client.policy import Refusal
from common.privacy.accounting import event_to_json
from common.units import ClientStore
from common.work import Work


@dataclass(frozen=True)
class Announced:
    """A run that a coordinator asks for, and the ledger account that its terms belong to.

    ``coordinator`` is who announced it, ``bundle`` the hash of the code that runs here.
    """

    run: str
    work: Work
    coordinator: str = ""
    bundle: str = ""

    @property
    def account(self) -> str:
        """The run's name in the ledger. Its terms are part of it: a run with other terms is another account."""
        domain = "" if self.work.domain is None else self.work.domain.digest
        terms = hashlib.sha256(f"{self.work.scenario.digest} {domain}".encode()).hexdigest()
        return f"{self.run}/{terms[:32]}"

    def account_of(self, part: str) -> str:
        """The account of a part of the plan (``PrivacyPlan.parts``): votes on rows happen less often than rounds."""
        return f"{self.account}/{part}" if part == "votes" else self.account

    def reservations(self) -> list[Reservation]:
        """What the whole planned run costs one data set (to be filled in), part by part.

        A run in test mode is booked as unprotected: its noise can be subtracted by whoever knows the seed.
        """
        from dp_accounting import NonPrivateDpEvent

        plan = self.work.plan
        return [
            Reservation(
                fingerprint="",
                unit=plan.unit,
                run=self.account_of(part),
                coordinator=self.coordinator,
                bundle=self.bundle,
                event_json=json.dumps(event_to_json(NonPrivateDpEvent() if plan.test_mode else event), sort_keys=True),
                rounds=times,
                delta=plan.delta,
            )
            for part, (event, times) in plan.parts("public", plan.rounds).items()
        ]

    def admitted(self, clients: ClientStore, fingerprints: tuple[str, ...]) -> Admission:
        """The run with this node's data."""
        return Admission(self.run, self.work, self.coordinator, self.bundle, clients=clients, fingerprints=fingerprints)


@dataclass(frozen=True, kw_only=True)
class Admission(Announced):
    """A run that this node takes part in with its data; ``fingerprints`` are the ledger's names for them."""

    clients: ClientStore
    fingerprints: tuple[str, ...]


def events_of(parts: Iterable[Reservation]) -> Counter[str]:
    """Event (JSON) -> how often, of all parts."""
    whole: Counter[str] = Counter()
    for part in parts:
        whole[part.event_json] += part.rounds
    return whole


class RefusedError(Exception):
    """Carries a refusal out of the ledger's transaction, which is rolled back."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.code)
        self.refusal = refusal


def refuse(refusal: Refusal | None) -> None:
    """Raise ``RefusedError`` where there is a refusal."""
    if refusal is not None:
        raise RefusedError(refusal)
