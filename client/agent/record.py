"""What an agent has done, for its operator: messages answered and refused, privacy spent and left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from client.agent.home import POLICY_FILE, AgentHome
from client.ledger import Ledger
from client.node import ACTIVITY_FILE
from client.policy import read_policy
from common.deployment.journal import Journal

LEDGER_FILE = "ledger.sqlite"
LATEST_REFUSALS = 5


@dataclass(frozen=True)
class Spent:
    """One account of the ledger beside the policy's limit.

    Attributes:
        epsilon: of everything spent, at the largest delta that a run stated.
        left: of ``max_epsilon``; epsilon does not add up, so a run that costs exactly this may still fit.
    """

    unit: str
    rounds: int
    delta: float
    epsilon: float
    left: float


def spent(home: AgentHome) -> list[Spent]:
    """Account by account; empty before the first run."""
    path = home.inside("state", LEDGER_FILE)
    if not path.exists():
        return []
    from client.cli import accounts

    limit = read_policy(home.inside(POLICY_FILE)).max_epsilon
    with Ledger.open(path, create=False) as ledger:
        found, _ = accounts(ledger)
    return [Spent(a.unit, a.charged, a.delta, a.epsilon, max(0.0, limit - a.epsilon)) for a in found]


def activity(home: AgentHome) -> dict[str, Any]:
    """Messages by kind and status, the latest refusals with their reasons, and the time of the last message."""
    lines = list(Journal(home.inside("state", ACTIVITY_FILE)).read())
    refused = [line for line in lines if line.get("status") in ("refused", "failed")]
    served = {(line.get("run"), line.get("round")) for line in lines if _is_served(line)}
    return {
        "answers": dict(Counter(f"{line.get('kind')}: {line.get('status')}" for line in lines)),
        "rounds_served": len(served),
        "refusals": refused[-LATEST_REFUSALS:],
        "last_contact": lines[-1].get("time") if lines else None,
    }


def _is_served(line: Mapping[str, object]) -> bool:
    """Whether this is the answer to a round, and not to one of the hops around it."""
    return line.get("status") == "done" and str(line.get("kind")).startswith("train.")
