"""Mode distributed: what clients put into a secure sum, and what the coordinator makes of the sum.

A client's integers are bounded, carry its share of the noise, and are taken modulo 2^bits; the sum over clients modulo
2^bits is all that secure aggregation hands out. docs/sensitivity.md section 11 derives the bounds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import PrivacyConfigError, WireError
from common.privacy.clipping import clip
from common.privacy.grid import Grid, share_fraction
from common.privacy.integer_noise import discrete_gaussian, skellam
from common.privacy.plan import PrivacyPlan
from common.privacy.private_sum import Released
from common.privacy.rng import NoiseSource
from common.privacy.rotation import rotated, unrotated
from common.privacy.rounding import Part, rounded
from common.table import IntArray
from common.update import ParameterSpec, UpdateBatch

Masked = NDArray[np.uint16] | NDArray[np.uint32]

_WIDTH = 1024  # a long vector is rounded in rows this wide


def vector_length(plan: PrivacyPlan, specs: Sequence[ParameterSpec]) -> int:
    """How many integers a client sends: all numbers of an update, padded to a power of two where they are rotated.

    Raises:
        PrivacyConfigError: the plan is of another mode or for updates of another size.
    """
    return _grid(plan, specs).length


def client_vectors(
    plan: PrivacyPlan,
    specs: Sequence[ParameterSpec],
    updates: UpdateBatch,
    sources: Sequence[NoiseSource],
    *,
    rotation_seed: int,
) -> Iterator[Masked]:
    """What each client sends where the whole client is the unit, one client at a time: shape (length,), unsigned.

    Clip, rotate, round within the norm bound, clamp, add the share of the noise, wrap. It never fails because of
    values: NaN or Inf make an update zero, and its noise is sent all the same.

    Args:
        updates: one contribution a client, in any size: it is clipped here.
        sources: of each client in this round, never seen by anybody else.
        rotation_seed: public, from ``rotation.rotation_seed``.

    Raises:
        PrivacyConfigError: another mode or unit, or a seeded source outside test mode.
    """
    grid = _grid(plan, specs)
    if not plan.unit_is_client:
        raise PrivacyConfigError("units inside a client are rounded one by one: sum_of_units and client_vector do that")
    clipped = clip(updates, plan.l2_clip_norm).batch
    for k, source in enumerate(sources):
        turned = rotated(_flat(clipped, k, specs, grid.length), rotation_seed).reshape(-1, min(_WIDTH, grid.length))
        part = Part(np.zeros(len(turned), np.int64), turned)
        (integers,) = rounded(
            [part],
            1,
            scale=grid.scale,
            most_squared_norm=grid.most_squared_norm,
            source=source.derive("rounding"),
        )
        yield client_vector(plan, specs, integers.reshape(-1), source)


def sum_of_units(
    plan: PrivacyPlan, specs: Sequence[ParameterSpec], batches: Iterable[UpdateBatch], source: NoiseSource
) -> IntArray:
    """One client's sum of units on the grid, shape (length,): each unit is clipped and rounded BY ITSELF.

    Cost follows the entries. Sums of integers are exact, so one unit more or less changes the result by its own
    integers and nothing else.

    Args:
        batches: contributions of this client's units, some at a time.
    """
    import torch  # index_add_ is several times faster than numpy's ufunc.at

    grid, rounding = _grid(plan, specs), source.derive("rounding")
    total = np.zeros(grid.length, dtype=np.int64)
    for batch in batches:
        clipped = clip(batch, plan.l2_clip_norm).batch
        present = [spec for spec in specs if spec.name in (clipped.rows if spec.is_table else clipped.dense)]
        parts = [_part(clipped, spec) for spec in present]
        whole = rounded(
            parts,
            clipped.count,
            scale=grid.scale,
            most_squared_norm=grid.most_squared_norm,
            source=rounding,
        )
        for spec, integers in zip(present, whole, strict=True):
            target = _segment(total, specs, spec)
            if spec.is_table:
                rows = torch.from_numpy(clipped.rows[spec.name].ids)
                torch.from_numpy(target.reshape(spec.shape)).index_add_(0, rows, torch.from_numpy(integers))
            else:
                target += integers.sum(axis=0)
    return total


def client_vector(plan: PrivacyPlan, specs: Sequence[ParameterSpec], integers: IntArray, source: NoiseSource) -> Masked:
    """One client's integers as they enter the secure sum: clamped, with its share of the noise, modulo 2^bits.

    Raises:
        PrivacyConfigError: a seeded source outside test mode, whose noise can be subtracted.
    """
    grid = _grid(plan, specs)
    if source.test_mode and not plan.test_mode:
        raise PrivacyConfigError("a seeded source of noise serves test mode alone: its noise can be subtracted")
    if integers.shape != (grid.length,):
        raise PrivacyConfigError(f"a client sends {grid.length} integers, not an array of shape {integers.shape}")
    return _wrapped(_clamped(integers, grid) + _share(grid, source.derive("share")), grid.secure.bits)


def released_from_sum(
    plan: PrivacyPlan, specs: Sequence[ParameterSpec], total: NDArray[Any], *, rotation_seed: int
) -> Released:
    """The noised sum over clients as values, from the integers modulo 2^bits that secure aggregation hands out.

    All of this is post-processing. The noise inside has the standard deviation ``plan.grid.noise_stddev(clients)``.

    Raises:
        WireError: not one unsigned integer below 2^bits for every number of an update.
        PrivacyConfigError: as ``vector_length``.
    """
    grid = _grid(plan, specs)
    modulus = 1 << grid.secure.bits
    if total.shape != (grid.length,) or total.dtype.kind != "u" or (len(total) and int(total.max()) >= modulus):
        raise WireError(f"a secure sum holds {grid.length} unsigned integers below 2^{grid.secure.bits}")
    centred = ((total.astype(np.int64) + modulus // 2) & (modulus - 1)) - modulus // 2
    values = centred / grid.scale
    if grid.shape.rotated:
        values = unrotated(values, rotation_seed)
    arrays = {s.name: _segment(values, specs, s).reshape(s.shape).astype(np.float32) for s in specs}
    tables = {s.name for s in specs if s.is_table}
    return Released(
        {n: (None, a) for n, a in arrays.items() if n in tables}, {n: arrays[n] for n in arrays.keys() - tables}
    )


def _grid(plan: PrivacyPlan, specs: Sequence[ParameterSpec]) -> Grid:
    grid = plan.grid
    size = sum(math.prod(spec.shape) for spec in specs)
    if size != grid.secure.dimension:
        raise PrivacyConfigError(f"the plan is for updates of {grid.secure.dimension} numbers, not of {size}")
    return grid


def _clamped(integers: IntArray, grid: Grid) -> IntArray:
    """Number by number, so neighbours come no further apart, in L1 or in L2."""
    return np.clip(integers, -grid.clamp, grid.clamp)


def _share(grid: Grid, source: NoiseSource) -> IntArray:
    if grid.shape.mechanism == "skellam":
        return skellam(source, grid.length, mu=share_fraction(grid))
    return discrete_gaussian(source, grid.length, sigma=share_fraction(grid))


def _wrapped(integers: IntArray, bits: int) -> Masked:
    modulo = integers & ((1 << bits) - 1)
    return modulo.astype(np.uint16) if bits == 16 else modulo.astype(np.uint32)


def _part(batch: UpdateBatch, spec: ParameterSpec) -> Part:
    if spec.is_table:
        table = batch.rows[spec.name]
        return Part(table.owners, table.values)
    return Part(np.arange(batch.count), batch.dense[spec.name].reshape(batch.count, -1))


def _flat(batch: UpdateBatch, k: int, specs: Sequence[ParameterSpec], length: int) -> NDArray[np.float64]:
    """Contribution ``k`` as one vector, padded with zeros."""
    vector = np.zeros(length)
    for spec in specs:
        target = _segment(vector, specs, spec)
        if not spec.is_table:
            target += batch.dense[spec.name][k].reshape(-1) if spec.name in batch.dense else 0.0
        elif spec.name in batch.rows:
            table = batch.rows[spec.name]
            lo, hi = table.offsets[k], table.offsets[k + 1]
            target.reshape(spec.shape)[table.ids[lo:hi]] = table.values[lo:hi]
    return vector


def _segment(vector: NDArray[Any], specs: Sequence[ParameterSpec], wanted: ParameterSpec) -> NDArray[Any]:
    """The numbers of one parameter, as a view; parameters stand one after the other in the order of the specs."""
    start = 0
    for spec in specs:
        size = math.prod(spec.shape)
        if spec == wanted:
            return vector[start : start + size]
        start += size
    raise PrivacyConfigError(f"no parameter {wanted.name!r}")
