"""Conformance for free: every family passes T1 to T3 in example mode, and T1 and T2 with additive contributions.

``conforms`` is the fixture (conftest.py): give it a bench, and the tests that it must pass. Every mechanism meets it in
test_mechanisms.py; here are mechanisms that must not pass, and the families.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from client.training import Randomness, client_updates
from common import families
from common.config import build_scenario
from common.evaluation.conformance import CHECKS, EXAMPLE_MODE, Bench, Finding, failures
from common.evaluation.conformance.findings import bound_finding, scale_finding
from common.evaluation.conformance.subject import toy_plan
from common.families import AdditiveFamily, LocalTraining, ModuleFamily
from common.privacy import mechanisms
from common.privacy.mechanisms.gaussian import Gaussian
from common.privacy.rng import NoiseSource
from common.units import Units, joined
from common.work import Work, work_for
from simulations.conformance import example_setup

from ._family_cases import Case, case_for
from .conftest import Conforms, mechanism_bench

MODULES = [n for n in families.names() if isinstance(families.load(n), ModuleFamily)]
ADDITIVE = [n for n in families.names() if isinstance(families.load(n), AdditiveFamily)]
ONE = LocalTraining(local_steps=1, local_epochs=1, batch_size=8, lr=0.1)


class _Wrong(Gaussian):
    scale = 1.0

    def add_noise(self, parameters, stddev, source):  # type: ignore[no-untyped-def]
        return super().add_noise(parameters, stddev * self.scale, source)


class TwoThirds(_Wrong):
    scale = 2 / 3


class ThreeHalves(_Wrong):
    scale = 3 / 2


class TellsTheSum(Gaussian):
    """Noise that follows what it hides."""

    def add_noise(self, parameters, stddev, source):  # type: ignore[no-untyped-def]
        wide = 1 + 20 * max(float(np.abs(array).max()) for array in parameters.values())
        return super().add_noise(parameters, stddev * wide, source)


class OneArrayBare(Gaussian):
    def add_noise(self, parameters, stddev, source):  # type: ignore[no-untyped-def]
        bare = {"context": np.asarray(parameters["context"], dtype=np.float32)}
        return {**super().add_noise(parameters, stddev, source), **bare}


class OneDraw(Gaussian):
    def add_noise(self, parameters, stddev, source):  # type: ignore[no-untyped-def]
        return {n: (a + source.normal(1, stddev)).astype(np.float32) for n, a in parameters.items()}


@pytest.mark.parametrize(
    ("broken", "check"),
    [
        (TwoThirds(), "noise_scale"),
        (ThreeHalves(), "noise_scale"),
        (OneArrayBare(), "noise_scale"),
        (OneDraw(), "whiteness"),
        (TellsTheSum(), "sensitivity"),
    ],
    ids=lambda x: x if isinstance(x, str) else type(x).__name__,
)
def test_a_broken_mechanism_does_not(broken: Gaussian, check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mechanisms, "load", lambda name: broken)
    assert failures(CHECKS[check].run(mechanism_bench("gaussian"), 0))


def example_work(name: str) -> Work:
    """A family in example mode, with few dimensions."""
    case = case_for(families.load(name))
    scenario = build_scenario(
        {
            "task": {"family": name, **({"dimension": 8} if "dimension" in type(case.options).model_fields else {})},
            "data": {"unit": "record"},
            "privacy": {"mode": "example", "noise_multiplier": 1.3, "l2_clip_norm": 0.5, "test_mode": True},
            "training": {"local_steps": 2, "unit_rate": 0.4, "batch_size": 8, "lr": 0.1},
        }
    )
    return work_for(scenario, case.domain)


@pytest.mark.parametrize("name", MODULES)
def test_every_family_conforms_in_example_mode(name: str, conforms: Conforms) -> None:
    bench = Bench(example=example_setup(example_work(name)))
    conforms(bench, "T1", "T2", "T3", checks=EXAMPLE_MODE, seeds=1)


def additive_work(case: Case, mode: str) -> Work:
    return Work(build_scenario({}), case.family, case.options, case.domain, toy_plan(mode, "document"))


def sent(work: Work, case: Case, units: Units) -> dict[str, np.ndarray]:
    """What one client with these units sends, in full shapes."""
    noise = Randomness(0, NoiseSource.seeded_for_tests(3))
    update = client_updates(work, case.initial(), [units], training=ONE, randomness=[noise])
    found = {name: array[0].astype(np.float64) for name, array in update.dense.items()}
    for spec in work.update_specs:
        if spec.is_table:
            found[spec.name] = np.zeros(spec.shape)
            if spec.name in update.rows:
                found[spec.name][update.rows[spec.name].ids] = update.rows[spec.name].values
    return found


def additive_sensitivity(case: Case) -> list[Finding]:
    """One unit more moves what its client sends by at most C."""
    work = additive_work(case, "central")
    few = case.encode(case.records).take(np.arange(5))
    without = sent(work, case, few)
    found = []
    for number, records in enumerate((case.records[:1], *case.weird)):
        unit = case.encode(records)
        for extra in [case.heavy] if number == 0 else [unit.as_one()]:
            more = sent(work, case, joined([few, extra]))
            moved = math.sqrt(sum(float(np.sum((more[n] - without[n]) ** 2)) for n in more))
            found.append(bound_finding("T1", f"unit {number}", moved, work.plan.l2_clip_norm, slack=1e-5))
    return found


@pytest.mark.parametrize("name", ADDITIVE)
def test_every_additive_family_conforms(name: str) -> None:
    case = case_for(families.load(name))
    assert failures(additive_sensitivity(case)) == []
    local, central = (sent(additive_work(case, mode), case, case.clients[0]) for mode in ("local", "central"))
    stddev = additive_work(case, "local").plan.noise_stddev
    for array in local:
        assert scale_finding("T2", array, (local[array] - central[array]) / stddev).holds, array


def test_a_family_whose_contributions_are_not_clipped_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    from client import training
    from common.privacy.clipping import ClippedBatch

    monkeypatch.setattr(training, "clip", lambda batch, bound: ClippedBatch(batch, 0, 0))
    assert failures(additive_sensitivity(case_for(families.load(ADDITIVE[0]))))
