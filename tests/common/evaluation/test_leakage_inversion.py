"""Inversion of pooled vectors against plain regression, exhaustive search and sets; at chance where nothing is seen."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import EvaluationError
from common.evaluation.leak import Leak
from common.evaluation.leakage._inverters import Pool, linear, pursuit
from common.evaluation.leakage.inversion import ATTACK, f1_of, guessed, pool_of, trained_on
from common.evaluation.view import Candidates, Truth, View
from common.table import EmbeddingTable
from common.units import Units

ROWS, COLUMNS = 200, 24
PRIOR = 1.0 / np.arange(1, ROWS + 1)


def bags(sizes: list[int], seed: int = 0, rows: int = ROWS) -> Units:
    prior = PRIOR[:rows] / PRIOR[:rows].sum()
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return Units(offsets, {"rows": np.random.default_rng(seed).choice(rows, int(offsets[-1]), p=prior)})


def measured(vectors: np.ndarray, units: Units | None, prior: np.ndarray = PRIOR, seed: int = 0) -> Leak:
    table = EmbeddingTable(tuple(map(str, range(len(vectors)))), vectors.astype(np.float32))
    truth = Truth(candidates=None if units is None else Candidates(units))
    (found,) = ATTACK.run(View(5, prior, table=table), truth, seed=seed)
    return found


def random_table(seed: int = 0, rows: int = ROWS, columns: int = COLUMNS) -> np.ndarray:
    """Rows that share a mean and fade over the columns, as trained ones do."""
    return np.random.default_rng(seed).normal(size=(rows, columns)) * np.linspace(2.0, 0.1, columns) + 1.0


def test_bags_of_few_rows_are_read_off() -> None:
    found = measured(random_table(), bags([1, 2, 3, 4] * 10))
    assert found.value > 0.9 and found.above_chance and found.n == 40
    assert found.chance_name == "most popular rows" and 0.05 < found.chance_value < 0.3
    assert (found.attack, found.sees, found.metric, found.promised) == ("inversion", "table", "f1", False)


def test_larger_bags_are_read_in_part() -> None:
    found = measured(random_table(), bags([30] * 40))
    assert found.above_chance and found.chance_value < found.value < 0.8


@pytest.mark.parametrize("vectors", [np.zeros((ROWS, COLUMNS)), np.full((ROWS, COLUMNS), 0.1)])
def test_where_all_rows_are_equal_the_popular_ones_are_named(vectors: np.ndarray) -> None:
    found = measured(vectors, bags([2, 5, 9] * 10))
    assert found.value == pytest.approx(found.chance_value, abs=1e-12) and not found.above_chance


def test_all_that_is_known_of_a_bag_is_its_vector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pool, "pooled", lambda self, offsets, rows: np.tile(self.mean, (len(offsets) - 1, 1)))
    found = measured(random_table(), bags([1, 2, 3, 4] * 10))
    assert found.value == pytest.approx(found.chance_value, abs=1e-12)


def test_linear_is_ridge_regression_on_many_bags_of_the_adversary() -> None:
    rows, size, many = 12, 3, 200_000
    pool = pool_of(random_table(3, rows, 5).astype(np.float32), PRIOR[:rows])
    rng = np.random.default_rng(4)
    drawn = rng.choice(rows, (many, size), p=pool.probabilities)
    counts = np.zeros((many, rows))
    for place in range(size):
        counts[np.arange(many), drawn[:, place]] += 1
    vectors = counts @ pool.vectors.astype(np.float64) / size
    design = np.hstack([np.ones((many, 1)), vectors])
    learned = np.linalg.solve(design.T @ design, design.T @ counts)
    asked = vectors[:50]
    expected = np.hstack([np.ones((50, 1)), asked]) @ learned
    named, scores = linear(pool, asked)
    assert np.allclose(size * scores, np.take_along_axis(expected, named, axis=1), atol=0.03)
    unwhitened = (asked - pool.mean) @ (pool.vectors - pool.mean).T + 1.0
    assert not np.allclose(size * unwhitened * pool.probabilities, expected, atol=0.3)


@pytest.mark.parametrize("seed", range(5))
def test_pursuit_finds_what_an_exhaustive_search_finds(seed: int) -> None:
    rows = 14
    pool = pool_of(np.random.default_rng(seed).normal(size=(rows, 10)).astype(np.float32), np.ones(rows))
    pair = np.random.default_rng(seed + 100).choice(rows, 2, replace=False)
    vector = pool.vectors[pair].astype(np.float64).mean(axis=0)
    gaps = {
        two: float(np.linalg.norm(pool.vectors[list(two)].mean(axis=0) - vector))
        for two in combinations(range(rows), 2)
    }
    best = min(gaps, key=lambda two: gaps[two])
    named, scores = pursuit(pool, vector[None])
    assert set(best) == set(pair.tolist()) == set(named[0, :2].tolist())
    assert scores[0, :2].sum() == pytest.approx(1.0, abs=1e-3) and np.all(named[0, 2:][scores[0, 2:] == 0] == -1)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), count=st.integers(1, 8))
def test_f1_equals_sets(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    units = bags(rng.integers(1, 6, count).tolist(), seed, rows=9)
    named = np.array([rng.permutation(12)[:5] for _ in range(count)])
    named[rng.random(named.shape) < 0.4] = -1
    slow = []
    for bag in range(count):
        true = set(units.columns["rows"][units.offsets[bag] : units.offsets[bag + 1]].tolist())
        said = set(named[bag].tolist()) - {-1}
        slow.append(2 * len(true & said) / (len(true) + len(said)))
    assert np.allclose(f1_of(named, units), slow)


def test_thresholds_come_from_the_adversary_s_own_bags_alone() -> None:
    """The candidates' rows never reach the guess: what is guessed depends on the vectors alone."""
    pool = pool_of(random_table().astype(np.float32), PRIOR)
    trained = trained_on(pool, np.full(60, 3), np.random.default_rng(0))
    units = bags([3] * 20, seed=5)
    vectors = pool.pooled(units.offsets, units.columns["rows"])
    order = np.random.default_rng(1).permutation(20)
    assert np.array_equal(guessed(pool, vectors, trained)[order], guessed(pool, vectors[order], trained))


def test_empty_bags_are_left_out_and_a_seed_repeats() -> None:
    units = bags([2, 0, 3, 0, 4])
    first, again = (measured(random_table(columns=6), units) for _ in range(2))
    assert first == again and first.n == 3


@pytest.mark.parametrize(
    ("units", "prior", "told"),
    [
        (None, PRIOR, "needs candidates"),
        (bags([]), PRIOR, "needs candidates"),
        (bags([0, 0]), PRIOR, "no candidate"),
        (Units(np.array([0, 1]), {"rows": np.array([ROWS])}), PRIOR, "does not have"),
        (Units(np.array([0, 1]), {"rows": np.array([-1])}), PRIOR, "does not have"),
        (Units(np.array([0, 1]), {"items": np.array([1])}), PRIOR, "does not have"),
        (bags([3]), PRIOR[:-1], "popularity"),
        (bags([3]), PRIOR * np.nan, "popularity"),
        (bags([3]), PRIOR * 0, "popularity"),
        (bags([3]), PRIOR - 0.5, "popularity"),
    ],
)
def test_what_cannot_be_judged_is_refused(units: Units | None, prior: np.ndarray, told: str) -> None:
    with pytest.raises(EvaluationError, match=told):
        measured(random_table(), units, prior)


def test_without_a_table_the_attack_does_not_run() -> None:
    with pytest.raises(EvaluationError, match="released table"):
        ATTACK.run(View(5, PRIOR), Truth(candidates=Candidates(bags([2]))), seed=0)
