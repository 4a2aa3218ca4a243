"""Implicit ALS: what units send, and what the server makes of it, against slow and obvious versions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import ConfigError
from common.families.useritem import FAMILY, UserItemOptions
from common.foldin import fold_in
from common.table import RowDomain
from common.units import Interaction, Record, Units
from common.update import UpdateBatch, squared_norms

ROWS, DIMENSION = 12, 3
DOMAIN = RowDomain(tuple(f"i{n}" for n in range(ROWS)))
OPTIONS = UserItemOptions(dimension=DIMENSION)
UPPER = np.triu_indices(DIMENSION)

people = st.lists(st.sets(st.integers(0, ROWS - 1), max_size=ROWS), min_size=1, max_size=8)


def units_of(lists: list[set[int]] | list[list[int]], options: UserItemOptions = OPTIONS) -> Units:
    keys = [(f"u{u}", item) for u, items in enumerate(lists) for item in ("unknown", *(f"i{i}" for i in items))]
    records = [Record("c", user, Interaction(user, item)) for user, item in keys]
    return FAMILY.encode(records, DOMAIN, options)


def table(seed: int = 0, scale: float = 0.5) -> dict[str, np.ndarray]:
    return {"items": (np.random.default_rng(seed).normal(size=(ROWS, DIMENSION)) * scale).astype(np.float32)}


def sums(batch: UpdateBatch) -> dict[str, np.ndarray]:
    total = np.zeros((ROWS, DIMENSION + 1))
    np.add.at(total, batch.rows["items"].ids, batch.rows["items"].values)
    return {"items": total.astype(np.float32), "gramian": batch.dense["gramian"].sum(axis=0)}


def direct(items: list[int], y: np.ndarray, options: UserItemOptions) -> tuple[np.ndarray, np.ndarray]:
    """One user's rows (V, D + 1) and Gramian (D, D), item by item, before any scaling of the unit."""
    offsets = np.array([0, len(items)])
    x = fold_in(y, offsets, np.array(items), alpha=options.alpha, ridge=options.user_ridge)[0].astype(np.float64)
    x /= np.linalg.norm(x)
    rows = np.zeros((ROWS, DIMENSION + 1))
    for i in items:
        rows[i, :-1] = (1 + options.alpha - options.alpha * x @ y[i]) / (1 + options.alpha) * x
        rows[i, -1] = options.count_scale
    return rows / np.sqrt(len(items)), np.outer(x, x) / np.sqrt(len(items))


@settings(max_examples=40, deadline=None)
@given(lists=people, seed=st.integers(0, 5), alpha=st.floats(0, 4))
def test_contributions_equal_the_direct_form_scaled_to_the_bound(
    lists: list[set[int]], seed: int, alpha: float
) -> None:
    options = UserItemOptions(dimension=DIMENSION, alpha=alpha)
    y = table(seed)["items"]
    batch = FAMILY.contributions({"items": y}, units_of(lists, options), options)
    bound = FAMILY.natural_clip(options)
    for number, items in enumerate(lists):
        found = sums(_only(batch, number))
        if not items:
            assert not found["items"].any() and not found["gramian"].any()
            continue
        rows, gram = direct(sorted(items), y, options)
        norm = np.sqrt((rows**2).sum() + (gram**2).sum())
        factor = min(1.0, bound / norm)
        np.testing.assert_allclose(found["items"], factor * rows, atol=1e-5)
        full = np.zeros((DIMENSION, DIMENSION))
        full[UPPER] = found["gramian"] / np.where(UPPER[0] == UPPER[1], 1.0, np.sqrt(2.0))
        np.testing.assert_allclose(np.triu(full), np.triu(factor * gram), atol=1e-5)
    assert np.sqrt(squared_norms(batch).max()) <= bound * (1 + 1e-5)


def _only(batch: UpdateBatch, k: int) -> UpdateBatch:
    rows = batch.rows["items"]
    part = slice(int(rows.offsets[k]), int(rows.offsets[k + 1]))
    one = type(rows)(np.array([0, part.stop - part.start]), rows.ids[part], rows.values[part])
    return UpdateBatch(1, {"items": one}, {"gramian": batch.dense["gramian"][k : k + 1]})


def test_the_norm_of_an_unscaled_user_is_near_the_bound() -> None:
    lists = [set(np.random.default_rng(s).choice(ROWS, 6, replace=False).tolist()) for s in range(50)]
    norms = np.sqrt(squared_norms(FAMILY.contributions(table(scale=0.01), units_of(lists), OPTIONS)))
    assert norms.min() > 0.9 * FAMILY.natural_clip(OPTIONS)


def weighted_solution(x: np.ndarray, w: np.ndarray, had: np.ndarray, options: UserItemOptions) -> np.ndarray:
    """Exact ALS: every item's own D x D normal equations (Hu et al. 2008, equation 5), users weighted by ``w``."""
    gram = (x * w[:, None]).T @ x
    ridge = options.item_ridge * np.trace(gram) / DIMENSION * np.eye(DIMENSION)
    out = []
    for i in range(ROWS):
        own = w * had[:, i]
        left = gram + options.alpha * (x * own[:, None]).T @ x + ridge
        out.append(np.linalg.solve(left, (1 + options.alpha) * own @ x))
    return np.array(out)


def test_server_steps_converge_to_the_exact_normal_equations() -> None:
    """With the users' vectors held fixed, repeated steps end at the solution that needs a matrix for every item."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(30, DIMENSION))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    had = (rng.random((30, ROWS)) < 0.4).astype(float)
    w = had.sum(axis=1) ** -0.5
    y = {"items": np.zeros((ROWS, DIMENSION), np.float32)}
    for _ in range(60):
        y = FAMILY.server_step(y, _statistics(x, w, had, y["items"]), OPTIONS, noise_stddev=0.0, final=False)
    expected = weighted_solution(x, w, had, OPTIONS)
    np.testing.assert_allclose(y["items"], expected, atol=1e-4)
    wrong = weighted_solution(x, np.ones_like(w), had, OPTIONS)
    assert not np.allclose(y["items"], wrong, atol=1e-2)


def _statistics(x: np.ndarray, w: np.ndarray, had: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    coefficient = had * w[:, None] * (1 - OPTIONS.alpha / (1 + OPTIONS.alpha) * x @ y.T)
    rows = np.hstack([coefficient.T @ x, OPTIONS.count_scale * (had * w[:, None]).sum(axis=0)[:, None]])
    gram = ((x * w[:, None]).T @ x)[UPPER] * np.where(UPPER[0] == UPPER[1], 1.0, np.sqrt(2.0))
    return {"items": rows.astype(np.float32), "gramian": gram.astype(np.float32)}


def test_too_much_noise_ends_as_a_popularity_list() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, DIMENSION)) + np.array([2.0, 0.0, 0.0])
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    had = (rng.random((500, ROWS)) < np.linspace(0.05, 0.9, ROWS)).astype(float)
    statistics = _statistics(x, np.ones(500), had, np.zeros((ROWS, DIMENSION)))
    step = FAMILY.server_step(table(), statistics, OPTIONS, noise_stddev=300.0, final=True)["items"]
    popularity = had.sum(axis=0)
    directions = step / popularity[:, None]
    assert np.ptp(directions, axis=0).max() < 0.05 * np.abs(directions).max() + 1e-6
    exact = FAMILY.server_step(table(), statistics, OPTIONS, noise_stddev=0.0, final=True)["items"]
    assert np.ptp(exact / popularity[:, None], axis=0).max() > 0.2 * np.abs(exact / popularity[:, None]).max()


def test_statistics_of_pure_noise_leave_finite_parameters() -> None:
    rng = np.random.default_rng(0)
    specs = FAMILY.statistics_specs(OPTIONS, ROWS)
    for seed in range(20):
        noise = {s.name: rng.normal(0, 5.0, s.shape).astype(np.float32) for s in specs}
        step = FAMILY.server_step(table(seed), noise, OPTIONS, noise_stddev=5.0, final=False)
        assert np.isfinite(step["items"]).all()


@pytest.mark.parametrize("scale", [np.nan, np.inf, 1e38])
def test_a_broken_table_is_not_an_error_of_the_client(scale: float) -> None:
    parameters = {"items": np.full((ROWS, DIMENSION), scale, dtype=np.float32)}
    assert FAMILY.contributions(parameters, units_of([{1, 2}]), OPTIONS).count == 1


def test_repeats_and_weights_change_nothing() -> None:
    once = [Record("c", "u", Interaction("u", f"i{i}")) for i in (4, 1)]
    often = [Record("c", "u", Interaction("u", f"i{i}", weight=9.0, timestamp=3.0)) for i in (1, 4, 4, 1)]
    first, second = (FAMILY.encode(records, DOMAIN, OPTIONS) for records in (once, often))
    assert first.columns["items"].tolist() == second.columns["items"].tolist() == [1, 4]


def test_a_long_list_is_cut_to_the_same_items_every_time() -> None:
    options = UserItemOptions(dimension=DIMENSION, max_items_per_user=5)
    kept = units_of([set(range(ROWS))], options).columns["items"].tolist()
    backwards = [Record("c", "u0", Interaction("u0", f"i{i}")) for i in reversed(range(ROWS))]
    assert len(kept) == 5 and kept == sorted(kept)
    assert FAMILY.encode(backwards, DOMAIN, options).columns["items"].tolist() == kept
    others = {tuple(_cut(f"someone{n}", options)) for n in range(20)}
    assert len(others) > 10  # the choice is each user's own, not the same items for everybody


def _cut(user: str, options: UserItemOptions) -> list[int]:
    records = [Record("c", "u", Interaction(user, f"i{i}")) for i in range(ROWS)]
    return FAMILY.encode(records, DOMAIN, options).columns["items"].tolist()


def test_one_user_in_two_units_is_one_user_once_the_units_are_merged() -> None:
    split = [Record("c", unit, Interaction("u", item)) for unit, item in (("a", "i1"), ("b", "i5"), ("b", "i1"))]
    whole = [Record("c", "a", Interaction("u", item)) for item in ("i1", "i5")]
    merged = FAMILY.contributions(table(), FAMILY.encode(split, DOMAIN, OPTIONS).as_one(), OPTIONS)
    expected = FAMILY.contributions(table(), FAMILY.encode(whole, DOMAIN, OPTIONS), OPTIONS)
    np.testing.assert_allclose(merged.rows["items"].values, expected.rows["items"].values, atol=1e-6)
    np.testing.assert_allclose(merged.dense["gramian"], expected.dense["gramian"], atol=1e-6)


def test_users_of_one_client_keep_their_own_vectors() -> None:
    """Two users in one unit are not one user with both lists."""
    records = [Record("c", "all", Interaction(user, item)) for user, item in (("a", "i1"), ("b", "i5"))]
    found = FAMILY.contributions(table(), FAMILY.encode(records, DOMAIN, OPTIONS), OPTIONS)
    rows = np.sort(squared_norms(found))
    alone = [FAMILY.contributions(table(), units_of([{i}]), OPTIONS) for i in (1, 5)]
    total = sums(alone[0])["items"] + sums(alone[1])["items"]
    direction = sums(found)["items"]
    cosine = (direction * total).sum() / np.linalg.norm(direction) / np.linalg.norm(total)
    assert cosine == pytest.approx(1.0, abs=1e-5) and rows.max() <= FAMILY.natural_clip(OPTIONS) ** 2 * (1 + 1e-5)


def test_items_without_a_row_domain_are_refused() -> None:
    with pytest.raises(ConfigError, match="row domain"):
        FAMILY.encode([], None, OPTIONS)
