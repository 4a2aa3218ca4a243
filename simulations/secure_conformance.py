"""Conformance of a scenario in mode distributed: the checks of secure sums on the client's own code, made small."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.integers import client_integers
from client.training import Randomness
from common.evaluation.conformance import Check
from common.evaluation.conformance.secure_sum import SumSetup, secure_sum_checks
from common.families import LocalTraining
from common.privacy.plan import PrivacyPlan
from common.privacy.plan_sizing import sized
from common.privacy.rng import NoiseSource
from common.units import Units
from common.update import ParameterSpec, UpdateBatch, concatenated
from common.work import Work
from simulations.conformance import _Given, _GivenUnits, small_specs


def secure_checks_of(work: Work) -> tuple[Check, ...]:
    """The checks for what a scenario configures, in seeded test mode."""
    specs = small_specs(work.update_specs)
    return secure_sum_checks((SumSetup(small_plan(work.plan, specs), specs, _sent_by(work), work.scenario.seed),))


def small_plan(plan: PrivacyPlan, specs: Sequence[ParameterSpec]) -> PrivacyPlan:
    """The plan with its noise multiplier and bits, for small parameters."""
    dimension = sum(math.prod(spec.shape) for spec in specs)
    return sized(dataclasses.replace(plan, test_mode=True, target_epsilon=None), dimension)


def _sent_by(work: Work) -> Any:
    """What ``client.integers`` makes of given contributions."""

    def sent(
        setup: SumSetup, clients: Sequence[UpdateBatch], sources: Sequence[NoiseSource], round_number: int
    ) -> Iterable[NDArray[Any]]:
        whole = setup.plan.unit_is_client
        groups = [list(range(len(clients)))] if whole else [[k] for k in range(len(clients))]
        for group in groups:
            batch = concatenated([clients[k] for k in group])
            family = (_Given if whole else _GivenUnits)(setup.specs, batch)
            counts = [0 if whole else batch.count] * len(group)
            yield from client_integers(
                Work(work.scenario, family, None, None, setup.plan),
                {},
                [Units(np.zeros(count + 1, np.int64), {}) for count in counts],
                training=LocalTraining(local_steps=1, local_epochs=1, batch_size=1, lr=1.0),
                randomness=[Randomness(0, sources[k]) for k in group],
                round_number=round_number,
            )

    return sent
