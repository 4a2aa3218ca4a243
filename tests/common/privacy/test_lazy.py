"""Lazy noise against the textbook: the same distribution wherever it is read, and nothing owed at the end."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from common.privacy.lazy import LazyTable
from common.privacy.rng import NoiseSource
from common.privacy.table_gradients import TableGradients, row_sums

COLUMNS, STEP, NOISE = 6000, 0.5, 1.3
READ_AT = (False, True, True, False, False, False, True)  # when row 0 is read; row 1 never is


def pull_to_zero(table: LazyTable) -> None:
    """One step of gradient descent on ``|w|^2 / 2`` of row 0, read as training reads it."""
    values = table.read(torch.tensor([0]))
    one = torch.zeros(1, dtype=torch.int64)
    found = TableGradients(one, one, one, one, torch.ones(1, dtype=torch.float64), values.float().clone())
    table.step(row_sums(found, torch.ones(1, dtype=torch.float64)), scale=STEP, stddev=NOISE)


def run(kind: type[LazyTable], dtype: torch.dtype, seed: int = 0) -> np.ndarray:
    weight = torch.zeros(3, COLUMNS, dtype=dtype)
    table = kind(weight, source=NoiseSource.seeded_for_tests(seed), padding_row=2)
    for read in READ_AT:
        if read:
            pull_to_zero(table)
        else:
            table.step(None, scale=STEP, stddev=NOISE)
    table.flush()
    return weight.double().numpy()


def textbook_variance() -> tuple[float, float]:
    """w <- w - a (g + z) at every step, with g = w where it is read: variances follow a linear recursion."""
    first = second = 0.0
    for read in READ_AT:
        first = (1 - STEP * read) ** 2 * first + (STEP * NOISE) ** 2
        second += (STEP * NOISE) ** 2
    return first, second


def fits(values: np.ndarray) -> bool:
    for row, variance in zip(values[:2], textbook_variance(), strict=True):
        squares = float(np.square(row).sum()) / variance
        tail = 2 * min(stats.chi2.cdf(squares, COLUMNS), stats.chi2.sf(squares, COLUMNS))
        if min(tail, stats.kstest(row / math.sqrt(variance), "norm").pvalue) < 1e-6:
            return False
    return True


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_distribution_is_that_of_the_textbook(dtype: torch.dtype) -> None:
    for seed in range(3):
        values = run(LazyTable, dtype, seed)
        assert fits(values)
        assert not values[2].any(), "the padding row has no noise"
        assert abs(np.corrcoef(values[0], values[1])[0, 1]) < 6 / math.sqrt(COLUMNS)


class AfterTheRead(LazyTable):
    """Settles a row only after its value was used."""

    def read(self, rows: torch.Tensor) -> torch.Tensor:
        self._close()
        stale = self._weight.index_select(0, rows)
        super().read(rows)
        self._close()
        return stale


class NeverSettles(LazyTable):
    """Forgets what a row was owed when it is read."""

    def read(self, rows: torch.Tensor) -> torch.Tensor:
        self._paid.index_fill_(0, rows, self._owed)
        return super().read(rows)


class LeavesOwed(LazyTable):
    """Lets the table go without the noise that is owed."""

    def flush(self) -> None:
        self._close()


class OneStepForAll(LazyTable):
    """Draws the noise of one step, however many are owed."""

    def _add_noise(self, values: torch.Tensor, stddev: torch.Tensor) -> None:
        super()._add_noise(values, stddev.clamp(max=STEP * NOISE))


class LinearInSteps(LazyTable):
    """Adds standard deviations instead of variances."""

    def _add_noise(self, values: torch.Tensor, stddev: torch.Tensor) -> None:
        super()._add_noise(values, stddev.square() / (STEP * NOISE))


class ForgetsItsOwnStep(LazyTable):
    """Counts the noise of the step itself as owed, too: it is added twice."""

    def step(self, sums: object, *, scale: float, stddev: float) -> None:
        before = self._paid.clone()
        super().step(sums, scale=scale, stddev=stddev)  # type: ignore[arg-type]
        self._paid = torch.minimum(self._paid, before.clamp(min=0) + 0 * self._owed)


@pytest.mark.parametrize(
    "broken", [AfterTheRead, NeverSettles, LeavesOwed, OneStepForAll, LinearInSteps, ForgetsItsOwnStep]
)
def test_broken_variants_are_noticed(broken: type[LazyTable]) -> None:
    assert not fits(run(broken, torch.float64))


def test_noise_is_drawn_anew_for_every_row_and_read() -> None:
    weight = torch.zeros(700, 40)
    table = LazyTable(weight, source=NoiseSource.from_os())
    for _ in range(3):
        table.step(None, scale=1.0, stddev=1.0)
        table.read(torch.arange(0, 700, 2))
    table.flush()
    values = weight.numpy()
    assert len(np.unique(values.round(4), axis=0)) == 700
    assert abs(values.std() / math.sqrt(3) - 1) < 0.03
    assert abs(np.corrcoef(values[:-1].ravel(), values[1:].ravel())[0, 1]) < 0.04


def test_reading_twice_settles_once() -> None:
    weight = torch.zeros(2, COLUMNS)
    table = LazyTable(weight, source=NoiseSource.seeded_for_tests(1))
    table.step(None, scale=1.0, stddev=1.0)
    rows = torch.tensor([0, 1])
    assert torch.equal(table.read(rows).clone(), table.read(rows))
    table.flush()
    assert abs(float(weight.std()) - 1) < 0.05
