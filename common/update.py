"""Updates as rows and values: what clients compute, what is clipped, summed, noised and applied.

One type serves two levels. A batch of K *contributions* holds, for every table, the rows that contribution k
touches; K counts privacy units inside a client (families that are additive over units) or clients (a node that
hosts several of them). ``parameters`` is a plain mapping ``name -> float32 array``; a table has shape (V, D).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from common.table import FloatArray, IntArray

Parameters = Mapping[str, FloatArray]


@dataclass(frozen=True)
class ParameterSpec:
    """One array of the model.

    Attributes:
        name: unique within the family.
        shape: (V, D) for a table, anything for a dense layer.
        row_domain: name of the row domain of a table (``"words"``, ``"items"``); ``None`` for a dense layer.
    """

    name: str
    shape: tuple[int, ...]
    row_domain: str | None = None

    @property
    def is_table(self) -> bool:
        return self.row_domain is not None


@dataclass(frozen=True)
class RowBatch:
    """The rows of one table that K contributions touch.

    Attributes:
        offsets: shape (K + 1,), int64; contribution k owns entries ``offsets[k]:offsets[k + 1]``.
        ids: shape (R,), int64 row numbers; strictly increasing inside a contribution (repeats already summed).
        values: shape (R, D), float32.
    """

    offsets: IntArray
    ids: IntArray
    values: FloatArray

    @property
    def owners(self) -> IntArray:
        """Shape (R,): the contribution that owns each entry."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))


@dataclass(frozen=True)
class UpdateBatch:
    """K contributions to every parameter.

    Attributes:
        count: K.
        rows: table name -> RowBatch with K segments. A table without entries may be absent.
        dense: dense parameter name -> array of shape (K, *shape), float32.
    """

    count: int
    rows: Mapping[str, RowBatch] = field(default_factory=dict)
    dense: Mapping[str, FloatArray] = field(default_factory=dict)


def coalesce(owners: IntArray, ids: IntArray, values: FloatArray, *, count: int, rows: int) -> RowBatch:
    """Sum entries with equal (owner, id) and order them: the canonical form of RowBatch.

    Args:
        owners: shape (R,), values in [0, count).
        ids: shape (R,), values in [0, rows).
        values: shape (R, D).
    """
    keys = owners.astype(np.int64) * rows + ids
    unique, inverse = np.unique(keys, return_inverse=True)
    summed = segment_sum(values, inverse, len(unique))
    offsets = np.searchsorted(unique, np.arange(count + 1, dtype=np.int64) * rows)
    return RowBatch(offsets=offsets.astype(np.int64), ids=unique % rows, values=summed)


def segment_sum(values: FloatArray, segment: IntArray, count: int) -> FloatArray:
    """Sum rows of ``values`` (R, D) by ``segment`` (R,) into an array (count, D), in float64, rounded once at the end.

    In float32, rounding errors of a million summands would differ between neighbouring data sets by half a clip norm.
    """
    import torch  # heavy: only where numbers are crunched

    out = torch.zeros((count, values.shape[1]), dtype=torch.float64)
    if len(values):
        out.index_add_(0, torch.from_numpy(np.ascontiguousarray(segment)), torch.from_numpy(values).double())
    return out.float().numpy()


def squared_norms(batch: UpdateBatch) -> NDArray[np.float64]:
    """Squared L2 norm of each contribution over all tables and dense arrays jointly, shape (K,), float64."""
    total = np.zeros(batch.count, dtype=np.float64)
    for table in batch.rows.values():
        squares = np.einsum("rd,rd->r", table.values, table.values, dtype=np.float64)
        total += np.bincount(table.owners, weights=squares, minlength=batch.count)
    for array in batch.dense.values():
        flat = array.reshape(batch.count, -1)
        total += np.einsum("kd,kd->k", flat, flat, dtype=np.float64)
    return total


def scaled(batch: UpdateBatch, factors: NDArray[np.float64]) -> UpdateBatch:
    """Multiply contribution k by ``factors[k]``; a factor of exactly 0 gives exact zeros, also for NaN and Inf."""

    def times(values: FloatArray, by: NDArray[np.float64]) -> FloatArray:
        by = by.reshape((-1,) + (1,) * (values.ndim - 1))
        return np.where(by == 0.0, 0.0, values * by).astype(np.float32)

    with np.errstate(invalid="ignore", over="ignore"):
        rows = {name: RowBatch(t.offsets, t.ids, times(t.values, factors[t.owners])) for name, t in batch.rows.items()}
        dense = {name: times(array, factors) for name, array in batch.dense.items()}
    return UpdateBatch(batch.count, rows, dense)


def sum_groups(batch: UpdateBatch, groups: IntArray, count: int, *, specs: Iterable[ParameterSpec]) -> UpdateBatch:
    """Sum contribution k into contribution ``groups[k]`` of a batch of ``count``. Cost follows the entries, not V."""
    rows: dict[str, RowBatch] = {}
    for spec in specs:
        if spec.is_table and spec.name in batch.rows:
            t = batch.rows[spec.name]
            rows[spec.name] = coalesce(groups[t.owners], t.ids, t.values, count=count, rows=spec.shape[0])
    dense: dict[str, FloatArray] = {}
    for name, array in batch.dense.items():
        flat = segment_sum(array.reshape(batch.count, -1), groups, count)
        dense[name] = flat.reshape(count, *array.shape[1:])
    return UpdateBatch(count, rows, dense)


def summed(batch: UpdateBatch, specs: Iterable[ParameterSpec]) -> UpdateBatch:
    """The sum of all contributions as one contribution (K = 1)."""
    return sum_groups(batch, np.zeros(batch.count, np.int64), 1, specs=specs)


def concatenated(batches: list[UpdateBatch]) -> UpdateBatch:
    """The contributions of several batches, one after the other."""
    count = sum(b.count for b in batches)
    names = {n: None for b in batches for n in b.rows}
    rows = {name: _concatenated_rows([_segment(b, name) for b in batches if b.count]) for name in names}
    dense_names = {n: None for b in batches for n in b.dense}
    dense = {name: np.concatenate([b.dense[name] for b in batches if b.count]) for name in dense_names}
    return UpdateBatch(count, rows, dense)


def _segment(batch: UpdateBatch, name: str) -> RowBatch | int:
    """The rows of ``name``, or how many empty segments stand for them."""
    return batch.rows.get(name, batch.count)


def _concatenated_rows(parts: list[RowBatch | int]) -> RowBatch:
    sizes = [np.diff(p.offsets) if isinstance(p, RowBatch) else np.zeros(p, np.int64) for p in parts]
    real = [p for p in parts if isinstance(p, RowBatch)]
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(sizes))]).astype(np.int64)
    return RowBatch(offsets, np.concatenate([p.ids for p in real]), np.concatenate([p.values for p in real]))
