from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import PrivacyConfigError, WireError
from common.privacy.clipping import clip
from common.update import RowBatch, UpdateBatch

EXTREMES = [0.0, -0.0, 1e-45, 1e-38, 1e-20, 1.0, -1.0, 3.4e38, -3.4e38, math.nan, math.inf, -math.inf]
VALUES = st.one_of(st.sampled_from(EXTREMES), st.floats(-1e6, 1e6, width=32))


def batch_of(rows: list[list[tuple[int, list[float]]]], dense: np.ndarray | None = None) -> UpdateBatch:
    """Contributions as lists of (row, values)."""
    entries = [entry for contribution in rows for entry in contribution]
    offsets = np.concatenate([[0], np.cumsum([len(c) for c in rows])]).astype(np.int64)
    ids = np.array([i for i, _ in entries], dtype=np.int64)
    values = np.array([v for _, v in entries], dtype=np.float32).reshape(len(entries), 2)
    arrays = {} if dense is None else {"d": dense.astype(np.float32)}
    return UpdateBatch(len(rows), {"t": RowBatch(offsets, ids, values)}, arrays)


def vector_of(batch: UpdateBatch, k: int, rows: int = 64) -> np.ndarray:
    """Oracle: contribution k written out in full, float64, repeats added one by one."""
    table = np.zeros((rows, 2))
    t = batch.rows["t"]
    for entry in range(int(t.offsets[k]), int(t.offsets[k + 1])):
        table[t.ids[entry]] += t.values[entry].astype(np.float64)
    return np.concatenate([table.ravel(), *(a[k].astype(np.float64).ravel() for a in batch.dense.values())])


CONTRIBUTION = st.lists(st.tuples(st.integers(0, 5), st.lists(VALUES, min_size=2, max_size=2)), max_size=5)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(CONTRIBUTION, st.lists(VALUES, min_size=3, max_size=3)), min_size=1, max_size=4),
    st.sampled_from([1e-12, 1e-6, 0.5, 1.0, 1e12]),
)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning", "ignore:overflow:RuntimeWarning")
def test_every_contribution_ends_finite_and_bounded(parts: list[tuple[list, list]], bound: float) -> None:
    batch = batch_of([rows for rows, _ in parts], np.array([d for _, d in parts]))
    done = clip(batch, bound)
    rejected = 0
    for k in range(batch.count):
        found, given_ = vector_of(done.batch, k), vector_of(batch, k)
        norm = float(np.sqrt(np.sum(given_**2)))
        assert np.isfinite(found).all()
        assert float(np.sqrt(np.sum(found**2))) <= bound * (1 + 1e-6)
        if not np.isfinite(given_).all():
            rejected += 1
            assert not found.any()
        elif np.abs(given_).max(initial=0) < 3e38:  # a sum of repeats may leave float32
            np.testing.assert_allclose(
                found, given_ * min(1.0, bound / max(norm, 1e-300)), rtol=1e-5, atol=1e-6 * bound
            )
    assert done.rejected_count >= rejected


def test_short_contributions_are_left_exactly_as_they_are() -> None:
    batch = batch_of([[(1, [0.3, 0.4])], [(2, [3.0, 4.0])]], np.zeros((2, 3)))
    done = clip(batch, 1.0)
    np.testing.assert_array_equal(done.batch.rows["t"].values[0], batch.rows["t"].values[0])
    np.testing.assert_allclose(done.batch.rows["t"].values[1], [0.6, 0.8], rtol=1e-6)
    assert (done.clipped_fraction_count, done.rejected_count) == (1, 0)
    assert clip(batch_of([[(1, [0.3, 0.4])]]), 1.0).batch.rows["t"].values is not None


def test_the_norm_is_joint_over_tables_and_dense_layers() -> None:
    one = batch_of([[(0, [1.0, 0.0])]], np.array([[1.0, 0.0, 0.0]]))
    batch = UpdateBatch(1, {"t": one.rows["t"], "u": one.rows["t"]}, {"d": one.dense["d"], "e": one.dense["d"]})
    done = clip(batch, 1.0).batch
    total = sum(float(np.sum(t.values**2)) for t in done.rows.values())
    total += sum(float(np.sum(a**2)) for a in done.dense.values())
    assert total == pytest.approx(1.0, rel=1e-6)


def test_repeated_rows_are_summed_before_the_norm_is_taken() -> None:
    done = clip(batch_of([[(3, [0.6, 0.0])] * 4]), 1.0).batch
    assert done.rows["t"].ids.tolist() == [3]
    assert float(np.linalg.norm(vector_of(done, 0))) == pytest.approx(1.0, rel=1e-6)
    opposite = clip(batch_of([[(3, [9.0, 0.0]), (3, [-9.0, 0.0])]]), 1.0)
    assert not vector_of(opposite.batch, 0).any() and opposite.clipped_fraction_count == 0


def test_repeats_between_contributions_are_kept_apart() -> None:
    done = clip(batch_of([[(3, [0.6, 0.0])], [(3, [0.6, 0.0])], [], [(3, [0.0, 2.0])]]), 1.0).batch
    assert done.rows["t"].offsets.tolist() == [0, 1, 2, 2, 3]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_bad_value_zeroes_its_contribution_and_no_other(bad: float) -> None:
    batch = batch_of([[(0, [bad, 1.0])], [(0, [0.5, 0.5])]], np.ones((2, 3)) * 0.1)
    done = clip(batch, 1.0)
    assert done.rejected_count == 1 and not vector_of(done.batch, 0).any()
    np.testing.assert_array_equal(vector_of(done.batch, 1), vector_of(batch, 1))


@pytest.mark.parametrize("size", [0.0, 1e-45, 1e-39, 1e-20, 1.0, 1e20, 3.4e38])
@pytest.mark.parametrize("entries", [1, 1000])
def test_any_magnitude(size: float, entries: int) -> None:
    values = np.full((1, entries), size, dtype=np.float32)
    done = clip(UpdateBatch(1, {}, {"d": values}), 1.0)
    norm = float(np.sqrt(np.sum(done.batch.dense["d"].astype(np.float64) ** 2)))
    assert norm == pytest.approx(min(1.0, float(np.float32(size)) * math.sqrt(entries)), rel=1e-6, abs=1e-40)
    assert norm <= 1.0 + 1e-6 and done.rejected_count == 0


def test_the_input_is_not_changed() -> None:
    batch = batch_of([[(0, [3.0, 4.0])]])
    clip(batch, 1.0)
    assert batch.rows["t"].values.tolist() == [[3.0, 4.0]]


def test_nothing_to_clip() -> None:
    assert clip(UpdateBatch(0), 1.0).batch.count == 0
    assert clip(batch_of([[], []]), 1.0).clipped_fraction_count == 0


@pytest.mark.parametrize("bound", [0.0, -1.0, 1e-13, 1e13, math.nan, math.inf])
def test_bad_bounds_are_refused(bound: float) -> None:
    with pytest.raises(PrivacyConfigError, match="l2_clip_norm"):
        clip(batch_of([[]]), bound)


def test_malformed_batches_are_refused() -> None:
    good = batch_of([[(0, [1.0, 1.0])], [(1, [1.0, 1.0])]]).rows["t"]
    bad = [
        RowBatch(good.offsets[:-1], good.ids, good.values),
        RowBatch(np.array([0, 2, 1]), good.ids, good.values),
        RowBatch(np.array([1, 1, 2]), good.ids, good.values),
        RowBatch(good.offsets, good.ids[:1], good.values),
        RowBatch(good.offsets, good.ids, good.values[:, 0]),
        RowBatch(good.offsets, good.ids - 1, good.values),
    ]
    for table in bad:
        with pytest.raises(WireError):
            clip(UpdateBatch(2, {"t": table}), 1.0)
    with pytest.raises(WireError):
        clip(UpdateBatch(2, {}, {"d": np.zeros((3, 4), np.float32)}), 1.0)
