"""What an adversary computes itself, to say whose data an update of an encoder was made of.

It knows every client's data, and asks who sent what. Updates of tables name rows, and are compared by them; those of
encoders name nothing. In the first round, whose parameters are public before the run, it computes the update of every
client, with seeds of its own and without noise; later rounds would tell the same again and cost a round each.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

from client.training import Randomness, isolated_updates, local_training
from common.evaluation.view import RoundView
from common.update import Parameters, UpdateBatch
from simulations.audit.families import ordinary
from simulations.audit.planting import Planted

MOST_REHEARSED = 2**27  # numbers of all clients' updates together: half a gigabyte
_SEED = 1_000_003  # of the adversary's own order of batches, which no client has


def with_rehearsal(rounds: tuple[RoundView, ...], planted: Planted, start: Parameters) -> tuple[RoundView, ...]:
    """Rounds as the adversary saw them; of encoders, those of the first round's updates with its own beside them.

    Args:
        rounds: of a run, the first one first, each one's sum before its updates.
        start: the public parameters before training.
    """
    numbers = planted.real_clients * sum(prod(spec.shape) for spec in planted.work.update_specs)
    if any(spec.is_table for spec in planted.work.update_specs) or numbers > MOST_REHEARSED:
        return rounds
    total, *later = rounds
    if not later or later[0].updates is None:  # nobody's update of the first round is in view
        return rounds
    return (total, replace(later[0], rehearsed=rehearsed(planted, start)), *later[1:])


def rehearsed(planted: Planted, start: Parameters) -> UpdateBatch:
    """The first round's update of every real client before noise, computed anew."""
    clients = [ordinary(planted.store.client(k)) for k in range(planted.real_clients)]
    seeds = [Randomness(_SEED + k) for k in range(len(clients))]
    return isolated_updates(planted.work, start, clients, training=local_training(planted.work, 1), randomness=seeds)
