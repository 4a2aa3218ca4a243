"""The cohort of a simulated secure sum: where a scenario leaves it open, it follows from the clients that there are."""

from __future__ import annotations

import math

from common.config import Scenario
from common.errors import PrivacyConfigError

USUAL_SHARE = 0.9  # of the clients, whose noise is accounted where nothing is said and no faults are simulated
ASSUMED_CLIENTS = 100  # where a plan is made before anybody enrols
_STDDEVS = 4  # of the number of simulated faults


def cohort_is_open(scenario: Scenario) -> bool:
    """Whether the scenario leaves it to the simulation how many clients a secure sum is for."""
    return scenario.privacy.mode == "distributed" and scenario.federation.max_clients == 0


def with_cohort(scenario: Scenario, clients: int) -> Scenario:
    """The scenario for a cohort of ``clients``: ``max_clients`` is their number, ``min_clients`` nine in ten of them.

    Where faults are simulated, ``min_clients`` is what they leave but for four standard deviations. A scenario that
    names ``max_clients`` stays as it is.

    Raises:
        PrivacyConfigError: the cohort is drawn by chance, so that its size is not known.
    """
    if not cohort_is_open(scenario):
        return scenario
    federation = scenario.federation
    if federation.sampling != "full":
        raise PrivacyConfigError(
            "how many clients a sampled round has is not known in advance",
            remedy="Set federation.max_clients and min_clients, or sampling = 'full'.",
        )
    faults = min(1.0, federation.dropout + federation.stragglers)
    spread = _STDDEVS * math.sqrt(faults * (1 - faults) / max(clients, 1))
    share = min(USUAL_SHARE, 1 - faults - spread)
    least = federation.min_clients if federation.min_clients > 1 else max(2, math.ceil(share * clients))
    changed = federation.model_copy(update={"min_clients": least, "max_clients": max(clients, least)})
    return scenario.model_copy(update={"federation": changed})
