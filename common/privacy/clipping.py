"""Joint L2 clipping of contributions: total, so every input gives a finite bounded result."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from common.errors import PrivacyConfigError, WireError
from common.table import IntArray
from common.update import RowBatch, UpdateBatch, coalesce, scaled, squared_norms

# Outside this range float32 rounding of tiny entries would be large beside the bound itself.
MIN_CLIP_NORM, MAX_CLIP_NORM = 1e-12, 1e12
# Rounding to float32 changes a norm by at most 2^-24 of it: a norm scaled to this share of the bound stays inside.
_MARGIN = 1.0 - 2.0**-22
_TOLERANCE = 1.0 + 1e-6


@dataclass(frozen=True)
class ClippedBatch:
    """Contributions of norm at most C. The two counts depend on private data: never publish them without noise.

    Attributes:
        batch: K contributions, rows ordered and summed, every value finite.
        clipped_fraction_count: contributions that were longer than C.
        rejected_count: contributions with NaN or Inf, now zero.
    """

    batch: UpdateBatch
    clipped_fraction_count: int
    rejected_count: int


def check_clip_norm(l2_clip_norm: float) -> float:
    """Return the bound. Raises ``PrivacyConfigError`` unless it lies in [1e-12, 1e12]."""
    if not MIN_CLIP_NORM <= l2_clip_norm <= MAX_CLIP_NORM:
        raise PrivacyConfigError(f"l2_clip_norm must lie in [{MIN_CLIP_NORM:g}, {MAX_CLIP_NORM:g}], not {l2_clip_norm}")
    return float(l2_clip_norm)


def clip(batch: UpdateBatch, l2_clip_norm: float) -> ClippedBatch:
    """Scale every contribution to L2 norm at most C over all tables and dense layers jointly.

    Repeated rows of a contribution are summed before its norm is taken. A contribution with NaN or Inf becomes zero.
    Values are float32; the norms are float64, where the square of no float32 overflows or vanishes.

    Args:
        batch: K contributions.
        l2_clip_norm: C, in [1e-12, 1e12].

    Raises:
        PrivacyConfigError: C is out of range.
        WireError: the arrays of the batch do not fit together.

    Source: Abadi et al. 2016 (arXiv 1607.00133), algorithm 1, applied to a contribution as a whole.
    """
    bound = check_clip_norm(l2_clip_norm)
    batch = canonical(batch)
    with np.errstate(invalid="ignore", over="ignore"):
        norms = np.sqrt(squared_norms(batch))
    bad = ~np.isfinite(norms)
    long = ~bad & (norms > bound)
    clipped = int(np.count_nonzero(norms[~bad] > bound * _TOLERANCE))
    if bad.any() or long.any():
        factors = np.ones(batch.count)
        factors[long] = bound * _MARGIN / norms[long]
        factors[bad] = 0.0
        batch = scaled(batch, factors)
    return ClippedBatch(batch, clipped, int(np.count_nonzero(bad)))


def canonical(batch: UpdateBatch) -> UpdateBatch:
    """The batch with rows ordered and repeats summed inside each contribution; the batch itself when it is already.

    Raises:
        WireError: offsets, ids, values or dense arrays do not fit together.
    """
    rows = {name: _canonical_rows(name, table, batch.count) for name, table in batch.rows.items()}
    for name, array in batch.dense.items():
        if array.ndim < 1 or array.shape[0] != batch.count:
            raise WireError(f"{name!r} has shape {array.shape}, but the batch holds {batch.count} contributions")
    return UpdateBatch(batch.count, rows, batch.dense)


def _canonical_rows(name: str, table: RowBatch, count: int) -> RowBatch:
    _check_rows(name, table, count)
    first = np.zeros(len(table.ids), dtype=bool)
    starts: IntArray = table.offsets[:-1]
    first[starts[starts < len(table.ids)]] = True
    if bool(np.all((np.diff(table.ids) > 0) | first[1:])):
        return table
    return coalesce(table.owners, table.ids, table.values, count=count, rows=int(table.ids.max()) + 1)


def _check_rows(name: str, table: RowBatch, count: int) -> None:
    offsets, entries = table.offsets, len(table.ids)
    if offsets.shape != (count + 1,) or offsets[0] != 0 or offsets[-1] != entries or bool(np.any(np.diff(offsets) < 0)):
        raise WireError(f"offsets of table {name!r} do not divide {entries} entries among {count} contributions")
    if table.values.ndim != 2 or len(table.values) != entries:
        raise WireError(f"table {name!r} has {entries} row ids but values of shape {table.values.shape}")
    if entries and int(table.ids.min()) < 0:
        raise WireError(f"table {name!r} has a negative row id")
