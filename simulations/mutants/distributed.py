"""Mode distributed gone wrong: integers beyond their bound, shares too small or shared, claims that are not earned."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any

import dp_accounting as dp
import numpy as np

from common.evaluation.conformance import Subject
from common.privacy import distributed, rounding
from common.privacy.clipping import ClippedBatch, clip
from common.privacy.grid import Grid
from common.privacy.integer_events import SkellamDpEvent
from common.privacy.plan import PrivacyPlan
from common.privacy.rng import NoiseSource
from common.privacy.rotation import rotation_seed
from common.privacy.rounding import Part
from common.table import IntArray
from common.update import ParameterSpec, UpdateBatch, summed
from simulations.mutants import Mutant, instead_of

_share, _clamped, _rounded = distributed._share, distributed._clamped, rounding.rounded
_event = Grid.event


def _share_times(factor: str) -> Any:
    """Every client's share with another variance than the plan's."""

    def wrong(made: Grid, source: NoiseSource) -> IntArray:
        terms = made.secure
        times = {
            "honest / clients": Fraction(terms.honest, terms.max_clients),
            "honest / survivors": Fraction(terms.honest, terms.survivors),
            "1 / honest": Fraction(1, terms.honest),
            "half": Fraction(1, 2),
        }[factor]
        return _share(dataclasses.replace(made, share=float(Fraction(made.share) * times)), source)

    return wrong


def _only_where_touched(made: Grid, source: NoiseSource) -> IntArray:
    share = _share(made, source)
    share[len(share) // 2 :] = 0
    return share


def _rounded_normal(made: Grid, source: NoiseSource) -> IntArray:
    """A normal of half the variance, rounded: looks like integer noise, and is too small beside."""
    return np.rint(source.normal(made.length, math.sqrt(made.share_variance / 2))).astype(np.int64)


def _from_the_rotation(made: Grid, source: NoiseSource) -> IntArray:
    return _share(made, NoiseSource.seeded_for_tests(rotation_seed(0, 1)).derive("share"))


def _one_number_for_two(made: Grid, source: NoiseSource) -> IntArray:
    """Half the draws, each used for two neighbours."""
    return np.repeat(_share(made, source), 2)[: made.length]


def _unclamped(integers: IntArray, made: Grid) -> IntArray:
    return integers


def _clamp_of_one_bit_more(integers: IntArray, made: Grid) -> IntArray:
    return np.clip(integers, -2 * made.clamp, 2 * made.clamp)


def _clamped_after_noise(
    plan: PrivacyPlan, specs: Sequence[ParameterSpec], integers: IntArray, source: NoiseSource
) -> Any:
    made = plan.grid
    noised = _clamped(integers + _share(made, source.derive("share")), made)
    return distributed._wrapped(noised, made.secure.bits)


def _unconditional(
    parts: Sequence[Part], count: int, *, scale: float, most_squared_norm: int, source: NoiseSource
) -> list[IntArray]:
    return _rounded(parts, count, scale=scale, most_squared_norm=2**62, source=source)


def _always_up(
    parts: Sequence[Part], count: int, *, scale: float, most_squared_norm: int, source: NoiseSource
) -> list[IntArray]:
    return [np.ceil(part.values.astype(np.float64) * scale).astype(np.int64) for part in parts]


def _to_nearest(
    parts: Sequence[Part], count: int, *, scale: float, most_squared_norm: int, source: NoiseSource
) -> list[IntArray]:
    return [np.rint(np.nan_to_num(part.values.astype(np.float64) * scale)).astype(np.int64) for part in parts]


def _rounded_after_the_sum(
    plan: PrivacyPlan, specs: Sequence[ParameterSpec], batches: Iterable[UpdateBatch], source: NoiseSource
) -> IntArray:
    """Clipped units are summed in floats and the sum is rounded, with the account of single units."""
    sums = [summed(clip(batch, plan.l2_clip_norm).batch, specs) for batch in batches]
    made = plan.grid
    total = np.zeros(made.length, np.int64)
    for batch in sums:
        present = [spec for spec in specs if spec.name in {**batch.rows, **batch.dense}]
        parts = [distributed._part(batch, spec) for spec in present]
        whole = _rounded(parts, 1, scale=made.scale, most_squared_norm=2**60, source=source)
        for spec, integers in zip(present, whole, strict=True):
            rows = batch.rows[spec.name].ids if spec.is_table else np.arange(1)
            distributed._segment(total, specs, spec).reshape(-1, integers.shape[1])[rows] += integers
    return total


def _unclipped(batch: UpdateBatch, l2_clip_norm: float) -> ClippedBatch:
    return ClippedBatch(batch, 0, 0)


def _all_survivors(made: Grid) -> dp.DpEvent:
    """The noise of everybody enrolled, where only T - c shares are sure."""
    event: Any = _event(made)
    return dataclasses.replace(event, variance=made.share_variance * made.secure.max_clients)


def _without_rounding(made: Grid) -> dp.DpEvent:
    """The sensitivity of real numbers, though integers are noised."""
    norm = made.scale * made.shape.l2_clip_norm
    event: Any = _event(made)
    return SkellamDpEvent(event.variance, max(norm, event.l1_sensitivity), norm)


def _amplified(plan: PrivacyPlan, observer: str, rounds: int) -> dp.DpEvent:
    """Poisson sampling by the very coordinator that learns the sum."""
    if plan.mode != "distributed" or plan.sampling != "poisson":
        return plan.event(observer, rounds)
    step = dp.PoissonSampledDpEvent(plan.rate, dp.GaussianDpEvent(plan.noise_multiplier))
    return dp.SelfComposedDpEvent(step, rounds)


def _in(name: str, by: Any) -> Any:
    return instead_of(distributed, name, by)


MUTANTS = (
    Mutant(
        "share of noise for the clients enrolled",
        "secure_noise",
        replacing=_in("_share", _share_times("honest / clients")),
    ),
    Mutant(
        "share of noise for survivors, colluders counted in",
        "secure_noise",
        replacing=_in("_share", _share_times("honest / survivors")),
    ),
    Mutant(
        "standard deviation of the noise shared out, not variance",
        "secure_noise",
        replacing=_in("_share", _share_times("1 / honest")),
    ),
    Mutant(
        "share with the mean of one Poisson for its variance",
        "secure_noise",
        replacing=_in("_share", _share_times("half")),
    ),
    Mutant("share of noise on part of the vector", "secure_noise", replacing=_in("_share", _only_where_touched)),
    Mutant("rounded normals for a share", "secure_noise", replacing=_in("_share", _rounded_normal)),
    Mutant("clamp after the noise", "secure_noise", replacing=_in("client_vector", _clamped_after_noise)),
    Mutant("noise from the seed of the rotation", "secure_shares", replacing=_in("_share", _from_the_rotation)),
    Mutant("one draw of a share for two numbers", "secure_shares", replacing=_in("_share", _one_number_for_two)),
    Mutant("no clamp before the noise", "secure_overflow", replacing=_in("_clamped", _unclamped)),
    Mutant("clamp at twice what the sum holds", "secure_overflow", replacing=_in("_clamped", _clamp_of_one_bit_more)),
    Mutant(
        "unconditional rounding with the conditional bound",
        "secure_sensitivity",
        replacing=_in("rounded", _unconditional),
    ),
    Mutant("integers of updates that nobody clipped", "secure_sensitivity", replacing=_in("clip", _unclipped)),
    Mutant(
        "sensitivity of reals accounted for integers",
        "secure_sensitivity",
        replacing=instead_of(Grid, "event", _without_rounding),
    ),
    Mutant("rounded up always", "secure_units", replacing=_in("rounded", _always_up)),
    Mutant("rounded to the nearest: small entries vanish", "secure_units", replacing=_in("rounded", _to_nearest)),
    Mutant(
        "units rounded after they are summed", "secure_units", replacing=_in("sum_of_units", _rounded_after_the_sum)
    ),
    Mutant(
        "noise of all clients accounted, not of T - c",
        "secure_account",
        replacing=instead_of(Grid, "event", _all_survivors),
    ),
    Mutant("amplification against the coordinator that draws the cohort", "secure_account", Subject(event=_amplified)),
)
