"""Clipping gone wrong: the sensitivity is larger than the noise is scaled for."""

from __future__ import annotations

import numpy as np

from common.evaluation.conformance import Subject
from common.privacy.clipping import ClippedBatch, clip
from common.privacy.plan import PrivacyPlan
from common.privacy.private_sum import PrivateSum
from common.table import FloatArray
from common.update import RowBatch, UpdateBatch, scaled, squared_norms
from simulations.mutants import Mutant


def _factors(norms: np.ndarray, bound: float) -> np.ndarray:
    return np.minimum(1.0, bound / np.maximum(norms, 1e-300))


def _no_clip(batch: UpdateBatch, bound: float) -> ClippedBatch:
    return ClippedBatch(batch, 0, 0)


def _per_table(batch: UpdateBatch, bound: float) -> ClippedBatch:
    rows: dict[str, RowBatch] = {}
    dense: dict[str, FloatArray] = {}
    for name, table in batch.rows.items():
        rows |= clip(UpdateBatch(batch.count, {name: table}, {}), bound).batch.rows
    for name, array in batch.dense.items():
        dense |= clip(UpdateBatch(batch.count, {}, {name: array}), bound).batch.dense
    return ClippedBatch(UpdateBatch(batch.count, rows, dense), 0, 0)


def _tables_only(batch: UpdateBatch, bound: float) -> ClippedBatch:
    tables = clip(UpdateBatch(batch.count, batch.rows, {}), bound).batch
    return ClippedBatch(UpdateBatch(batch.count, tables.rows, batch.dense), 0, 0)


def _repeats_apart(batch: UpdateBatch, bound: float) -> ClippedBatch:
    return ClippedBatch(scaled(batch, _factors(np.sqrt(squared_norms(batch)), bound)), 0, 0)


def _passes_nan(batch: UpdateBatch, bound: float) -> ClippedBatch:
    with np.errstate(invalid="ignore"):
        norms = np.sqrt(squared_norms(batch))
        too_long = norms > bound  # false for NaN: the contribution is left as it is
    return ClippedBatch(scaled(batch, np.where(too_long, _factors(norms, bound), 1.0)), 0, 0)


def _norm_of_batch(batch: UpdateBatch, bound: float) -> ClippedBatch:
    """One factor for all contributions, from their mean norm."""
    mean = float(np.sqrt(squared_norms(batch)).mean())
    return ClippedBatch(scaled(batch, np.full(batch.count, min(1.0, bound / max(mean, 1e-300)))), 0, 0)


def _entrywise(batch: UpdateBatch, bound: float) -> ClippedBatch:
    """Clamps values instead of norms."""
    rows = {n: RowBatch(t.offsets, t.ids, np.clip(t.values, -bound, bound)) for n, t in batch.rows.items()}
    return ClippedBatch(
        UpdateBatch(batch.count, rows, {n: np.clip(a, -bound, bound) for n, a in batch.dense.items()}), 0, 0
    )


class _WeightedSum(PrivateSum):
    """Weighs contributions after clipping, by how many rows they touch: a client-declared size."""

    __slots__ = ()

    def add(self, batch: UpdateBatch) -> None:
        weights = np.ones(batch.count)
        for table in batch.rows.values():
            weights = np.maximum(weights, np.diff(table.offsets))
        super().add(scaled(batch, weights))


def _twice_the_bound(batch: UpdateBatch, bound: float) -> ClippedBatch:
    """Bounds the difference of two units instead of one unit."""
    return clip(batch, 2 * bound)


def _colliding(batch: UpdateBatch, bound: float) -> ClippedBatch:
    """n-grams that hash to one row are clipped as rows of their own, and added up afterwards."""
    offsets = np.arange(batch.count + 1)
    rows: dict[str, RowBatch] = {}
    for name, table in batch.rows.items():
        apart = RowBatch(table.offsets, np.arange(len(table.ids)), table.values)
        done = clip(UpdateBatch(batch.count, {name: apart}, {}), bound / len(batch.rows) ** 0.5).batch.rows[name]
        rows[name] = RowBatch(table.offsets, table.ids, done.values)
    dense = {name: array * 0 for name, array in batch.dense.items() if len(offsets)}
    return ClippedBatch(UpdateBatch(batch.count, rows, dense), 0, 0)


class _DeclaredSum(PrivateSum):
    """Weighs a contribution by what the client says its norm was before the clip: the longest count most."""

    __slots__ = ()

    def add(self, batch: UpdateBatch) -> None:
        norms = np.sqrt(squared_norms(batch))
        super().add(scaled(batch, 1 + 9 * (norms >= norms.max() * (1 - 1e-9))))


def _realised_cohort(plan: PrivacyPlan, enrolled: int, taking_part: int) -> float:
    return float(taking_part)


_NAMED = {
    "no clip at all": _no_clip,
    "clip per table instead of joint": _per_table,
    "dense layers left out of the clip": _tables_only,
    "repeated rows not summed before the norm": _repeats_apart,
    "one clip factor for the whole batch": _norm_of_batch,
    "values clamped instead of the norm bounded": _entrywise,
    "clip at twice the bound": _twice_the_bound,
    "hashed n-grams that collide clipped apart": _colliding,
}

MUTANTS = (
    *(Mutant(name, "sensitivity", Subject(clip=function)) for name, function in _NAMED.items()),
    Mutant("clip that passes NaN", "total_clip", Subject(clip=_passes_nan)),
    Mutant("weight declared by a client", "sensitivity", Subject(make_sum=_DeclaredSum)),
    Mutant("mean over those who took part", "cardinality", Subject(divisor=_realised_cohort)),
    Mutant("contributions weighted after the clip", "sensitivity", Subject(make_sum=_WeightedSum)),
)
