"""What the contract checks share: well-formed arrays and batches, and comparisons of contributions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from common.update import UpdateBatch

from ._family_cases import Case

TOLERANCE = 2e-5


def fits(arrays: Mapping[str, np.ndarray], specs: Any) -> None:
    assert {name: array.shape for name, array in arrays.items()} == {spec.name: spec.shape for spec in specs}
    assert all(array.dtype == np.float32 and bool(np.isfinite(array).all()) for array in arrays.values())


def well_formed(batch: UpdateBatch, specs: Any, count: int) -> None:
    shapes = {spec.name: spec for spec in specs}
    assert batch.count == count
    assert set(batch.dense) == {name for name, spec in shapes.items() if not spec.is_table}
    assert set(batch.rows) <= {name for name, spec in shapes.items() if spec.is_table}
    for name, array in batch.dense.items():
        assert array.shape == (count, *shapes[name].shape) and array.dtype == np.float32
        assert bool(np.isfinite(array).all())
    for name, table in batch.rows.items():
        rows, dimensions = shapes[name].shape
        assert table.offsets.shape == (count + 1,) and table.offsets[0] == 0 and table.offsets[-1] == len(table.ids)
        assert bool(np.all(np.diff(table.offsets) >= 0)) and table.ids.dtype == np.int64
        assert bool(np.all((table.ids >= 0) & (table.ids < rows)))
        inside = np.diff(table.owners) == 0
        assert bool(np.all(np.diff(table.ids)[inside] > 0))
        assert table.values.shape == (len(table.ids), dimensions) and table.values.dtype == np.float32
        assert bool(np.isfinite(table.values).all())


def contribution(batch: UpdateBatch, k: int, specs: Any) -> dict[str, np.ndarray]:
    """Contribution k, every table as a dense array."""
    found = {name: array[k] for name, array in batch.dense.items()}
    for spec in specs:
        if spec.is_table:
            found[spec.name] = np.zeros(spec.shape, dtype=np.float32)
    for name, table in batch.rows.items():
        part = slice(int(table.offsets[k]), int(table.offsets[k + 1]))
        found[name][table.ids[part]] = table.values[part]
    return found


def size(arrays: Mapping[str, np.ndarray]) -> float:
    return math.sqrt(sum(float(np.square(array, dtype=np.float64).sum()) for array in arrays.values()))


def same(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> None:
    assert first.keys() == second.keys()
    for name, array in first.items():
        np.testing.assert_allclose(array, second[name], atol=TOLERANCE, rtol=1e-3)


def dense_sum(case: Case, batch: UpdateBatch) -> dict[str, np.ndarray]:
    total = {s.name: np.zeros(s.shape) for s in case.family.statistics_specs(case.options, case.rows)}
    for name, table in batch.rows.items():
        np.add.at(total[name], table.ids, table.values)
    for name, array in batch.dense.items():
        total[name] += array.sum(axis=0, dtype=np.float64)
    return {name: array.astype(np.float32) for name, array in total.items()}
