"""Checks of secure aggregation: attacks that an honest client must refuse, and what must hold of every round.

They run the real clients against a coordinator that lies (:mod:`.joining`, :mod:`.summing`), look at what a round
leaves behind (:mod:`.secrecy`), and try what a node adds to the protocol (:mod:`.node`, :mod:`.limits`).
What an honest coordinator takes of a message is in :mod:`.serving`, what a site asks of a run in :mod:`.gate`, and of
its code in :mod:`.approving`. ``simulations.mutants`` has broken variants (``secagg``, ``node``, ``coordinator``,
``gate``); every one must be found by the check that it names.
"""

from __future__ import annotations

from common.evaluation.conformance import Check
from simulations.protocol_checks.approving import APPROVING
from simulations.protocol_checks.gate import GATE
from simulations.protocol_checks.joining import JOINING
from simulations.protocol_checks.limits import LIMITS
from simulations.protocol_checks.node import NODE
from simulations.protocol_checks.secrecy import SECRECY
from simulations.protocol_checks.serving import SERVING
from simulations.protocol_checks.summing import SUMMING

PROTOCOL = tuple(
    Check(check.__name__, "P", lambda bench, seed, check=check: check(), random=False)  # type: ignore[misc]
    for check in (*JOINING, *SUMMING, *SECRECY, *NODE, *LIMITS, *SERVING, *GATE, *APPROVING)
)
