"""What a coordinator signs when it asks sites to admit a run: everything that decides what the run does and costs."""

from __future__ import annotations

import hashlib
import json

_CONTEXT = "fedembed announcement 1"


def announcement(*, run: str, scenario: str, domain: str, bundle: str) -> bytes:
    """The text that is signed (Ed25519, RFC 8032): canonical JSON, so that no two announcements share a text.

    Args:
        run: its name in ledgers.
        scenario: canonical JSON.
        domain: digest of the row domain; empty where the family has none.
        bundle: hash of the code that the coordinator runs; may be empty.
    """
    scenario_digest = hashlib.sha256(scenario.encode()).hexdigest()
    return json.dumps([_CONTEXT, run, scenario_digest, domain, bundle], separators=(",", ":")).encode()
