"""Row batches: the fast paths against loops over a dense array."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.update import (
    ParameterSpec,
    UpdateBatch,
    coalesce,
    concatenated,
    scaled,
    squared_norms,
    sum_groups,
    summed,
)

ROWS, COLUMNS = 7, 3
SPECS = (ParameterSpec("table", (ROWS, COLUMNS), "words"), ParameterSpec("bias", (2,)))


@st.composite
def batches(draw, max_count=4):
    count = draw(st.integers(1, max_count))
    entries = draw(st.integers(0, 20))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    owners, ids = rng.integers(0, count, entries), rng.integers(0, ROWS, entries)
    values = rng.standard_normal((entries, COLUMNS)).astype(np.float32)
    rows = coalesce(owners, ids, values, count=count, rows=ROWS)
    dense = rng.standard_normal((count, 2)).astype(np.float32)
    return UpdateBatch(count, {"table": rows}, {"bias": dense})


def as_dense(batch):
    """The slow, obvious form: one (V, D) array a contribution."""
    table = np.zeros((batch.count, ROWS, COLUMNS), np.float64)
    rows = batch.rows["table"]
    for k in range(batch.count):
        for entry in range(rows.offsets[k], rows.offsets[k + 1]):
            table[k, rows.ids[entry]] += rows.values[entry]
    return table, batch.dense["bias"].astype(np.float64)


def test_coalesce_sums_repeats_and_orders_rows():
    owners, ids = np.array([1, 0, 1, 1]), np.array([5, 2, 0, 5])
    rows = coalesce(owners, ids, np.ones((4, 1), np.float32), count=3, rows=9)
    assert rows.offsets.tolist() == [0, 1, 3, 3]
    assert rows.ids.tolist() == [2, 0, 5]
    assert rows.values[:, 0].tolist() == [1.0, 1.0, 2.0]


@given(batches())
@settings(max_examples=40, deadline=None)
def test_norms_equal_those_of_dense_arrays(batch):
    table, bias = as_dense(batch)
    expected = (table**2).sum(axis=(1, 2)) + (bias**2).sum(axis=1)
    np.testing.assert_allclose(squared_norms(batch), expected, rtol=1e-6)


@given(batches(), st.integers(1, 3), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_group_sums_equal_those_of_dense_arrays(batch, groups, seed):
    group = np.random.default_rng(seed).integers(0, groups, batch.count)
    got_table, got_bias = as_dense(sum_groups(batch, group, groups, specs=SPECS))
    table, bias = as_dense(batch)
    for g in range(groups):
        np.testing.assert_allclose(got_table[g], table[group == g].sum(axis=0), atol=1e-5)
        np.testing.assert_allclose(got_bias[g], bias[group == g].sum(axis=0), atol=1e-5)


@given(batches(), batches())
@settings(max_examples=30, deadline=None)
def test_concatenation_keeps_every_contribution(first, second):
    both = concatenated([first, UpdateBatch(2, {}, {"bias": np.zeros((2, 2), np.float32)}), second])
    table, bias = as_dense(both)
    np.testing.assert_array_equal(table[: first.count], as_dense(first)[0])
    np.testing.assert_array_equal(table[first.count : first.count + 2], 0)
    np.testing.assert_array_equal(table[first.count + 2 :], as_dense(second)[0])
    assert bias.shape == (first.count + 2 + second.count, 2)
    np.testing.assert_allclose(as_dense(summed(both, SPECS))[0][0], table.sum(axis=0), atol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
def test_scaling_by_zero_removes_even_non_finite_values(bad):
    rows = coalesce(np.array([0, 1]), np.array([0, 0]), np.array([[bad], [2.0]], np.float32), count=2, rows=1)
    batch = scaled(
        UpdateBatch(2, {"table": rows}, {"bias": np.array([[bad], [1.0]], np.float32)}), np.array([0.0, 1.0])
    )
    assert batch.rows["table"].values[:, 0].tolist() == [0.0, 2.0]
    assert batch.dense["bias"][:, 0].tolist() == [0.0, 1.0]
