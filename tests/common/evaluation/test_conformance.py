"""The statistics of conformance: the declared scale is accepted, 2/3 and 3/2 of it are not; bounds hold to rounding."""

from __future__ import annotations

import math

import numpy as np
import pytest

from common.evaluation.conformance import Bench, EngineSubject, Setup, failures
from common.evaluation.conformance.claims import gaussian_epsilon
from common.evaluation.conformance.coupled import sensitivity
from common.evaluation.conformance.engine import EngineRun, train
from common.evaluation.conformance.findings import (
    ENOUGH,
    binomial_finding,
    bound_finding,
    correlation_finding,
    dispersion_finding,
    scale_finding,
)
from common.evaluation.conformance.noise import noise_scale
from common.evaluation.conformance.subject import Subject, contribution, toy_plan
from common.update import ParameterSpec, squared_norms


def normals(n: int = ENOUGH, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=n)


def test_the_declared_scale_is_accepted_and_two_thirds_and_three_halves_are_not() -> None:
    for seed in range(50):
        assert scale_finding("T2", "x", normals(seed=seed)).holds
        assert not scale_finding("T2", "x", normals(seed=seed) * 2 / 3).holds
        assert not scale_finding("T2", "x", normals(seed=seed) * 3 / 2).holds


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_residual_that_is_not_finite_is_a_violation(bad: float) -> None:
    values = normals()
    values[3] = bad
    assert not scale_finding("T2", "x", values).holds
    assert not correlation_finding("T3", "x", values, normals(seed=1)).holds
    assert not bound_finding("T1", "x", bad, 1.0).holds


def test_shared_noise_is_noticed_and_independent_noise_is_not() -> None:
    assert correlation_finding("T3", "x", normals(), normals(seed=1)).holds
    assert not correlation_finding("T3", "x", normals(), normals()).holds
    assert not correlation_finding("T3", "x", normals(), -normals()).holds


def test_rates_and_dispersion_have_both_tails() -> None:
    rng = np.random.default_rng(2)
    counts = rng.binomial(300, 0.1, size=400)
    assert binomial_finding("T4", "x", int(counts.sum()), 300 * 400, rate=0.1).holds
    assert not binomial_finding("T4", "x", int(counts.sum()), 300 * 400, rate=0.11).holds
    assert not binomial_finding("T4", "x", int(counts.sum()), 300 * 400, rate=0.09).holds
    assert dispersion_finding("T4", "x", counts, 27.0).holds
    assert not dispersion_finding("T4", "x", np.full(400, 30), 27.0).holds
    assert not dispersion_finding("T4", "x", rng.permuted(np.repeat([0, 60], 200)), 27.0).holds


def test_a_bound_is_kept_to_rounding_and_no_further() -> None:
    assert bound_finding("T1", "x", 1.0, 1.0).holds
    assert not bound_finding("T1", "x", 1.001, 1.0).holds
    assert bound_finding("T1", "x", 1.001, 1.0, slack=0.002).holds


def test_the_oracle_is_the_exact_gaussian() -> None:
    assert gaussian_epsilon(1.0, 1e-5) == pytest.approx(4.377178, abs=1e-5)
    assert gaussian_epsilon(4.0, 1e-5) < gaussian_epsilon(2.0, 1e-5)


@pytest.mark.parametrize(
    "specs",
    [
        (ParameterSpec("t", (2, 1), "rows"),),
        (ParameterSpec("t", (3, 200), "rows"), ParameterSpec("b", (2,))),
        (ParameterSpec("a", (64, 32), "rows"), ParameterSpec("b", (64, 1), "rows")),
        (ParameterSpec("only dense", (70,)),),
    ],
)
def test_any_parameters_can_be_tested(specs: tuple[ParameterSpec, ...]) -> None:
    setup = Setup(toy_plan(), specs)
    assert failures(sensitivity(Subject(), setup)) == [] and failures(noise_scale(Subject(), setup)) == []
    rng = np.random.default_rng(0)
    for parts in ("all", "tables", "first", "dense"):
        made = contribution(setup, rng, 3.0, parts=parts)
        assert math.sqrt(squared_norms(made)[0]) == pytest.approx(3 * setup.plan.l2_clip_norm, rel=1e-5)


def test_a_bench_without_a_family_has_nothing_to_say_about_example_mode() -> None:
    from common.evaluation.conformance import EXAMPLE_MODE

    assert [check.run(Bench(), 0) for check in EXAMPLE_MODE] == [[]] * len(EXAMPLE_MODE)


@pytest.mark.parametrize("units", [[((), 0.0), ((3, 4), 0.1)], [((3, 4), 0.1), ((), 0.0)]])
def test_a_unit_of_padding_alone_can_be_a_piece_of_its_own(units: list) -> None:
    assert train(EngineSubject(), EngineRun(units, piece=1), 0).batches == 1
