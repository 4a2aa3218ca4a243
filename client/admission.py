"""A run that a node takes part in, and the ledger account that it belongs to."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from client.ledger import Reservation
from client.policy import Refusal
from common.privacy.accounting import event_to_json
from common.units import ClientStore
from common.work import Work


@dataclass(frozen=True)
class Admission:
    """A run that this node takes part in: its terms, its data, and the ledger account that both belong to."""

    run: str
    work: Work
    clients: ClientStore
    fingerprints: tuple[str, ...]

    @property
    def account(self) -> str:
        """The run's name in the ledger. Its terms are part of it: a run with other terms is another account."""
        domain = "" if self.work.domain is None else self.work.domain.digest
        terms = hashlib.sha256(f"{self.work.scenario.digest} {domain}".encode()).hexdigest()
        return f"{self.run}/{terms[:32]}"

    def reservation(self, coordinator: str) -> Reservation:
        """What the whole planned run costs one data set (to be filled in).

        A run in test mode is booked as unprotected: its noise can be subtracted by whoever knows the seed.
        """
        from dp_accounting import NonPrivateDpEvent

        plan = self.work.plan
        event = NonPrivateDpEvent() if plan.test_mode else plan.round_event("public")
        return Reservation(
            fingerprint="",
            unit=plan.unit,
            run=self.account,
            coordinator=coordinator,
            event_json=json.dumps(event_to_json(event), sort_keys=True),
            rounds=plan.rounds,
            delta=plan.delta,
        )


class RefusedError(Exception):
    """Carries a refusal out of the ledger's transaction, which is rolled back."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.code)
        self.refusal = refusal
