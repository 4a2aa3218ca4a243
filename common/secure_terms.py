"""Terms of a round of secure aggregation, which coordinator and clients derive alike from the run's public work."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from common.errors import PrivacyConfigError
from common.privacy.distributed import vector_length
from common.privacy.grid import SecureSum
from common.secagg.graph import degree
from common.secagg.roster import Roster
from common.secagg.terms import PhaseTerms, Terms
from common.table import IntArray
from common.update import Parameters, ParameterSpec
from common.work import Work

VOTES = "votes"  # on the rows that the round's values are for, where rows are selected
VALUES = "values"  # the last phase of every round, and the one phase of a round over all rows


# exception: what tells one round's terms from another's, all of them keywords.
def round_terms(work: Work, run: str, *, number: int, attempt: int, cohort: int, roster: Roster | None = None) -> Terms:
    """Terms of round ``number`` for a cohort of this size, among the members of ``roster`` where the plan has one.

    The model itself is no part of them, so that adverts can be made before it is known: its digest is bound into the
    masks (``model_digest``).

    Raises:
        PrivacyConfigError: another mode, or a threshold that no graph among so many clients serves; no roster where
            the plan counts on one, or one where it does not.
    """
    secure = secure_sum(work)
    if secure.roster != (roster is not None):
        raise PrivacyConfigError("the terms of a round need a roster exactly where the plan counts on one")
    neighbours, threshold = neighbourhood(secure, cohort)
    return Terms(
        run=run,
        round=number,
        attempt=attempt,
        phases=phases_of(work, number),
        least_cohort=secure.survivors,
        least_survivors=secure.survivors,
        degree=neighbours,
        neighbour_threshold=threshold,
        config_hash=config_digest(work),
        model_hash=specs_digest(work.specs),
        roster_hash=b"" if roster is None else roster.file_hash,
    )


def phases_of(work: Work, number: int) -> tuple[PhaseTerms, ...]:
    """The vectors of round ``number``: all numbers of an update, and before them, in rounds that select, the votes."""
    values = PhaseTerms(VALUES, secure_sum(work).bits, vector_length(work.plan, work.sum_specs))
    votes = work.plan.votes
    if votes is None or not votes.selects(number):
        return (values,)
    return PhaseTerms(VOTES, work.plan.vote_grid.bits, votes.rows), values


def secure_sum(work: Work) -> SecureSum:
    """The plan's secure sum. Raises ``PrivacyConfigError`` in every other mode."""
    if work.plan.secure is None:
        raise PrivacyConfigError(f"mode {work.plan.mode!r} has no secure aggregation")
    return work.plan.secure


def neighbourhood(secure: SecureSum, cohort: int) -> tuple[int, int]:
    """Neighbours of each client and how many of them open its secrets, for c colluders and T survivors of ``cohort``.

    Raises:
        PrivacyConfigError: T is so far below the cohort that the dropouts it allows could open secrets themselves.
    """
    dropping = max(0.0, 1 - secure.survivors / cohort)
    if not secure.survivors <= cohort <= secure.max_clients:
        raise PrivacyConfigError(
            f"{cohort} clients are asked, and the plan is for {secure.survivors} to {secure.max_clients}",
            remedy="Set federation.min_clients and max_clients around the number of clients that take part.",
        )
    most = (1 / 3 if secure.roster else 1 / 2) - secure.colluders / cohort
    if dropping >= most:
        raise PrivacyConfigError(
            f"min_clients = {secure.survivors} of {cohort} lets {dropping:.0%} of the clients drop out; with "
            f"{secure.colluders} colluders fewer than {max(most, 0):.0%} may, or they could open each other's secrets",
            remedy="Raise federation.min_clients to seven tenths of the clients or more, or lower colluders.",
        )
    # c of the T that must stay, so that what is chosen also stands for fewer clients than were asked.
    colluding = min(secure.colluders / secure.survivors, (cohort - 1) / cohort)
    return degree(cohort, colluding=colluding, dropping=dropping, signed=secure.roster)


def config_digest(work: Work) -> bytes:
    """SHA-256 over scenario, plan and rows: clients of other settings refuse the round."""
    rows = "" if work.domain is None else work.domain.digest
    return hashlib.sha256(f"{work.scenario.digest} {work.plan.digest} {rows}".encode()).digest()


def specs_digest(specs: Sequence[ParameterSpec]) -> bytes:
    """SHA-256 over names and shapes of the model."""
    return hashlib.sha256(repr([(s.name, s.shape) for s in specs]).encode()).digest()


def model_digest(parameters: Parameters, specs: Sequence[ParameterSpec]) -> bytes:
    """SHA-256 over every parameter: masks of clients that were sent different models do not cancel."""
    found = hashlib.sha256()
    for spec in specs:
        value = np.ascontiguousarray(parameters[spec.name], dtype="<f4")
        found.update(f"{spec.name} {value.shape} ".encode())
        found.update(value.data if value.size else b"")
    return found.digest()


def rows_digest(rows: IntArray, model: bytes) -> bytes:
    """SHA-256 over the rows selected, ascending, and ``model_digest``: clients sent other rows get no sum either."""
    return hashlib.sha256(b"selected rows " + np.ascontiguousarray(rows, dtype="<i8").tobytes() + model).digest()
