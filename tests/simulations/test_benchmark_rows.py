"""The benchmark rows runs at its tiny size, its sides train the same thing, and its bars can fail."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from common.evaluation.quality.recommendation import RecommendationBenchmark
from simulations import benchmarks
from simulations.benchmarks import _rows_items, _rows_words, _texts
from simulations.benchmarks._rows_report import advantage, agreement, difference, mean_interval
from simulations.benchmarks._rows_training import LAZY, SELECTED, TEXTBOOK, Outcome, Problem, Setting, run

ROWS, DIMENSION, UNITS = 30, 3, 12
LISTS = torch.from_numpy(np.random.default_rng(5).integers(0, 20, (UNITS, 4)))  # rows 20 and up are nobody's


class _Toy(torch.nn.Module):
    def __init__(self, seed):
        super().__init__()
        self.table = torch.nn.Embedding(ROWS, DIMENSION)
        self.table.weight.data = torch.randn(ROWS, DIMENSION, generator=torch.Generator().manual_seed(seed))

    def forward(self, batch):
        return self.table(batch["rows"]).sum(1).square().sum(1)


def _toy(**changes):
    problem = Problem(
        label="toy",
        units=UNITS,
        start=_Toy,
        batch=lambda units, rng: {"rows": LISTS[torch.from_numpy(units)]},
        scores=lambda module: {f"{k}": float(v) for k, v in enumerate(module.table.weight.detach().flatten())},
        steps=3,
        unit_rate=1.0,
        clip=6.0,
        reach=0.2,
        delta=1e-5,
    )
    return dataclasses.replace(problem, **changes)


def _by_hand(problem, seed, clip):
    """Algorithm 1 without noise: one backward pass a unit."""
    module = problem.start(seed)
    for _ in range(problem.steps):
        total = torch.zeros(ROWS, DIMENSION)
        for unit in range(UNITS):
            (gradient,) = torch.autograd.grad(module({"rows": LISTS[unit][None]}).sum(), module.table.weight)
            total += gradient * min(1.0, clip / float(gradient.norm()))
        module.table.weight.data -= problem.reach / (clip * UNITS) * total
    return np.array(list(problem.scores(module).values()))


def _table(problem, setting, seed=3):
    return np.array(list(run(problem, setting, seed).scores.values()))


@pytest.mark.parametrize("method", [TEXTBOOK, LAZY])
@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_sides_take_the_steps_that_one_backward_pass_a_unit_gives(method, factor) -> None:
    problem, setting = _toy(), Setting(method, 1e-7, clip_factor=factor)
    assert np.allclose(_table(problem, setting), _by_hand(problem, 3, 6.0 * factor), atol=1e-5)
    assert not np.allclose(_table(problem, setting), _by_hand(problem, 3, 7.0 * factor), atol=1e-5)


@pytest.mark.parametrize("method", [TEXTBOOK, LAZY])
def test_every_row_is_noised_as_the_event_says(method) -> None:
    problem = _toy(steps=4, unit_rate=0.5, reach=1.0)
    nobodys = np.array(
        [_table(problem, Setting(method, 2.0), s) - _table(problem, Setting(method, 1e-7), s) for s in range(16)]
    )
    found = nobodys[:, 20 * DIMENSION :].std()
    expected = 2.0 * math.sqrt(4) * 1.0 / (0.5 * UNITS)
    assert found == pytest.approx(expected, rel=0.15)


def test_selected_rows_leave_the_others_and_are_counted() -> None:
    start = np.array(list(_toy().scores(_Toy(3)).values()))
    none = run(_toy(), Setting(SELECTED, 1e-3, threshold=1e6), 3)
    assert np.array_equal(np.array(list(none.scores.values())), start)
    assert (none.rows["selected"], none.rows["mass"], none.rows["sent"]) == (0, 0, 0)
    touched = len(torch.unique(LISTS))
    most = run(_toy(), Setting(SELECTED, 1e-4), 3)
    assert most.rows["mass"] == pytest.approx(1.0)
    assert most.rows["touched"] == touched
    assert most.rows["selected"] - most.rows["by chance"] == touched
    assert touched <= most.rows["sent"] <= ROWS


def test_engines_account_the_same_whatever_the_rows() -> None:
    found = {method: run(_toy(unit_rate=0.5), Setting(method, 1.5), 0).accounted for method in (LAZY, SELECTED)}
    assert found[LAZY] == found[SELECTED] == ((1.5, 0.5, 3),)


def _outcomes(values):
    return [Outcome({"auc": value}, (), {}) for value in values]


def test_the_agreement_fails_for_a_shift_that_noise_does_not_explain() -> None:
    values = [0.60, 0.61, 0.605, 0.602]
    same = agreement("x", _outcomes(values), _outcomes(values[::-1]), comparisons=8, judged=True)
    apart = agreement("x", _outcomes(values), _outcomes([v + 0.05 for v in values]), comparisons=8, judged=True)
    assert [row.holds for row in same + apart] == [True, False]
    assert agreement("x", _outcomes(values), _outcomes(values), comparisons=8, judged=False)[0].holds is None


def test_selected_and_lazy_runs_are_paired_by_seed() -> None:
    lazy, selected = [0.5, 0.6, 0.7], [0.51, 0.62, 0.70]
    (row,) = advantage("x", _outcomes(selected), _outcomes(lazy))
    assert row.value == pytest.approx(0.01)
    assert "-0.0148 to +0.0348" in row.measure  # 4.3027 * 0.01 / sqrt(3); unpaired it would be ten times as wide


def test_intervals_are_students() -> None:
    mean, low, high = mean_interval([1.0, 2.0, 3.0, 4.0])
    assert (mean, low, high) == pytest.approx((2.5, 2.5 - 2.0542, 2.5 + 2.0542), abs=1e-3)
    found, width = difference([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0])
    assert (found, width) == pytest.approx((0.0, 2.2338), abs=1e-3)  # t of 6 degrees of freedom
    assert difference([1.0, 2.0], [1.0, 2.0], comparisons=20)[1] > difference([1.0, 2.0], [1.0, 2.0])[1]


def test_units_hold_the_frequent_words_of_their_sentences(tmp_path) -> None:
    corpus = _rows_words.read(_texts.generated(tmp_path))
    everything = corpus.units(_rows_words.SENTENCE, len(corpus.domain))
    few = corpus.units(_rows_words.PASSAGE, 10)
    assert everything.count == len(np.unique(corpus.unit_of[_rows_words.SENTENCE]))
    assert few.count < everything.count
    assert len(few.columns["rows"]) == np.count_nonzero(corpus.tokens < 10)
    assert few.columns["rows"].max() == 9


def test_a_user_is_at_most_the_longest_list_of_own_items() -> None:
    offsets = np.array([0, 2, 9, 12])
    items = np.array([5, 6, *range(7), 9, 10, 11])
    split = RecommendationBenchmark(offsets, items, np.array([0, 9, 1]), rows=14)
    batch = _rows_items._batch(split, np.array([2, 1, 0]), 4, np.random.default_rng(0))
    assert batch["mask"].sum(1).tolist() == [3, 4, 2]
    assert sorted(batch["had"][0, :3].tolist()) == [9, 10, 11]
    assert len(set(batch["had"][1].tolist()) & set(range(7))) == 4
    assert sorted(batch["had"][2, :2].tolist()) == [5, 6]


def test_it_runs_at_its_tiny_size() -> None:
    rows = {row.measure: row for row in benchmarks.load("rows").run(quick=True)}
    for method in (TEXTBOOK, LAZY, SELECTED):
        assert any(method in measure for measure in rows)
    spent = [row for measure, row in rows.items() if "accounted by the engines" in measure]
    assert spent
    assert all(row.holds for row in spent)
    assert not [row for row in rows.values() if row.holds is False]
    assert any(measure.startswith("sweep") and "threshold" in measure for measure in rows)
