"""Who asks sites to take part in a run."""

from __future__ import annotations

from dataclasses import dataclass

from common.announcement import announcement
from common.secagg.keys import Identity


@dataclass(frozen=True)
class Sender:
    """Who asks sites to take part.

    Attributes:
        identity: key that signs the announcement of a run; ``None`` in a simulation.
        bundle: hash of the code that the coordinator runs.
    """

    identity: Identity | None = None
    bundle: str = ""

    def signed(self, run: str, scenario: str, domain: str) -> dict[str, str]:
        """What goes with the announcement of a run."""
        if self.identity is None:
            return {}
        text = announcement(run=run, scenario=scenario, domain=domain, bundle=self.bundle)
        signature = self.identity.sign(text).hex()
        return {"signer": self.identity.public.hex(), "signature": signature, "bundle": self.bundle}


NOBODY = Sender()
