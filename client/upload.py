"""How much a node sends, known before anything is computed: it follows from the plan, never from the data."""

from __future__ import annotations

import math

from client.policy import Policy, Refusal, check_message
from common.secagg.sizes import vector_bytes
from common.secagg.terms import PhaseTerms
from common.secure_terms import phases_of
from common.work import Work

_NUMBER_BYTES, _ID_BYTES = 4, 8
_FRAME_BYTES = 256  # around one client's answer: its number, status and loss, and the name of the run; rounded up


def check_upload(policy: Policy, work: Work, clients: int = 1, *, phase: PhaseTerms | None = None) -> Refusal | None:
    """Whether the policy allows an answer for so many clients; one client is the least that a run can ask for.

    A refusal after the computation would depend on the data (how many rows they touch), and one record more could take
    the others' contributions out: so the bound is the same for all data.

    Args:
        phase: of the round, under secure aggregation; ``None``: the largest of any.
    """
    return check_message(policy, clients * _bytes_of_one(work, phase))


def _bytes_of_one(work: Work, phase: PhaseTerms | None) -> int:
    """Most bytes of one client's answer: its masked vector, or every row of every table with its number."""
    if work.plan.mode == "distributed":
        return max(map(vector_bytes, phases_of(work, 1) if phase is None else (phase,)))  # round 1 has every phase
    specs = work.update_specs
    ids = sum(spec.shape[0] for spec in specs if spec.is_table)
    numbers = sum(math.prod(spec.shape) for spec in specs)
    return numbers * _NUMBER_BYTES + ids * _ID_BYTES + _FRAME_BYTES + 2 * _ID_BYTES * len(specs)
