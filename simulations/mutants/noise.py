"""Noise gone wrong: too little, not everywhere, not independent, or predictable."""

from __future__ import annotations

import dataclasses
import math
import time

import numpy as np

from common.evaluation.conformance import Subject
from common.privacy.plan import PrivacyPlan
from common.privacy.private_sum import PrivateSum, Released, release
from common.privacy.rng import NoiseSource
from common.table import FloatArray, IntArray
from simulations.mutants import Mutant


def _scaled(factor: float) -> Subject:
    def too_little(total: PrivateSum, plan: PrivacyPlan, source: NoiseSource) -> Released:
        return release(total, dataclasses.replace(plan, noise_multiplier=plan.noise_multiplier * factor), source)

    return Subject(release=too_little)


def _plain(total: PrivateSum, plan: PrivacyPlan) -> Released:
    return release(total, dataclasses.replace(plan, mode="none"), NoiseSource.seeded_for_tests(0))


def _dense_rows(plain: Released, noised: Released, name: str) -> FloatArray:
    ids, values = plain.rows[name]
    table = np.zeros_like(noised.rows[name][1])
    table[slice(None) if ids is None else ids] = values
    return table


def _no_noise_on_last_table(total: PrivateSum, plan: PrivacyPlan, source: NoiseSource) -> Released:
    plain = _plain(total, plan)
    noised = _noised(plain, plan, source)
    name = sorted(plain.rows)[-1]
    return Released({**noised.rows, name: (None, _dense_rows(plain, noised, name))}, noised.dense)


def _no_noise_on_dense(total: PrivateSum, plan: PrivacyPlan, source: NoiseSource) -> Released:
    plain = _plain(total, plan)
    return Released(_noised(plain, plan, source).rows, plain.dense)


def _touched_rows_only(total: PrivateSum, plan: PrivacyPlan, source: NoiseSource) -> Released:
    plain = _plain(total, plan)
    rows = {
        name: (ids, values + source.normal(values.shape, plan.noise_stddev))
        for name, (ids, values) in plain.rows.items()
    }
    return Released(rows, _noised(plain, plan, source).dense)


def _one_draw_a_row(total: PrivateSum, plan: PrivacyPlan, source: NoiseSource) -> Released:
    plain = _plain(total, plan)
    noised = _noised(plain, plan, source)
    rows: dict[str, tuple[IntArray | None, FloatArray]] = {
        name: (None, _dense_rows(plain, noised, name) + source.normal((len(values), 1), plan.noise_stddev))
        for name, (_, values) in noised.rows.items()
    }
    return Released(rows, noised.dense)


def _same_noise_every_time(total: PrivateSum, plan: PrivacyPlan, source: NoiseSource) -> Released:
    return release(total, plan, NoiseSource.seeded_for_tests(0))


_ROWS = 64  # rows of every table in the checks: a plain sparse sum does not know the size of its table


def _noised(plain: Released, plan: PrivacyPlan, source: NoiseSource) -> Released:
    """Correct noise on every coordinate of a plain sum."""
    rows: dict[str, tuple[IntArray | None, FloatArray]] = {}
    for name, (ids, values) in plain.rows.items():
        table = source.normal((_ROWS, values.shape[1]), plan.noise_stddev)
        table[slice(None) if ids is None else ids] += values
        rows[name] = (None, table)
    dense = {name: array + source.normal(array.shape, plan.noise_stddev) for name, array in plain.dense.items()}
    return Released(rows, dense)


def _seeded_from_clock() -> NoiseSource:
    source = NoiseSource.seeded_for_tests(int(time.time()))
    source.test_mode = False
    return source


MUTANTS = (
    Mutant("no noise at all", "noise_scale", _scaled(1e-9)),
    Mutant("noise divided by sqrt(2)", "noise_scale", _scaled(1 / math.sqrt(2))),
    Mutant("noise divided by the square root of the cohort", "noise_scale", _scaled(0.1)),
    Mutant("noise times 3/2", "noise_scale", _scaled(1.5)),
    Mutant("noise times 2/3", "noise_scale", _scaled(2 / 3)),
    Mutant("noise share of clients that vanished not made up", "noise_scale", _scaled(math.sqrt(0.7))),
    Mutant("no noise on one table", "noise_scale", Subject(release=_no_noise_on_last_table)),
    Mutant("no noise on dense layers", "noise_scale", Subject(release=_no_noise_on_dense)),
    Mutant("noise on touched rows alone", "support", Subject(release=_touched_rows_only)),
    Mutant("one draw for a whole row", "whiteness", Subject(release=_one_draw_a_row)),
    Mutant("the same noise in every round", "fresh_noise", Subject(release=_same_noise_every_time)),
    Mutant("source seeded from the clock", "secret_source", Subject(secure=_seeded_from_clock)),
)
