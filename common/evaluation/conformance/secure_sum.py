"""Mode distributed, T1 to T5: what clients put into a secure sum, what the sum holds, and what is accounted for it.

The sum itself is taken in the clear here: that the protocol gives the same integers is for its own tests.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.config import FederationConfig, PrivacyConfig, TrainingConfig
from common.evaluation.conformance.checks import Check
from common.evaluation.conformance.claims import gaussian_epsilon
from common.evaluation.conformance.coupled import adversaries, not_finite
from common.evaluation.conformance.findings import Finding, correlation_finding, dispersion_finding, scale_finding
from common.evaluation.conformance.subject import Setup, Subject, arrays, contribution
from common.privacy import distributed
from common.privacy.grid import noise_reach
from common.privacy.plan import PrivacyPlan, make_plan
from common.privacy.plan_sizing import sized
from common.privacy.rng import NoiseSource
from common.privacy.rotation import rotation_seed
from common.table import IntArray
from common.update import ParameterSpec, RowBatch, UpdateBatch, concatenated

Sent = Callable[["SumSetup", Sequence[UpdateBatch], Sequence[NoiseSource], int], Iterable[NDArray[Any]]]

_TRIES = 30  # of a rounding whose every number lies between two integers
_UNITS = 400


def _sent(
    setup: SumSetup, clients: Sequence[UpdateBatch], sources: Sequence[NoiseSource], round_number: int
) -> Iterable[NDArray[Any]]:
    plan, specs = setup.plan, setup.specs
    if plan.unit_is_client:
        turn = rotation_seed(setup.seed, round_number)
        return distributed.client_vectors(plan, specs, concatenated(list(clients)), sources, rotation_seed=turn)
    whole = [distributed.sum_of_units(plan, specs, [b], s) for b, s in zip(clients, sources, strict=True)]
    return [distributed.client_vector(plan, specs, i, s) for i, s in zip(whole, sources, strict=True)]


@dataclass(frozen=True)
class SumSetup:
    """What is tried: a plan of mode distributed in test mode, for small parameters.

    Attributes:
        sent: what clients put into the sum of a round: one contribution each where the client is the unit, else the
            contributions of a client's units.
        seed: the scenario's public one, which rotations follow.
    """

    plan: PrivacyPlan
    specs: tuple[ParameterSpec, ...]
    sent: Sent = _sent
    seed: int = 0

    @property
    def name(self) -> str:
        """The unit."""
        return "clients" if self.plan.unit_is_client else "units of a client"

    @property
    def as_sum(self) -> Setup:
        """For helpers that know tables and the clip alone."""
        return Setup(self.plan, self.specs)

    def vectors(self, clients: Sequence[UpdateBatch], seed: int, round_number: int = 1) -> list[IntArray]:
        """What the clients send, with sources of a seed."""
        parent = NoiseSource.seeded_for_tests(seed)
        sources = [parent.derive("client", k, round_number) for k in range(len(clients))]
        return [v.astype(np.int64) for v in self.sent(self, clients, sources, round_number)]

    def centred(self, total: IntArray) -> IntArray:
        """A sum modulo 2^bits as integers around zero."""
        half = 2 ** (self.plan.grid.secure.bits - 1)
        return (total + half) % (2 * half) - half

    def decoded(self, total: IntArray, round_number: int = 1) -> dict[str, NDArray[np.float64]]:
        """The arrays that the coordinator finds in a sum."""
        bits = self.plan.grid.secure.bits
        masked = (total % 2**bits).astype(np.uint16 if bits == 16 else np.uint32)
        turn = rotation_seed(self.seed, round_number)
        return arrays(self.as_sum, distributed.released_from_sum(self.plan, self.specs, masked, rotation_seed=turn))


def toy_sums() -> tuple[SumSetup, ...]:
    """Whole clients at 16 bits and units of a client at 32, with colluders, over two tables and a dense parameter."""
    specs = (
        ParameterSpec("centre", (64, 24), "words"),
        ParameterSpec("context", (64, 16), "words"),
        ParameterSpec("bias", (1200,)),
    )
    return tuple(SumSetup(toy_sum_plan(unit, bits), specs) for unit, bits in (("client", 16), ("document", 32)))


def toy_sum_plan(unit: str, bits: int, **federation: Any) -> PrivacyPlan:
    """A plan for the parameters of ``toy_sums``."""
    terms = {"secure_aggregation": "full", "bits": bits, "min_clients": 6, "max_clients": 9, "colluders": 2}
    plan = make_plan(
        PrivacyConfig(mode="distributed", noise_multiplier=1.3, delta=1e-5, l2_clip_norm=0.5, test_mode=True),
        FederationConfig.model_validate(terms | federation),
        TrainingConfig(),
        unit=unit,
        additive=unit != "client",
        natural_clip=None,
    )
    return sized(plan, 64 * 24 + 64 * 16 + 1200)


def secure_sensitivity(setups: Sequence[SumSetup], seed: int = 0) -> list[Finding]:
    """One unit more, or a client zeroed out, moves the integers by no more than the event says, in L2 and in L1."""
    found = []
    for setup in setups:
        rng = np.random.default_rng(seed)
        tried = adversaries(setup.as_sum, rng) | not_finite(setup.as_sum, rng)
        for name, extra in tried.items():
            found.append(_moved(setup, name, [(extra, seed)]))
        halves = _between_integers(setup)
        found.append(_moved(setup, "every number between two integers", [(halves, seed + k) for k in range(_TRIES)]))
    return found


def _moved(setup: SumSetup, name: str, trials: Sequence[tuple[UpdateBatch, int]]) -> Finding:
    """The largest move over trials; the others' units stand on the grid, so they are rounded the same way."""
    event: Any = setup.plan.round_event("public")
    grid = setup.plan.grid  # wide discrete Gaussian shares cost what one Gaussian does, whose event holds no norms
    most_l1, most_l2 = (getattr(event, name, getattr(grid, name)) for name in ("l1_sensitivity", "l2_sensitivity"))
    nothing, l1, l2 = _on_grid(setup), 0.0, 0.0
    for extra, seed in trials:
        more = extra if setup.plan.unit_is_client else concatenated([nothing, extra])
        (before,), (after,) = setup.vectors([nothing], seed), setup.vectors([more], seed)
        moved = [abs(int(v)) for v in setup.centred(after - before)]
        l1, l2 = max(l1, sum(moved)), max(l2, math.sqrt(sum(v * v for v in moved)))
    within = l2 <= most_l2 and l1 <= most_l1
    told = f"L2 {l2 / most_l2:.4f}, L1 {l1 / most_l1:.4f} of what is accounted"
    return Finding("T1", f"{setup.name}: {name}", told, within)


def secure_units(setups: Sequence[SumSetup], seed: int = 0) -> list[Finding]:
    """Units are rounded one by one: what many of a third of a step add up to is binomial, in mean and in spread."""
    found = []
    for setup in setups:
        if setup.plan.unit_is_client:
            continue
        third = _filled(setup, np.float32(0.3 / setup.plan.grid.scale))
        share = float(np.float32(0.3 / setup.plan.grid.scale)) * setup.plan.grid.scale
        batch, source = concatenated([third] * _UNITS), NoiseSource.seeded_for_tests(seed)
        sums = distributed.sum_of_units(setup.plan, setup.specs, [batch], source)
        found.append(dispersion_finding("T1", "units rounded by themselves", sums, _UNITS * share * (1 - share)))
        spread = math.sqrt(_UNITS * share * (1 - share) * len(sums))
        z = (float(sums.sum()) - _UNITS * share * len(sums)) / spread
        found.append(Finding("T1", "rounding on average", f"z = {z:+.2f}", abs(z) < 6.5))
    return found


def secure_overflow(setups: Sequence[SumSetup], seed: int = 0) -> list[Finding]:
    """The largest cohort, each client at the largest integers, stays inside the modulus, noise included."""
    found = []
    for setup in setups:
        grid, parent = setup.plan.grid, NoiseSource.seeded_for_tests(seed)
        clients = grid.secure.max_clients
        for sign in (1, -1):
            top = np.full(grid.length, sign * (2**40 + 12_345))
            vectors = [
                distributed.client_vector(setup.plan, setup.specs, top, parent.derive(k)) for k in range(clients)
            ]
            total = setup.centred(np.sum([v.astype(np.int64) for v in vectors], axis=0))
            off = int(np.abs(total - sign * clients * grid.clamp).max())
            told = f"off by {off} steps, noise reaches {noise_reach(grid)}"
            found.append(Finding("T1", f"{setup.name}: {clients} at the clamp", told, off <= noise_reach(grid)))
    return found


def secure_noise(setups: Sequence[SumSetup], seed: int = 0) -> list[Finding]:
    """A sum over exactly T - c clients holds the clipped sum and the declared noise, array by array."""
    found = []
    for setup in setups:
        rng, honest = np.random.default_rng(seed), setup.plan.grid.secure.honest
        clients = [contribution(setup.as_sum, rng, 0.3) for _ in range(honest)]
        decoded = setup.decoded(np.sum(setup.vectors(clients, seed), axis=0))
        for name, array in decoded.items():
            plain = sum(_array(batch, name, array.shape) for batch in clients)
            residual = (array - plain) / setup.plan.noise_stddev
            found.append(scale_finding("T2", f"{setup.name}: noise of {honest} shares on {name}", residual))
    return found


def secure_shares(setups: Sequence[SumSetup], seed: int = 0) -> list[Finding]:
    """Shares of noise have nothing in common: between clients, between rounds, along a vector; and none is known.

    A party that knows all public seeds, of the run and of the rotation, does not find any of them.
    """
    found = []
    for setup in setups:
        grid = setup.plan.grid
        nothing = [UpdateBatch(1, {}, _zeros(setup))] * 2
        stddev = math.sqrt(grid.share_variance)
        one, other = (setup.centred(v) / stddev for v in setup.vectors(nothing, seed))
        later = setup.centred(setup.vectors(nothing, seed, 2)[0]) / stddev
        public = NoiseSource.seeded_for_tests(rotation_seed(setup.seed, 1)).derive("share")
        guessed = distributed._share(grid, public) / stddev
        pairs = {"two clients": (one, other), "two rounds": (one, later), "neighbouring numbers": (one[1:], one[:-1])}
        for name, (a, b) in (pairs | {"a share made from the public seed": (one, guessed)}).items():
            found.append(correlation_finding("T3", f"{setup.name}: {name}", a, b))
    return found


def secure_account(subject: Subject, seed: int = 0) -> list[Finding]:
    """What is accounted: T - c shares, the enforced norm, no amplification for anybody, all rounds."""
    found = []
    for unit in ("client", "document"):
        plan = toy_sum_plan(unit, 32, rounds=4)
        grid, event = plan.grid, plan.round_event("public")
        shares = 2 * grid.share * grid.secure.honest
        numbers = event.variance <= shares and event.l2_sensitivity**2 >= grid.most_squared_norm
        told = f"variance {event.variance / shares:.6f} of {grid.secure.honest} shares"
        found.append(Finding("T5", f"unit {unit}: one event", told, bool(numbers)))
        drawn = toy_sum_plan(unit, 32, rounds=4, sampling="poisson", rate=0.05)
        quiet = replace(drawn, noise_multiplier=4.0)
        least = gaussian_epsilon(2.0, 1e-5)
        for observer in ("coordinator", "public"):
            epsilon = subject.epsilon(subject.event(quiet, observer, 4), 1e-5)
            line = f"epsilon {epsilon:.4f}, at least {least:.4f}"
            found.append(Finding("T5", f"unit {unit}: drawn clients, {observer}", line, epsilon >= least))
    return found


def _zeros(setup: SumSetup) -> dict[str, NDArray[np.float32]]:
    return {s.name: np.zeros((1, *s.shape), np.float32) for s in setup.specs if not s.is_table}


def _filled(setup: SumSetup, value: np.float32) -> UpdateBatch:
    """One contribution with ``value`` in every number of every array."""
    rows = {
        s.name: RowBatch(np.array([0, s.shape[0]]), np.arange(s.shape[0]), np.full(s.shape, value, np.float32))
        for s in setup.specs
        if s.is_table
    }
    return UpdateBatch(1, rows, {n: a + value for n, a in _zeros(setup).items()})


def _between_integers(setup: SumSetup) -> UpdateBatch:
    """A contribution as long as the clip allows, whose every number lies halfway between two integers."""
    grid, size = setup.plan.grid, setup.as_sum.coordinates
    squares = (setup.plan.l2_clip_norm * grid.scale) ** 2
    low = math.floor(math.sqrt(squares / size) - 0.5) + 0.5
    larger = math.floor((squares - size * low**2) / (2 * low + 1))  # so many are low + 1
    batch = _filled(setup, np.float32(low / grid.scale))
    for array in (*(t.values for t in batch.rows.values()), *batch.dense.values()):
        array.reshape(-1)[:larger] = (low + 1) / grid.scale
        larger = max(0, larger - array.size)
    return batch


def _on_grid(setup: SumSetup) -> UpdateBatch:
    """What the others contribute: nothing beside a client that is zeroed out, else a unit of whole steps."""
    if setup.plan.unit_is_client:
        return UpdateBatch(1, {}, _zeros(setup))
    return _filled(setup, np.float32(1 / setup.plan.grid.scale))


def _array(batch: UpdateBatch, name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    if name in batch.dense:
        return batch.dense[name][0].astype(np.float64)
    out = np.zeros(shape)
    if name in batch.rows:
        np.add.at(out, batch.rows[name].ids, batch.rows[name].values)
    return out


def secure_sum_checks(setups: Sequence[SumSetup] | None = None) -> tuple[Check, ...]:
    """The checks for some setups; without any, for ``toy_sums``."""

    def of(function: Callable[[Sequence[SumSetup], int], list[Finding]], test: str) -> Check:
        return Check(function.__name__, test, lambda bench, seed: function(setups or toy_sums(), seed))

    return (
        of(secure_sensitivity, "T1"),
        of(secure_units, "T1"),
        of(secure_overflow, "T1"),
        of(secure_noise, "T2"),
        of(secure_shares, "T3"),
        Check("secure_account", "T5", lambda bench, seed: secure_account(bench.subject, seed), False),
    )
