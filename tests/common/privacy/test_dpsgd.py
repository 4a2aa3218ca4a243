"""Example mode step by step: exact on the compact table, Poisson sampling, no global randomness, refusals."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats

from common.errors import ConfigError, PrivacyConfigError
from common.privacy import dpsgd
from common.privacy._opacus import UnitGradients
from common.privacy.dpsgd import train_example_mode
from common.privacy.plan import PrivacyPlan
from common.privacy.rng import NoiseSource
from common.units import Units

from ._toy import (
    DIMENSIONS,
    DOMAIN,
    FAMILY,
    ROWS,
    Toy,
    ToyFamily,
    Training,
    arrays,
    flat,
    initial,
    loaded_toy,
    plan_of,
    run,
    silent,
    units_of,
)

UNITS = units_of([5, 6, 7, 5, 5], [8, 9], [], [10, 10, 10, 10], [11, 5, 39])


def oracle_steps(units: Units, plan: PrivacyPlan, lr: float, batch_size: int, seed: int) -> dict[str, np.ndarray]:
    """DP-SGD on the full table, one backward pass a unit and step, without compaction."""
    source, module, start = silent(seed), loaded_toy(), initial()
    for step in range(plan.local_steps):
        chosen = np.flatnonzero(source.derive("sample", step).bernoulli(units.count, plan.unit_rate))
        if not len(chosen):
            continue
        seeds = [int(part) for part in source.derive("batch", step).integers(4, 2**32)]
        batch = FAMILY.batch(units.take(chosen), DOMAIN, None, np.random.default_rng(seeds))
        engine = UnitGradients(module_copy := loaded_toy(), gather=False)
        module_copy.load_state_dict(module.state_dict())
        found = engine.clipped_sum(FAMILY.loss, batch, plan.l2_clip_norm)
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                parameter -= (lr / batch_size * found[name]).float()
    return {n: p.detach().numpy() - start[n] for n, p in module.named_parameters()}


@pytest.mark.parametrize("rate", [0.4, 1.0])
def test_compact_steps_equal_steps_on_the_full_table(rate: float) -> None:
    plan = plan_of(local_steps=6, unit_rate=rate, noise_multiplier=1e-4)
    found = arrays(run(UNITS, plan=plan, lr=2.0, batch_size=4, source=silent(5)))
    expected = oracle_steps(UNITS, plan, 2.0, 4, 5)
    for name, array in expected.items():
        assert np.abs(array).max() > 1e-3
        np.testing.assert_allclose(found[name], array, atol=2e-6)


def test_units_are_drawn_independently_at_the_public_rate() -> None:
    drawn = []

    class Counting(ToyFamily):
        def batch(self, units, domain, options, rng):
            drawn.append(units.columns["row"] - 5)
            return super().batch(units, domain, options, rng)

    n, plan = 30, plan_of(local_steps=400, unit_rate=0.2)
    units = units_of(*[[5 + i] for i in range(n)])
    # the drawn samples alone are looked at, so the steps themselves are left out
    list(dpsgd._draw_batches(Counting(), units, DOMAIN, None, plan=plan, source=NoiseSource.seeded_for_tests(2)))
    counts = np.bincount(np.concatenate(drawn), minlength=n)
    sizes = np.array([len(d) for d in drawn] + [0] * (400 - len(drawn)))
    assert stats.binomtest(int(counts.sum()), n * 400, 0.2).pvalue > 1e-6
    for values, trials in ((counts, 400), (sizes, n)):  # a shuffle or a fixed size has too little dispersion
        dispersion = float(np.square(values - trials * 0.2).sum()) / (trials * 0.2 * 0.8)
        assert 1e-6 < stats.chi2.cdf(dispersion, len(values)) < 1 - 1e-6
    fixed = np.full(400, 6)
    assert stats.chi2.cdf(float(np.square(fixed - 6.0).sum()), 400) < 1e-6


def test_torch_global_generator_is_left_alone() -> None:
    torch.manual_seed(11)
    before = torch.get_rng_state()
    first = run(UNITS)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(12)
    assert np.array_equal(flat(first), flat(run(UNITS)))
    assert not np.array_equal(flat(first), flat(run(UNITS, seed=2)))


@pytest.mark.parametrize(
    "plan",
    [
        plan_of(mode="central"),
        plan_of(unit_is_client=True),
        plan_of(unit_rate=0.0),
        plan_of(noise_multiplier=0.0),
        plan_of(mechanism="skellam"),
    ],
)
def test_plans_that_do_not_fit_are_refused(plan: PrivacyPlan) -> None:
    with pytest.raises(PrivacyConfigError):
        run(UNITS, plan=plan)


@pytest.mark.parametrize("steps", [0, 2, 4])
def test_step_count_must_be_the_accounted_one(steps: int) -> None:
    with pytest.raises(PrivacyConfigError, match="accounts 3 local steps"):
        train_example_mode(
            FAMILY,
            initial(),
            UNITS,
            DOMAIN,
            None,
            plan=plan_of(),
            training=Training(local_steps=steps),
            source=NoiseSource.seeded_for_tests(1),
        )


class Pooled(ToyFamily):
    def loss(self, module, batch):
        return super().loss(module, batch).mean()


class Flattened(ToyFamily):
    def loss(self, module, batch):
        rows = batch["rows.centre.weight"]
        return module.centre(rows.reshape(-1)).reshape(*rows.shape, DIMENSIONS).sum((1, 2))


class Bypassing(ToyFamily):
    def loss(self, module, batch):
        return super().loss(module, batch) + (module.context.weight.sum() + module.mix.bias.sum())


class OutOfRange(ToyFamily):
    def batch(self, units, domain, options, rng):
        batch = dict(super().batch(units, domain, options, rng))
        batch["rows.centre.weight"] = batch["rows.centre.weight"] + ROWS
        return batch


class Misshapen(ToyFamily):
    def module(self, options, rows):
        return Toy(rows + 1)


@pytest.mark.parametrize("family", [Pooled(), Flattened(), Bypassing(), OutOfRange(), Misshapen()])
def test_families_that_break_their_contract_are_refused(family: ToyFamily) -> None:
    with pytest.raises(ConfigError):
        train_example_mode(
            family,
            initial(),
            UNITS,
            DOMAIN,
            None,
            plan=plan_of(),
            training=Training(),
            source=NoiseSource.seeded_for_tests(1),
        )


def test_parameters_of_another_shape_are_refused() -> None:
    wrong = initial() | {"mix.bias": np.zeros(DIMENSIONS + 1, dtype=np.float32)}
    arguments = SimpleNamespace(plan=plan_of(), training=Training(), source=NoiseSource.seeded_for_tests(1))
    with pytest.raises(ConfigError, match=r"mix\.bias"):
        train_example_mode(FAMILY, wrong, UNITS, DOMAIN, None, **vars(arguments))
