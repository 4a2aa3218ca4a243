"""Selected rows in mode distributed on the client: its votes on rows, and its update's integers on some of them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import numpy as np

from client.training import FAILURES, Randomness, isolated_updates
from common.errors import PrivacyConfigError
from common.families import LocalTraining
from common.privacy.distributed import Masked
from common.privacy.rotation import rotation_seed
from common.privacy.row_votes import RowVotes
from common.privacy.selected_rows import Words, client_votes, noised_votes, selected_vectors
from common.table import IntArray
from common.units import Units
from common.update import Parameters
from common.work import Work

LOGGER = logging.getLogger("fedembed.client")


def row_votes(work: Work, clients: Sequence[Units], randomness: Sequence[Randomness]) -> Iterator[Words]:
    """What the given clients put into the sum of votes, one client at a time: shape (V,), unsigned; nothing is trained.

    Every client sends a vector, whatever its data: where they break the arithmetic, its share of the noise alone.

    Raises:
        PrivacyConfigError: no votes in this plan, or a seeded source of noise outside test mode.
    """
    terms, grid = _terms(work), work.plan.vote_grid
    for units, own in zip(clients, randomness, strict=True):
        source = own.required_noise
        try:
            votes = client_votes(terms, work.family.held_rows(units), source)
        except FAILURES as error:
            LOGGER.warning("a client's rows cannot be told (%s) and get no votes", type(error).__name__)
            votes = np.zeros(terms.rows, np.int64)
        yield noised_votes(grid, votes, source, test_mode=work.plan.test_mode)


# exception: what a round needs, as in ``client.integers.client_integers``, and the rows selected.
def selected_integers(
    work: Work,
    parameters: Parameters,
    clients: Sequence[Units],
    *,
    training: LocalTraining,
    randomness: Sequence[Randomness],
    round_number: int,
    rows: IntArray,
) -> Iterator[Masked]:
    """What the given clients put into the sum of values, for ``rows``, one client at a time: shape (length,), unsigned.

    Raises:
        PrivacyConfigError: no votes in this plan, or a seeded source of noise outside test mode.
    """
    _terms(work)
    sources = [own.required_noise for own in randomness]
    updates = isolated_updates(work, parameters, clients, training=training, randomness=randomness)
    turn = rotation_seed(work.scenario.seed, round_number)
    return selected_vectors(work.plan, work.sum_specs, updates, sources, rows=rows, rotation_seed=turn)


def _terms(work: Work) -> RowVotes:
    if work.plan.votes is None:
        raise PrivacyConfigError("no client votes on rows in this run")
    return work.plan.votes
