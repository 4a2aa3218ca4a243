"""What leaves a client in example mode: its trained rows among rows of noise, or the rows that were selected."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from common.privacy.mechanisms.gaussian import GRID_BITS
from common.table import IntArray
from common.update import ParameterSpec, RowBatch, UpdateBatch

if TYPE_CHECKING:
    from common.privacy.plan import PrivacyPlan
    from common.privacy.rng import NoiseSource
    from common.privacy.table_optimizer import RowNoise

Deltas = dict[str, NDArray[np.float64]]

ROWS_AT_ONCE = 65_536  # bounds the float64 copies of a large table's noise


class StepSize(Protocol):
    """What is needed of ``common.families.LocalTraining``."""

    @property
    def batch_size(self) -> int: ...

    @property
    def lr(self) -> float: ...


def full_update(
    specs: Sequence[ParameterSpec],
    deltas: Deltas,
    kept: IntArray,
    *,
    plan: PrivacyPlan,
    training: StepSize,
    source: NoiseSource,
) -> UpdateBatch:
    """The trained rows among the rows of noise, as one contribution."""
    factor = training.lr / training.batch_size
    stddev = plan.noise_stddev * math.sqrt(plan.local_steps)
    tables, dense = {}, {}
    for spec in specs:
        if spec.is_table:
            values = _rows_of_noise(source.derive("untouched", spec.name), spec, factor=factor, stddev=stddev)
            values[kept] = _on_grid(deltas[spec.name], factor * stddev)
            offsets = np.array([0, spec.shape[0]], dtype=np.int64)
            tables[spec.name] = RowBatch(offsets, np.arange(spec.shape[0], dtype=np.int64), values)
        else:
            dense[spec.name] = _on_grid(deltas[spec.name], factor * stddev)[None]
    return UpdateBatch(count=1, rows=tables, dense=dense)


def selected_update(
    specs: Sequence[ParameterSpec],
    deltas: Deltas,
    guards: Mapping[str, RowNoise],
    *,
    plan: PrivacyPlan,
    training: StepSize,
) -> UpdateBatch:
    """The rows that some step selected, as one contribution."""
    stddev = training.lr / training.batch_size * plan.noise_stddev
    tables, dense = {}, {}
    for spec in specs:
        if spec.is_table:
            rows, values = guards[spec.name].changed()
            tables[spec.name] = RowBatch(np.array([0, len(rows)]), rows, _on_grid(values.numpy(), stddev))
        else:
            dense[spec.name] = _on_grid(deltas[spec.name], stddev)[None]
    return UpdateBatch(count=1, rows=tables, dense=dense)


def _rows_of_noise(source: NoiseSource, spec: ParameterSpec, *, factor: float, stddev: float) -> NDArray[np.float32]:
    """The update of a whole table that nobody trained: ``-factor`` times noise of ``stddev``, on the grid."""
    values = np.empty(spec.shape, dtype=np.float32)
    for start in range(0, len(values), ROWS_AT_ONCE):
        block = values[start : start + ROWS_AT_ONCE]
        block[:] = _on_grid(-factor * source.normal(block.shape, stddev).astype(np.float64), factor * stddev)
    return values


def _on_grid(values: NDArray[np.float64], stddev: float) -> NDArray[np.float32]:
    """Round to multiples of a public power of two near ``stddev / 4096``, the Gaussian mechanism's.

    Trained rows are sums of several terms and untrained rows are one scaled draw: unrounded, their low-order bits
    would tell which rows this client touched (Mironov 2012 on floating-point noise). The variance grows by 5e-9.
    """
    grid = 2.0 ** (math.floor(math.log2(stddev)) - GRID_BITS)
    return (np.rint(values / grid) * grid).astype(np.float32)
