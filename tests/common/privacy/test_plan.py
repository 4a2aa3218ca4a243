from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import dp_accounting as dp
import pytest

from common.config import FederationConfig, PrivacyConfig, TrainingConfig
from common.errors import ConfigError, PrivacyConfigError
from common.privacy.plan import OBSERVERS, PrivacyPlan, make_plan


def made(mode: str = "central", unit: str = "client", *, additive: bool = False, **settings: Any) -> PrivacyPlan:
    """A plan; every keyword goes to the section that has it."""
    sections = []
    for section in (PrivacyConfig, FederationConfig, TrainingConfig):
        sections.append({k: settings.pop(k) for k in list(settings) if k in section.model_fields})
    natural = settings.pop("natural_clip", None)
    if mode != "none" and "epsilon" not in sections[0]:
        sections[0].setdefault("noise_multiplier", 2.0)
    if mode != "none":
        sections[0].setdefault("l2_clip_norm", 0.5 if natural is None else None)
    return make_plan(
        PrivacyConfig(mode=mode, **sections[0]),
        FederationConfig(**sections[1]),
        TrainingConfig(**sections[2]),
        unit=unit,
        additive=additive,
        natural_clip=natural,
    )


GAUSSIAN = dp.GaussianDpEvent(2.0)
NOT_PRIVATE = dp.NonPrivateDpEvent()
POISSON = {"sampling": "poisson", "rate": 0.2}
EXAMPLE = {"local_steps": 3, "unit_rate": 0.1}

# mode, unit, additive, settings -> what one round costs (coordinator, other clients and the public)
TABLE = [
    ("none", "client", False, {}, NOT_PRIVATE, NOT_PRIVATE),
    ("none", "sentence", False, POISSON, NOT_PRIVATE, NOT_PRIVATE),
    ("central", "client", False, {}, NOT_PRIVATE, GAUSSIAN),
    ("central", "client", True, {}, NOT_PRIVATE, GAUSSIAN),
    ("central", "client", False, POISSON, NOT_PRIVATE, dp.PoissonSampledDpEvent(0.2, GAUSSIAN)),
    ("central", "client", False, {"sampling": "poisson", "rate": 1.0}, NOT_PRIVATE, GAUSSIAN),
    ("central", "sentence", True, {}, NOT_PRIVATE, GAUSSIAN),
    ("central", "sentence", True, POISSON, NOT_PRIVATE, GAUSSIAN),
    ("local", "client", False, {}, GAUSSIAN, GAUSSIAN),
    ("local", "client", False, POISSON, GAUSSIAN, GAUSSIAN),
    ("local", "sentence", True, POISSON, GAUSSIAN, GAUSSIAN),
    *(
        (
            "example",
            "sentence",
            additive,
            {**EXAMPLE, **sampling},
            dp.SelfComposedDpEvent(dp.PoissonSampledDpEvent(0.1, GAUSSIAN), 3),
            dp.SelfComposedDpEvent(dp.PoissonSampledDpEvent(0.1, GAUSSIAN), 3),
        )
        for additive in (False, True)
        for sampling in ({}, POISSON)
    ),
    ("example", "sentence", False, {"local_steps": 3, "unit_rate": 1.0}, *[dp.SelfComposedDpEvent(GAUSSIAN, 3)] * 2),
]


@pytest.mark.parametrize(("mode", "unit", "additive", "settings", "coordinator", "others"), TABLE)
def test_events_of_every_combination(
    mode: str, unit: str, additive: bool, settings: dict[str, Any], coordinator: dp.DpEvent, others: dp.DpEvent
) -> None:
    plan = made(mode, unit, additive=additive, **settings)
    assert plan.round_event("coordinator") == coordinator
    assert plan.round_event("other_clients") == plan.round_event("public") == others
    assert plan.event("public", 5) == dp.SelfComposedDpEvent(others, 5)
    assert plan.event("public", 1) == others and plan.event("public", 0) == dp.NoOpDpEvent()


@pytest.mark.parametrize(("mode", "unit", "additive", "settings", "coordinator", "others"), TABLE)
def test_what_a_ledger_is_charged(
    mode: str, unit: str, additive: bool, settings: dict[str, Any], coordinator: dp.DpEvent, others: dp.DpEvent
) -> None:
    plan = made(mode, unit, additive=additive, rounds=4, **settings)
    assert plan.client_run_event() == plan.event("public", 4)


def refused(match: str, *args: Any, **settings: Any) -> PrivacyConfigError:
    with pytest.raises(PrivacyConfigError, match=match) as caught:
        made(*args, **settings)
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize("mode", ["central", "local"])
def test_record_units_need_an_additive_family(mode: str) -> None:
    error = refused("local steps mix the units", mode, "sentence")
    assert "client" in error.hint and "example" in error.hint


def test_example_mode_cannot_protect_whole_clients() -> None:
    assert "local" in refused("cannot protect the whole client", "example", "client", **EXAMPLE).hint


def test_example_mode_needs_a_public_number_of_steps() -> None:
    refused("needs training.local_steps", "example", "sentence", unit_rate=0.1)


def test_example_mode_needs_a_public_rate() -> None:
    refused("needs training.unit_rate", "example", "sentence", local_steps=3)


def test_a_clip_norm_is_needed_where_the_family_has_none() -> None:
    refused("l2_clip_norm is missing", l2_clip_norm=None)


@pytest.mark.parametrize("bound", [1e-13, 1e13])
def test_clip_norms_out_of_range_are_refused(bound: float) -> None:
    refused("l2_clip_norm must lie", l2_clip_norm=bound)


@pytest.mark.parametrize("delta", [1e-13, 1e-30])
def test_deltas_below_the_accountants_precision_are_refused(delta: float) -> None:
    refused("delta must lie", delta=delta)


def test_a_rate_without_poisson_sampling_is_refused() -> None:
    refused("has no effect", rate=0.1)


@pytest.mark.parametrize(
    "privacy",
    [
        {"epsilon": 0.0},
        {"epsilon": -1.0},
        {"epsilon": math.nan},
        {"epsilon": math.inf},
        {"noise_multiplier": 0.0},
        {"noise_multiplier": math.nan},
        {"noise_multiplier": 1.0, "epsilon": 1.0},
        {"noise_multiplier": 1.0, "delta": 0.0},
        {"noise_multiplier": 1.0, "delta": 1.0},
        {"noise_multiplier": 1.0, "l2_clip_norm": 0.0},
        {},
    ],
)
def test_meaningless_settings_never_become_a_plan(privacy: dict[str, float]) -> None:
    with pytest.raises((ConfigError, ValueError)):
        make_plan(
            PrivacyConfig(mode="central", **privacy),
            FederationConfig(),
            TrainingConfig(),
            unit="client",
            additive=False,
            natural_clip=1.0,
        )


def test_the_familys_own_bound_is_used_unless_another_is_given() -> None:
    assert made("central", "sentence", additive=True, natural_clip=1.0).l2_clip_norm == 1.0
    assert made("central", "sentence", additive=True, natural_clip=1.0, l2_clip_norm=0.25).l2_clip_norm == 0.25


@pytest.mark.parametrize(
    ("mode", "unit", "settings"),
    [
        ("central", "client", {"sampling": "poisson", "rate": 0.2, "rounds": 5}),
        ("local", "client", {"rounds": 3}),
        ("example", "sentence", {"local_steps": 2, "unit_rate": 1.0, "rounds": 2}),
    ],
)
def test_noise_is_calibrated_to_the_target_for_the_whole_run(mode: str, unit: str, settings: dict[str, Any]) -> None:
    plan = made(mode, unit, epsilon=1.5, **settings)
    assert 0.99 * 1.5 <= plan.epsilon("public") <= 1.5
    assert plan.noise_stddev == plan.noise_multiplier * 0.5
    assert plan.max_rounds() == plan.rounds
    assert plan.epsilon("public", plan.rounds + 1) > 1.5


def test_rounds_that_fit_the_target() -> None:
    plan = made(epsilon=1.5, rounds=4)
    for rounds in (4, 7):
        louder = dataclasses.replace(plan, noise_multiplier=plan.noise_multiplier * math.sqrt(rounds / 4))
        assert louder.max_rounds() == rounds
    assert dataclasses.replace(plan, noise_multiplier=plan.noise_multiplier / 2).max_rounds() == 1
    assert dataclasses.replace(plan, noise_multiplier=plan.noise_multiplier / 3).max_rounds() == 0
    assert made(rounds=6).max_rounds() == 6 and made("none", rounds=6).max_rounds() == 6


def test_epsilon_of_every_observer() -> None:
    central, local = made(rounds=4), made("local", rounds=4)
    assert math.isinf(central.epsilon("coordinator"))
    assert central.epsilon("public") == local.epsilon("coordinator") == local.epsilon("public")
    assert central.epsilon("public", 1) < central.epsilon("public", 4)
    assert central.epsilon("public", 0) == 0.0
    assert all(math.isinf(made("none").epsilon(o)) for o in OBSERVERS)


def test_client_sampling_amplifies_only_whole_clients_under_central_noise() -> None:
    full, drawn = made(rounds=4), made(rounds=4, **POISSON)
    assert drawn.amplified and drawn.epsilon("public") < full.epsilon("public")
    for mode, unit in (("central", "sentence"), ("local", "client"), ("local", "sentence")):
        plan = made(mode, unit, additive=True, rounds=4, **POISSON)
        assert not plan.amplified and plan.epsilon("public") == full.epsilon("public")


def test_adjacency_is_stated() -> None:
    assert made("local").adjacency.startswith("zero-out")
    assert made().adjacency.startswith("add or remove everything one client")
    assert made("central", "sentence", additive=True).adjacency.startswith("add or remove one unit")


def test_mode_none_has_no_noise() -> None:
    plan = made("none")
    assert plan.noise_stddev == 0.0 and math.isinf(plan.l2_clip_norm)
    assert made("none", l2_clip_norm=0.5).l2_clip_norm == 0.5


def test_unknown_observers_and_negative_rounds_are_refused() -> None:
    with pytest.raises(PrivacyConfigError, match="unknown observer"):
        made().epsilon("nobody")
    with pytest.raises(PrivacyConfigError, match="rounds must not be negative"):
        made().event("public", -1)


def test_a_plan_is_frozen_and_its_digest_covers_every_field() -> None:
    plan = made(**POISSON)
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.noise_multiplier = 0.1  # type: ignore[misc]
    assert plan.digest == made(**POISSON).digest
    for field in dataclasses.fields(plan):
        value = getattr(plan, field.name)
        changed = not value if isinstance(value, bool) else value * 2 if isinstance(value, (int, float)) else "other"
        if value != changed:
            assert dataclasses.replace(plan, **{field.name: changed}).digest != plan.digest, field.name


def test_claims_are_plain_json() -> None:
    for mode, unit, additive, settings, *_ in TABLE:
        quiet = {} if mode == "none" else {"noise_multiplier": 20.0}
        claim = made(mode, unit, additive=additive, **quiet, **settings).claim(1)
        assert json.loads(json.dumps(claim, allow_nan=False)) == claim
