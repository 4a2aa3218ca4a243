"""The one local loop: from a client's units and the global parameters to its clipped and, where due, noised update."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from client.device import ANY_DEVICE, Device, out_of_gpu_memory
from client.module_training import module_sgd
from common.errors import PrivacyConfigError
from common.families import AdditiveFamily, LocalFamily, LocalTraining
from common.privacy import mechanisms
from common.privacy.clipping import clip
from common.privacy.rng import NoiseSource
from common.units import Units, joined
from common.update import (
    Parameters,
    ParameterSpec,
    RowBatch,
    UpdateBatch,
    concatenated,
    sum_groups,
)
from common.work import Work

# Units whose contributions are held at once: bounds memory, changes nothing else.
UNITS_PER_CHUNK = 1024
FAILURES = (ArithmeticError, LookupError, ValueError, RuntimeError, MemoryError)
LOGGER = logging.getLogger("fedembed.client")


def local_training(work: Work, round_number: int, device: Device = ANY_DEVICE) -> LocalTraining:
    """Public settings of the local work in round ``round_number`` (from 1), on what the site has chosen."""
    t = work.scenario.training
    return LocalTraining(
        local_steps=t.local_steps,
        local_epochs=t.local_epochs,
        batch_size=t.batch_size,
        lr=t.lr,
        progress=(round_number - 1) / work.scenario.federation.rounds,
        device=device.chosen(t.device),
    )


@dataclass(frozen=True)
class Randomness:
    """One client's randomness in one round.

    Attributes:
        seed: for local sampling whose secrecy no guarantee needs: negatives, orders of batches.
        noise: for noise and secret sampling; needed where the client itself adds noise (``example``, ``local``).
    """

    seed: int
    noise: NoiseSource | None = None

    @property
    def required_noise(self) -> NoiseSource:
        """``noise``.

        Raises:
            PrivacyConfigError: there is none.
        """
        if self.noise is None:
            raise PrivacyConfigError("a client that adds noise itself needs a source of noise")
        return self.noise


def client_updates(
    work: Work,
    parameters: Parameters,
    clients: Sequence[Units],
    *,
    training: LocalTraining,
    randomness: Sequence[Randomness],
) -> UpdateBatch:
    """What the given clients send in one round: one contribution each, already clipped and noised as the plan says.

    Args:
        clients: encoded data of each client.
        randomness: of each client.
    """
    plan = work.plan
    if plan.mode != "none" and not plan.test_mode and any(r.noise and r.noise.test_mode for r in randomness):
        raise PrivacyConfigError("a seeded source of noise serves test mode alone: its noise can be subtracted")
    if plan.mode == "distributed":
        raise PrivacyConfigError("mode 'distributed' sends integers alone: see client.integers.client_integers")
    batch = isolated_updates(work, parameters, clients, training=training, randomness=randomness)
    if plan.mode in ("none", "example"):
        return batch
    if plan.unit_is_client:
        batch = clip(batch, plan.l2_clip_norm).batch
    return _with_local_noise(work, batch, randomness) if plan.mode == "local" else batch


def isolated_updates(
    work: Work,
    parameters: Parameters,
    clients: Sequence[Units],
    *,
    training: LocalTraining,
    randomness: Sequence[Randomness],
) -> UpdateBatch:
    """The updates before noise; where a client's data make the arithmetic fail, that client contributes nothing.

    An error reply would tell something about the data without noise, and would take the other clients with it. When
    all of several clients fail, the fault is in the program and not in anybody's data: it is raised. Where a GPU has
    no room, everything is computed again on the CPU.
    """
    try:
        return _raw_updates(work, parameters, clients, training=training, randomness=randomness)
    except FAILURES as error:
        if training.device != "cpu" and out_of_gpu_memory(error):
            LOGGER.warning("the GPU has no room for this: going on with the CPU")
            slower = replace(training, device="cpu")
            return isolated_updates(work, parameters, clients, training=slower, randomness=randomness)
        if work.plan.mode == "none":
            raise
        alone = [
            _alone(work, parameters, client, training=training, randomness=own)
            for client, own in zip(clients, randomness, strict=True)
        ]
        failed = sum(not computed for _, computed in alone)
        if failed == len(clients) > 1:
            raise
        LOGGER.warning("%d computation(s) failed (%s) and contribute nothing", failed, type(error).__name__)
    return concatenated([batch for batch, _ in alone])


def _alone(
    work: Work, parameters: Parameters, client: Units, *, training: LocalTraining, randomness: Randomness
) -> tuple[UpdateBatch, bool]:
    """One client's update and whether it could be computed; without data it is zero, in example mode noise alone."""
    try:
        return _raw_updates(work, parameters, [client], training=training, randomness=[randomness]), True
    except FAILURES:
        if work.plan.mode != "example":
            return _zero_update(work.update_specs, 1), False
    nothing = client.take(np.empty(0, np.int64))
    return _example_mode(work, parameters, [nothing], training=training, randomness=[randomness]), False


def _raw_updates(
    work: Work,
    parameters: Parameters,
    clients: Sequence[Units],
    *,
    training: LocalTraining,
    randomness: Sequence[Randomness],
) -> UpdateBatch:
    if work.plan.mode == "example":
        return _example_mode(work, parameters, clients, training=training, randomness=randomness)
    if isinstance(work.family, AdditiveFamily):
        return _additive(work, parameters, clients)
    if isinstance(work.family, LocalFamily):
        seeds = [own.seed for own in randomness]
        return work.family.local_update(parameters, clients, work.domain, work.options, training=training, seeds=seeds)
    pairs = zip(clients, randomness, strict=True)
    return concatenated([module_sgd(work, parameters, units, training, own.seed) for units, own in pairs])


def _additive(work: Work, parameters: Parameters, clients: Sequence[Units]) -> UpdateBatch:
    """Per-unit contributions, each clipped by itself, summed per client (DESIGN: additive over units)."""
    owner = np.repeat(np.arange(len(clients)), [c.count for c in clients])
    units = joined(clients)
    parts, start = [], 0
    for batch in unit_contributions(work, parameters, units):
        stop = start + batch.count
        if work.plan.mode != "none":
            batch = clip(batch, work.plan.l2_clip_norm).batch
        parts.append(sum_groups(batch, owner[start:stop], len(clients), specs=work.update_specs))
        start = stop
    if not parts:
        return _zero_update(work.update_specs, len(clients))
    whole = concatenated(parts)
    groups = np.tile(np.arange(len(clients)), len(parts))
    return sum_groups(whole, groups, len(clients), specs=work.update_specs)


def unit_contributions(work: Work, parameters: Parameters, units: Units) -> Iterator[UpdateBatch]:
    """Contributions of single units, in order, some at a time.

    A unit whose data make the arithmetic fail contributes nothing, and nothing but itself is lost: were others lost
    with it, one unit would change more than its own contribution. Where all of several fail, the program is at fault.
    """
    failed = 0
    for start in range(0, units.count, UNITS_PER_CHUNK):
        part = units.slice(start, min(start + UNITS_PER_CHUNK, units.count))
        try:
            yield work.family.contributions(parameters, part, work.options)
        except FAILURES:
            if work.plan.mode == "none" or units.count < 2:
                raise
            for k in range(part.count):
                alone = _alone_or_nothing(work, parameters, part.slice(k, k + 1))
                failed += alone is None
                if failed == units.count:
                    raise
                yield _zero_update(work.update_specs, 1) if alone is None else alone


def _alone_or_nothing(work: Work, parameters: Parameters, unit: Units) -> UpdateBatch | None:
    try:
        return work.family.contributions(parameters, unit, work.options)
    except FAILURES as error:
        LOGGER.warning("a unit's computation failed (%s) and contributes nothing", type(error).__name__)
        return None


def _zero_update(specs: Sequence[ParameterSpec], count: int) -> UpdateBatch:
    dense = {s.name: np.zeros((count, *s.shape), np.float32) for s in specs if not s.is_table}
    return UpdateBatch(count, {}, dense)


def _example_mode(
    work: Work,
    parameters: Parameters,
    clients: Sequence[Units],
    *,
    training: LocalTraining,
    randomness: Sequence[Randomness],
) -> UpdateBatch:
    from common.privacy.dpsgd import train_example_mode  # imports opacus

    return concatenated(
        [
            train_example_mode(
                work.family,
                parameters,
                units,
                work.domain,
                work.options,
                plan=work.plan,
                training=training,
                source=own.required_noise,
            )
            for units, own in zip(clients, randomness, strict=True)
        ]
    )


def _with_local_noise(work: Work, batch: UpdateBatch, randomness: Sequence[Randomness]) -> UpdateBatch:
    """Gaussian noise on every coordinate of every client's clipped update, touched or not."""
    noised = []
    for k, own in enumerate(randomness):
        dense = {}
        for spec in work.update_specs:
            value = np.zeros(spec.shape, np.float32)
            if not spec.is_table:
                value += batch.dense[spec.name][k]
            elif spec.name in batch.rows:
                table = batch.rows[spec.name]
                lo, hi = table.offsets[k], table.offsets[k + 1]
                value[table.ids[lo:hi]] = table.values[lo:hi]
            dense[spec.name] = value
        mechanism = mechanisms.load(work.plan.mechanism)
        noise = mechanism.add_noise(dense, work.plan.noise_stddev, own.required_noise)
        noised.append(dense_update(noise, work.update_specs))
    return concatenated(noised)


def dense_update(parameters: Parameters, specs: Sequence[ParameterSpec]) -> UpdateBatch:
    """One contribution that touches every row of every table."""
    rows = {
        s.name: RowBatch(np.array([0, s.shape[0]]), np.arange(s.shape[0], dtype=np.int64), parameters[s.name])
        for s in specs
        if s.is_table
    }
    dense = {s.name: parameters[s.name][None] for s in specs if not s.is_table}
    return UpdateBatch(1, rows, dense)
