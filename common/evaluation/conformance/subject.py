"""The coordinator's mechanism under test: contributions are clipped, summed, released with noise, divided."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from dp_accounting import DpEvent
from numpy.typing import NDArray

from common.config import FederationConfig, PrivacyConfig, TrainingConfig
from common.privacy import accounting
from common.privacy.clipping import ClippedBatch, clip
from common.privacy.plan import PrivacyPlan, make_plan
from common.privacy.private_sum import PrivateSum, Released, release
from common.privacy.rng import NoiseSource
from common.update import ParameterSpec, RowBatch, UpdateBatch, concatenated

Sent = Callable[[UpdateBatch, PrivacyPlan, Sequence[ParameterSpec], NoiseSource], UpdateBatch]

ROWS, BOUND = 64, 0.5


def _event(plan: PrivacyPlan, observer: str, rounds: int) -> DpEvent:
    return plan.event(observer, rounds)


def _draw(source: NoiseSource, clients: int, rate: float) -> NDArray[np.bool_]:
    return source.bernoulli(clients, rate)


def expected_cohort(plan: PrivacyPlan, enrolled: int, taking_part: int) -> float:
    """What the coordinator divides by: a public number, never how many took part."""
    return max(1.0, plan.rate * enrolled)


@dataclass(frozen=True)
class Subject:
    """What is put to the test; the defaults are the correct functions.

    Attributes:
        clip: bounds every contribution.
        make_sum: an empty sum for the given parameters.
        release: lets the sum out with noise.
        divisor: what the released sum is divided by (plan, enrolled, taking part).
        seeded: reproducible source of a seed; ``secure``: a source as a real run makes it.
        draw: which clients take part in a round.
        event: what so many rounds of a plan cost against an observer.
        epsilon: what an event costs at a delta.
        sent: what clients send for their contributions, noise included where they add it; ``None``: clipped ones.
    """

    clip: Callable[[UpdateBatch, float], ClippedBatch] = clip
    make_sum: Callable[[Sequence[ParameterSpec]], PrivateSum] = PrivateSum
    release: Callable[[PrivateSum, PrivacyPlan, NoiseSource], Released] = release
    divisor: Callable[[PrivacyPlan, int, int], float] = expected_cohort
    seeded: Callable[[int], NoiseSource] = NoiseSource.seeded_for_tests
    secure: Callable[[], NoiseSource] = NoiseSource.from_os
    draw: Callable[[NoiseSource, int, float], NDArray[np.bool_]] = _draw
    event: Callable[[PrivacyPlan, str, int], DpEvent] = _event
    epsilon: Callable[[DpEvent, float], float] = accounting.epsilon
    sent: Sent | None = None


@dataclass(frozen=True)
class Setup:
    """What the mechanism is configured with: a plan in seeded test mode, and small parameters.

    Attributes:
        plan: mode central, or local with a ``Subject.sent`` that adds the client's noise.
        specs: tables have at least two rows.
    """

    plan: PrivacyPlan
    specs: tuple[ParameterSpec, ...]

    @property
    def quiet(self) -> PrivacyPlan:
        """The plan without noise: what remains is the clipped sum."""
        return dataclasses.replace(self.plan, mode="none", noise_multiplier=0.0)

    @property
    def alone(self) -> bool:
        """Whether a contribution is a client's whole update, to which the client itself adds noise."""
        return self.plan.mode == "local" and self.plan.unit_is_client

    @property
    def tables(self) -> tuple[ParameterSpec, ...]:
        """Parameters with rows."""
        return tuple(spec for spec in self.specs if spec.is_table)

    @property
    def coordinates(self) -> int:
        """Numbers in one release."""
        return sum(int(np.prod(spec.shape)) for spec in self.specs)


def toy_plan(mode: str = "central", unit: str = "client", *, sigma: float = 1.3, **settings: object) -> PrivacyPlan:
    """A plan in test mode with clip norm ``BOUND``; ``settings`` are keys of [federation] and [training]."""
    federation = {k: v for k, v in settings.items() if k in FederationConfig.model_fields}
    training = {k: v for k, v in settings.items() if k in TrainingConfig.model_fields}
    privacy = PrivacyConfig(mode=mode, noise_multiplier=sigma, delta=1e-5, l2_clip_norm=BOUND, test_mode=True)
    return make_plan(
        privacy,
        FederationConfig.model_validate(federation),
        TrainingConfig.model_validate(training),
        unit=unit,
        additive=unit != "client" and mode != "example",
        natural_clip=None,
    )


def toy_setup() -> Setup:
    """Two tables and a dense parameter under central noise."""
    specs = (
        ParameterSpec("centre", (ROWS, 24), "words"),
        ParameterSpec("context", (ROWS, 16), "words"),
        ParameterSpec("bias", (1200,)),
    )
    return Setup(toy_plan(), specs)


def contribution(
    setup: Setup, rng: np.random.Generator, norm: float, *, repeats: int = 1, most_rows: int = 5, parts: str = "all"
) -> UpdateBatch:
    """One contribution, not clipped, of norm ``norm * C`` as its entries stand; every row id comes ``repeats`` times.

    Args:
        parts: ``all`` arrays, ``tables`` alone, the ``first`` table alone, or ``dense`` arrays alone. Where there are
            none of that kind: all.
    """
    tables, dense_specs = setup.tables, [s for s in setup.specs if not s.is_table]
    chosen = {"tables": tables, "first": tables[:1], "dense": dense_specs}.get(parts) or setup.specs
    rows, dense, total = {}, {}, 0.0
    for spec in setup.specs:
        if not spec.is_table:
            dense[spec.name] = rng.normal(size=(1, *spec.shape)) * (spec in chosen)
            total += float(np.sum(dense[spec.name] ** 2))
        elif spec in chosen:
            high = max(1, spec.shape[0] if most_rows > spec.shape[0] // 2 else spec.shape[0] // 2)
            ids = np.sort(rng.choice(high, min(most_rows, high), replace=False))
            values = np.repeat(rng.normal(size=(len(ids), spec.shape[1])), repeats, axis=0)
            rows[spec.name] = (np.repeat(ids, repeats).astype(np.int64), values)
            total += float(np.sum(values**2))
    factor = norm * setup.plan.l2_clip_norm / max(total, 1e-300) ** 0.5
    with np.errstate(over="ignore"):
        batches = {n: RowBatch(np.array([0, len(i)]), i, (v * factor).astype(np.float32)) for n, (i, v) in rows.items()}
        return UpdateBatch(1, batches, {n: (a * factor).astype(np.float32) for n, a in dense.items()})


def run(
    subject: Subject, setup: Setup, batches: list[UpdateBatch], seed: int, *, plan: PrivacyPlan | None = None
) -> Released:
    """Clip, sum and release."""
    fixed, source = plan or setup.plan, subject.seeded(seed)
    total = subject.make_sum(setup.specs)
    whole = concatenated(batches)
    if subject.sent is None:
        total.add(subject.clip(whole, fixed.l2_clip_norm).batch)
    else:
        total.add(subject.sent(whole, fixed, setup.specs, source.derive("client")))
    return subject.release(total, fixed, source.derive("release"))


def arrays(setup: Setup, released: Released) -> dict[str, NDArray[np.float64]]:
    """Every array of a release, tables with all their rows."""
    found = {}
    for spec in setup.specs:
        if not spec.is_table:
            found[spec.name] = released.dense[spec.name].astype(np.float64)
            continue
        ids, values = released.rows[spec.name]
        found[spec.name] = np.zeros(spec.shape)
        found[spec.name][slice(None) if ids is None else ids] = values
    return found


def flat(setup: Setup, released: Released) -> NDArray[np.float64]:
    """Every number of a release."""
    return np.concatenate([array.ravel() for array in arrays(setup, released).values()])


def residuals(subject: Subject, setup: Setup, seed: int) -> dict[str, NDArray[np.float64]]:
    """Released minus the plain sum of correctly clipped contributions, in units of the declared stddev, per array."""
    rng = np.random.default_rng(seed)
    batches = [contribution(setup, rng, 0.3) for _ in range(1 if setup.alone else 3)]
    noised = arrays(setup, run(subject, setup, batches, seed))
    plain = arrays(setup, run(Subject(), setup, batches, seed, plan=setup.quiet))
    return {name: (noised[name] - plain[name]) / setup.plan.noise_stddev for name in noised}
