"""Mode distributed on the client: from units and global parameters to the integers that enter the secure sum."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import numpy as np

from client.training import FAILURES, Randomness, isolated_updates, unit_contributions
from common.errors import PrivacyConfigError
from common.families import LocalTraining
from common.privacy.distributed import Masked, client_vector, client_vectors, sum_of_units, vector_length
from common.privacy.rotation import rotation_seed
from common.table import IntArray
from common.units import Units
from common.update import Parameters
from common.work import Work

LOGGER = logging.getLogger("fedembed.client")


# exception: what a round needs, as in ``client.training.client_updates``, and its number.
def client_integers(
    work: Work,
    parameters: Parameters,
    clients: Sequence[Units],
    *,
    training: LocalTraining,
    randomness: Sequence[Randomness],
    round_number: int,
) -> Iterator[Masked]:
    """What the given clients put into the secure sum of a round, one client at a time: shape (length,), unsigned.

    Every client sends integers, whatever its data: where they break the arithmetic, zeros with its share of the noise.

    Args:
        clients: encoded data of each client.
        randomness: of each client in this round, with a source of noise that nobody else has.
        round_number: from 1; the rotation of whole updates is that of the round.

    Raises:
        PrivacyConfigError: another mode, or a seeded source of noise outside test mode.
    """
    plan = work.plan
    if plan.mode != "distributed":
        raise PrivacyConfigError(f"mode {plan.mode!r} has no secure sum")
    sources = [own.required_noise for own in randomness]
    if not plan.unit_is_client:
        return _of_units(work, parameters, clients, randomness)
    updates = isolated_updates(work, parameters, clients, training=training, randomness=randomness)
    turn = rotation_seed(work.scenario.seed, round_number)
    return client_vectors(plan, work.update_specs, updates, sources, rotation_seed=turn)


def _of_units(
    work: Work, parameters: Parameters, clients: Sequence[Units], randomness: Sequence[Randomness]
) -> Iterator[Masked]:
    """One client after the other: each unit is rounded by itself, and the integers are summed exactly.

    When all of several clients fail, the fault is in the program and not in anybody's data: it is raised.
    """
    plan, specs, failed = work.plan, work.update_specs, 0
    for units, own in zip(clients, randomness, strict=True):
        source = own.required_noise
        try:
            integers: IntArray = sum_of_units(plan, specs, unit_contributions(work, parameters, units), source)
        except FAILURES as error:
            integers = np.zeros(vector_length(plan, specs), dtype=np.int64)
            failed += 1
            LOGGER.warning("a computation failed (%s) and contributes nothing", type(error).__name__)
            if failed == len(clients) > 1:
                raise
        yield client_vector(plan, specs, integers, source)
