"""What the coordinator makes of a released sum."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from common.privacy.private_sum import Released
from common.table import FloatArray
from common.work import Work
from server.rounds import Node


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
