"""Example mode as an observer sees it: sensitivity, the declared noise on every row, public denominators."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from common.privacy import example_update
from common.privacy.dpsgd import train_example_mode
from common.privacy.mechanisms.gaussian import GRID_BITS
from common.privacy.plan import PrivacyPlan
from common.privacy.rng import NoiseSource
from common.table import RowDomain

from ._toy import (
    CLIP,
    FAMILY,
    ROWS,
    Silent,
    Training,
    arrays,
    flat,
    initial,
    joined,
    plan_of,
    run,
    units_of,
)

UNITS = units_of([5, 6, 7, 5, 5], [8, 9], [], [10, 10, 10, 10], [11, 5, 39])


# --- sensitivity of the whole local run ---------------------------------------------------------------------------

FILLER = [list(range(ROWS))]  # touches every row, so both neighbours have one compact table and one layout of noise


@settings(max_examples=12, deadline=None)
@given(
    rows=st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=40),
    scale=st.sampled_from([1.0, 1e6, 1e30, float("nan"), -1e20]),
)
def test_coupled_neighbours_differ_by_at_most_the_clip(rows: list[int], scale: float) -> None:
    without = units_of(*FILLER, [5, 6])
    plan = plan_of(local_steps=1, noise_multiplier=0.01)
    neighbours = [
        run(u, plan=plan, lr=1.0, batch_size=1) for u in (without, joined(without, units_of(rows, scale=scale)))
    ]
    grid = math.sqrt(flat(neighbours[0]).size) * plan.noise_stddev * 2.0**-GRID_BITS
    assert np.linalg.norm(flat(neighbours[0]) - flat(neighbours[1])) <= CLIP * (1 + 1e-6) + grid


def test_sensitivity_test_sees_a_realised_denominator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dividing by the realised number of units moves the noise itself, far beyond the clip."""
    plan = plan_of(local_steps=1, noise_multiplier=10.0)
    without = units_of(*FILLER, [5, 6])
    more = joined(without, units_of([9]))
    difference = flat(run(without, plan=plan, lr=1.0, batch_size=2)) - flat(run(more, plan=plan, lr=1.0, batch_size=3))
    assert np.linalg.norm(difference) > 3 * CLIP


# --- noise: every row, declared scale, public denominators --------------------------------------------------------

MANY = RowDomain(keys=tuple(f"k{i}" for i in range(2000)))


def residual(*, plan: PrivacyPlan, source: object) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Released minus noiseless update (here zero), per array; and the rows that the client touched."""
    rng = np.random.default_rng(3)
    units = units_of(*[list(rng.integers(0, 1000, 20)) for _ in range(30)])
    specs = FAMILY.specs(None, len(MANY))
    zero = {s.name: np.zeros(s.shape, dtype=np.float32) for s in specs}  # zero rows have zero gradients
    released = train_example_mode(
        FAMILY,
        zero,
        units,
        MANY,
        None,
        plan=plan,
        training=Training(local_steps=plan.local_steps, lr=1e-3, batch_size=8),
        source=source,
    )
    return arrays(released), np.unique(np.concatenate([units.columns["row"], np.arange(5)]))


def scale_is(values: np.ndarray, stddev: float, *, alpha: float = 1e-6) -> bool:
    """Two-sided chi-square test of the variance and a Kolmogorov-Smirnov test of the shape."""
    ratio = float(np.square(values.astype(np.float64)).sum()) / stddev**2
    tail = min(stats.chi2.cdf(ratio, values.size), stats.chi2.sf(ratio, values.size))
    return 2 * tail > alpha and stats.kstest(values.ravel() / stddev, "norm").pvalue > alpha


def declared_noise_everywhere(plan: PrivacyPlan, source: object, *, times: float = 1.0) -> bool:
    """Whether touched rows, untouched rows and dense layers each carry ``times`` the declared noise."""
    found, touched = residual(plan=plan, source=source)
    stddev = times * plan.noise_stddev * math.sqrt(plan.local_steps) * 1e-3 / 8
    untouched = np.setdiff1d(np.arange(len(MANY)), touched)
    parts = [found[name][rows] for name in ("centre.weight", "context.weight") for rows in (touched, untouched)]
    return all(scale_is(part, stddev) for part in [*parts, found["mix.weight"], found["mix.bias"]])


@pytest.mark.parametrize("steps", [1, 5])
def test_every_row_carries_the_declared_noise(steps: int) -> None:
    plan = plan_of(local_steps=steps, noise_multiplier=50.0)
    source = NoiseSource.seeded_for_tests(7)
    assert declared_noise_everywhere(plan, source)
    assert not declared_noise_everywhere(plan, source, times=2 / 3)
    assert not declared_noise_everywhere(plan, source, times=3 / 2)
    found, _ = residual(plan=plan, source=source)
    for name in ("centre.weight", "context.weight"):
        assert bool((np.abs(found[name]).max(axis=1) > 0).all())


@pytest.mark.parametrize(
    "lost",
    [
        {"untouched", "centre.weight"},
        {"untouched", "context.weight"},
        {"noise", "mix.bias"},
        {"noise", "context.weight"},
    ],
    ids=lambda lost: " ".join(sorted(lost)),
)
def test_noise_that_is_missing_anywhere_is_noticed(lost: set[str | int]) -> None:
    class Losing(Silent):
        def derive(self, *context: str | int) -> object:
            return Silent(self.source) if lost <= set(context) else self.source.derive(*context)

    plan = plan_of(local_steps=3, noise_multiplier=50.0)
    assert not declared_noise_everywhere(plan, Losing(NoiseSource.seeded_for_tests(7)))


def test_untouched_rows_with_the_noise_of_one_step_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(example_update, "math", SimpleNamespace(sqrt=lambda _: 1.0, floor=math.floor, log2=math.log2))
    plan = plan_of(local_steps=3, noise_multiplier=50.0)
    assert not declared_noise_everywhere(plan, NoiseSource.seeded_for_tests(7))


def test_rows_of_noise_are_distinct() -> None:
    found, _ = residual(plan=plan_of(noise_multiplier=50.0), source=NoiseSource.seeded_for_tests(8))
    a, b = found["centre.weight"], found["context.weight"]
    assert abs(float(np.corrcoef(a.ravel(), b.ravel())[0, 1])) < 0.05
    assert abs(float(np.corrcoef(a[:-1].ravel(), a[1:].ravel())[0, 1])) < 0.05
    assert len(np.unique(a, axis=0)) == len(a)


def test_noise_is_fresh_at_every_step() -> None:
    """With reused noise the sum over steps has stddev T * s instead of sqrt(T) * s."""

    class Reusing(Silent):
        def derive(self, *context: str | int) -> Reusing:
            return Reusing(self.source.derive(*context))

        def normal(self, shape: tuple[int, ...], stddev: float) -> np.ndarray:
            return NoiseSource.seeded_for_tests(1).normal(shape, stddev)

    plan = plan_of(local_steps=9, noise_multiplier=50.0)
    stddev = plan.noise_stddev * 3 * 0.1 / 8
    units = units_of(list(range(ROWS)))
    assert scale_is(arrays(run(units, plan=plan))["centre.weight"], stddev)
    reused = run(units, plan=plan, source=Reusing(NoiseSource.seeded_for_tests(1)))
    assert not scale_is(arrays(reused)["centre.weight"], stddev)


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65])
def test_noise_floor_does_not_tell_the_number_of_units(count: int) -> None:
    """The same source gives the same noise on untouched rows, whatever the client holds."""
    plan = plan_of(unit_rate=0.25)
    floor = arrays(run(units_of(), plan=plan))["context.weight"][20:]
    found = arrays(run(units_of(*[[5 + i % 10] for i in range(count)]), plan=plan))["context.weight"][20:]
    assert np.array_equal(floor, found)


def test_client_without_units_returns_noise_everywhere() -> None:
    plan = plan_of(local_steps=4)
    update = run(units_of(), plan=plan)
    stddev = plan.noise_stddev * 2 * 0.1 / 8
    assert update.count == 1
    for name, spec in ((s.name, s) for s in FAMILY.specs(None, ROWS)):
        found = arrays(update)[name]
        assert found.shape == spec.shape and found.dtype == np.float32
        assert scale_is(found, stddev)
    assert np.array_equal(update.rows["centre.weight"].ids, np.arange(ROWS))


def test_released_values_lie_on_one_public_grid() -> None:
    """Low-order bits must not tell trained rows from the others."""
    plan = plan_of()
    update = arrays(run(UNITS, plan=plan))
    stddev = plan.noise_stddev * math.sqrt(plan.local_steps) * 0.1 / 8
    grid = 2.0 ** (math.floor(math.log2(stddev)) - GRID_BITS)
    for values in update.values():
        assert bool(np.all(values / grid == np.rint(values / grid)))
    start = initial()["centre.weight"]
    naive = (start + update["centre.weight"] * np.float32(1 / 3)) - start
    assert not np.all(naive / grid == np.rint(naive / grid))
