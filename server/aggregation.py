"""Which clients a round asks, and what the coordinator makes of the released sum."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from common.privacy.private_sum import Released
from common.privacy.rng import NoiseSource
from common.table import FloatArray, IntArray
from common.work import Work
from server.rounds import Node


def drawn_clients(work: Work, nodes: Sequence[Node], source: NoiseSource) -> dict[int, IntArray]:
    """Node -> numbers of its clients in a round: all, or each by itself with the public rate.

    Args:
        source: of this round; from the operating system, so that who was drawn is as secret as the accounting says.
    """
    federation = work.scenario.federation
    if federation.sampling == "full":
        return {n.node_id: np.arange(n.clients, dtype=np.int64) for n in nodes}
    hits = {n.node_id: source.derive("cohort", k).bernoulli(n.clients, federation.rate) for k, n in enumerate(nodes)}
    return {node: np.flatnonzero(hit).astype(np.int64) for node, hit in hits.items()}


def denominator(work: Work, nodes: Sequence[Node]) -> float:
    """A public constant: as configured, or the expected cohort from the public number of enrolled clients."""
    federation, server = work.scenario.federation, work.scenario.server
    enrolled = sum(n.clients for n in nodes)
    rate = federation.rate if federation.sampling == "poisson" else 1.0
    return server.denominator if server.denominator is not None else max(1.0, rate * enrolled)


def noise_of_sum(work: Work, nodes: Sequence[Node]) -> float:
    """Standard deviation of the noise in every entry of a released sum; in mode local the clients' noises add up."""
    shares = sum(n.clients for n in nodes) * work.plan.rate if work.plan.mode == "local" else 1.0
    return work.plan.noise_stddev * math.sqrt(max(1.0, shares))


def dense_sums(work: Work, released: Released) -> dict[str, FloatArray]:
    """The released sum with every row present: additive families read all of it."""
    dense = dict(released.dense)
    for spec in work.update_specs:
        if spec.is_table:
            ids, values = released.rows.get(
                spec.name, (np.empty(0, np.int64), np.empty((0, spec.shape[1]), np.float32))
            )
            if ids is None:
                dense[spec.name] = values
            else:
                dense[spec.name] = np.zeros(spec.shape, np.float32)
                dense[spec.name][ids] = values
    return dense
