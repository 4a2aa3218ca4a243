from __future__ import annotations

import copy
import dataclasses
import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import PrivacyConfigError, WireError
from common.privacy.private_sum import PrivateSum, release
from common.privacy.rng import NoiseSource
from common.update import ParameterSpec, RowBatch, UpdateBatch

from .test_plan import made

V, D = 30, 3
SPECS = (ParameterSpec("t", (V, D), "words"), ParameterSpec("u", (V, D), "words"), ParameterSpec("d", (4, 2)))
NONE, CENTRAL = made("none"), made(test_mode=True)


def random_batch(rng: np.random.Generator, count: int, rows: int) -> UpdateBatch:
    ids = [np.sort(rng.choice(V, rows, replace=False)) for _ in range(count)]
    offsets = np.arange(count + 1) * rows
    values = rng.normal(size=(count * rows, D)).astype(np.float32)
    table = RowBatch(offsets.astype(np.int64), np.concatenate([*ids, np.empty(0, np.int64)]).astype(np.int64), values)
    return UpdateBatch(count, {"t": table}, {"d": rng.normal(size=(count, 4, 2)).astype(np.float32)})


def oracle(batches: list[UpdateBatch]) -> tuple[np.ndarray, np.ndarray]:
    table, dense = np.zeros((V, D)), np.zeros((4, 2))
    for batch in batches:
        for row, value in zip(batch.rows["t"].ids, batch.rows["t"].values, strict=True):
            table[row] += value
        dense += batch.dense["d"].sum(axis=0)
    return table, dense


def full(entry: tuple[np.ndarray | None, np.ndarray]) -> np.ndarray:
    ids, values = entry
    if ids is None:
        return values
    table = np.zeros((V, D), np.float32)
    table[ids] = values
    return table


@pytest.mark.parametrize(("kind", "holds"), [(np.float64, True), (np.float32, False)])
def test_a_row_that_the_removed_unit_does_not_touch_stays_the_same(kind: type, holds: bool) -> None:
    """With the float32 sum in its place, rounding errors of 60,000 contributions tell neighbours apart elsewhere."""
    values = np.random.default_rng(0).uniform(0.9, 1.0, (60_000, D)).astype(np.float32)
    removed = UpdateBatch(1, {"t": many_rows(0, values[:1])})
    sums = []
    for shift in (0, 1):  # without the unit, every later chunk begins one earlier
        chunks = [values[max(0, k - shift) : k - shift + 1_024] for k in range(0, len(values) + 1, 1_024)]
        if kind is np.float64:
            collected = PrivateSum(SPECS)
            if not shift:
                collected.add(removed)
            for chunk in chunks:
                collected.add(UpdateBatch(len(chunk), {"t": many_rows(1, chunk)}))
            sums.append(full(release(collected, NONE, NoiseSource.seeded_for_tests(0)).rows["t"])[1])
        else:
            total = np.zeros(D, np.float32)
            for chunk in chunks:
                total += chunk.cumsum(axis=0, dtype=np.float32)[-1]
            sums.append(total)
    assert bool((sums[0] == sums[1]).all()) is holds


def many_rows(row: int, values: np.ndarray) -> RowBatch:
    """Contributions that all touch one row."""
    return RowBatch(np.arange(len(values) + 1), np.full(len(values), row), values)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9)), max_size=6), st.integers(0, 99))
def test_the_sum_equals_a_plain_one(sizes: list[tuple[int, int]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    batches = [random_batch(rng, count, rows) for count, rows in sizes]
    total = PrivateSum(SPECS)
    for batch in batches:
        total.add(batch)
    released = release(total, NONE, NoiseSource.seeded_for_tests(0))
    table, dense = oracle(batches)
    np.testing.assert_allclose(full(released.rows["t"]), table, atol=1e-5)
    np.testing.assert_allclose(released.dense["d"], dense, atol=1e-5)
    assert released.rows["u"][0] is not None and len(released.rows["u"][1]) == 0


def test_few_rows_stay_sparse_and_many_become_a_table() -> None:
    rng = np.random.default_rng(0)
    few, many = PrivateSum(SPECS), PrivateSum(SPECS)
    few.add(random_batch(rng, 2, 5))
    for _ in range(20):
        many.add(random_batch(rng, 2, 5))
    ids, values = release(few, NONE, NoiseSource.seeded_for_tests(0)).rows["t"]
    assert ids is not None and len(ids) == len(set(ids.tolist())) == len(values) <= 10
    assert release(many, NONE, NoiseSource.seeded_for_tests(0)).rows["t"][0] is None


@pytest.mark.parametrize("batches", [0, 1, 30])
def test_central_noise_is_on_every_coordinate_of_everything(batches: int) -> None:
    specs = (ParameterSpec("t", (400, 5), "w"), ParameterSpec("u", (400, 5), "w"), ParameterSpec("d", (1500,)))
    total = PrivateSum(specs)
    for _ in range(batches):
        one = RowBatch(np.array([0, 1]), np.array([7]), np.ones((1, 5), np.float32))
        total.add(UpdateBatch(1, {"t": one}, {"d": np.ones((1, 1500), np.float32)}))
    released = release(total, CENTRAL, NoiseSource.seeded_for_tests(1))
    assert [ids for ids, _ in released.rows.values()] == [None, None]
    table = released.rows["t"][1].copy()
    table[7] -= batches
    for residual in (table, released.rows["u"][1], released.dense["d"] - batches):
        scale = float(np.sqrt(np.mean(residual.astype(np.float64) ** 2))) / CENTRAL.noise_stddev
        assert abs(scale - 1) < 6 / math.sqrt(2 * residual.size)
        assert np.count_nonzero(residual) > 0.99 * residual.size


def test_local_and_example_modes_pass_the_sum_on() -> None:
    for plan in (made("local", test_mode=True), made("example", "s", local_steps=1, unit_rate=0.5, test_mode=True)):
        total = PrivateSum(SPECS)
        batch = random_batch(np.random.default_rng(0), 2, 4)
        total.add(batch)
        released = release(total, plan, NoiseSource.seeded_for_tests(0))
        np.testing.assert_allclose(full(released.rows["t"]), oracle([batch])[0], atol=1e-6)


def test_a_sum_is_released_once_and_then_takes_nothing_more() -> None:
    total = PrivateSum(SPECS)
    source = NoiseSource.from_os()
    release(total, made(), source)
    with pytest.raises(PrivacyConfigError, match="released once"):
        release(total, made(), source)
    with pytest.raises(PrivacyConfigError, match="has been released"):
        total.add(UpdateBatch(0))


def test_a_seeded_source_is_refused_outside_test_mode() -> None:
    for plan in (made(), made("local")):
        total = PrivateSum(SPECS)
        with pytest.raises(PrivacyConfigError, match="seeded noise"):
            release(total, plan, NoiseSource.seeded_for_tests(0))


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_sum_cannot_be_copied_or_saved(duplicate) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(TypeError, match="without noise"):
        duplicate(PrivateSum(SPECS))


def test_a_sum_shows_no_values() -> None:
    total = PrivateSum(SPECS)
    total.add(UpdateBatch(1, {}, {"d": np.full((1, 4, 2), 123.25, np.float32)}))
    assert "123" not in repr(total) and "123" not in str(total) and "123" not in f"{total}"
    assert not hasattr(total, "__dict__")


def test_later_changes_of_the_callers_buffers_do_not_reach_the_sum() -> None:
    batch = random_batch(np.random.default_rng(0), 1, 3)
    expected = oracle([batch])[0]
    total = PrivateSum(SPECS)
    total.add(batch)
    batch.rows["t"].values[:] = 99.0
    np.testing.assert_allclose(full(release(total, NONE, NoiseSource.from_os()).rows["t"]), expected, atol=1e-6)


def table_of(ids: list[int], width: int = D, value: float = 1.0) -> RowBatch:
    values = np.full((len(ids), width), value, np.float32)
    return RowBatch(np.array([0, len(ids)]), np.array(ids, dtype=np.int64), values)


@pytest.mark.parametrize(
    "batch",
    [
        UpdateBatch(1, {"x": table_of([0])}),
        UpdateBatch(1, {"d": table_of([0])}),
        UpdateBatch(1, {"t": table_of([V])}),
        UpdateBatch(1, {"t": table_of([-1])}),
        UpdateBatch(1, {"t": table_of([0], D + 1)}),
        UpdateBatch(1, {"t": table_of([0], value=math.nan)}),
        UpdateBatch(2, {"t": table_of([0])}),
        UpdateBatch(1, {}, {"x": np.zeros((1, 4, 2), np.float32)}),
        UpdateBatch(1, {}, {"t": np.zeros((1, V, D), np.float32)}),
        UpdateBatch(1, {}, {"d": np.zeros((1, 4), np.float32)}),
        UpdateBatch(1, {}, {"d": np.zeros((2, 4, 2), np.float32)}),
        UpdateBatch(1, {}, {"d": np.full((1, 4, 2), np.inf, np.float32)}),
        UpdateBatch(1, {"t": table_of([0])}, {"d": np.full((1, 4, 2), np.nan, np.float32)}),
    ],
)
def test_malformed_updates_are_refused_and_change_nothing(batch: UpdateBatch) -> None:
    total = PrivateSum(SPECS)
    with pytest.raises(WireError):
        total.add(batch)
    released = release(total, NONE, NoiseSource.from_os())
    assert not full(released.rows["t"]).any() and not released.dense["d"].any()


def test_noise_comes_before_the_sum_is_rounded() -> None:
    """In float32, 1 + 2^-25 is 1: rounded before the noise, a small contribution would be lost or doubled."""
    size = 100_000
    specs = (ParameterSpec("d", (size,)),)
    total = PrivateSum(specs)
    for value in (1.0, 2.0**-25):
        total.add(UpdateBatch(1, {}, {"d": np.full((1, size), value, np.float32)}))
    plan = dataclasses.replace(CENTRAL, noise_multiplier=2.0**-22, l2_clip_norm=1.0)
    noised = release(total, plan, NoiseSource.seeded_for_tests(0)).dense["d"].astype(np.float64)
    assert abs(noised.mean() - (1 + 2.0**-25)) < 8 * 2.0**-22 / math.sqrt(size)
    assert abs(noised.mean() - 1.0) > 8 * 2.0**-22 / math.sqrt(size)
