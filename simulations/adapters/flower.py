"""Conformance and canaries for a differentially private strategy of Flower's Message API.

Rounds are real ones: ``configure_train``, a ClientApp for every client (with the mods that the strategy asks for),
``aggregate_train``. What is looked at is the aggregated model less the one sent out, times the number of clients that
the strategy was told: the clipped sum with its noise. Flower fixes the cohort's size, so that neighbours differ in what
one client sends: its update, or next to nothing (an all-zero update is a case of its own).
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from common.errors import ConformanceError, EvaluationError
from common.evaluation.audit import CanaryScores
from common.evaluation.conformance import Finding, Setup, Subject
from common.evaluation.conformance.coupled import sensitivity
from common.evaluation.conformance.findings import bound_finding, correlation_finding
from common.evaluation.conformance.noise import noise_scale, whiteness
from common.evaluation.conformance.subject import contribution, flat, toy_plan
from common.privacy.clipping import ClippedBatch
from common.privacy.plan import PrivacyPlan
from common.privacy.private_sum import PrivateSum, Released
from common.privacy.rng import NoiseSource
from common.update import ParameterSpec, UpdateBatch
from simulations.adapters._lent import lent
from simulations.engine import FIRST_NODE_ID, InProcessGrid

Arrays = Mapping[str, NDArray[np.float32]]

HEAVY = 1000  # examples that one client declares, where the others declare one
_NOTHING = 1e-6  # of C, in one coordinate: what stands for an absent client
_ROUNDS = 4


@dataclass(frozen=True)
class FlowerStrategy:
    """Somebody's strategy, and what is claimed of it.

    Attributes:
        make: a fresh strategy for a cohort of so many clients, all of which it samples.
        clip_norm, noise_multiplier: the bound on a client's update, and the noise on the sum over it.
        clients: size of the cohort in the trials, at least five.
        mods: client mods that belong to the strategy (``fixedclipping_mod``).
        weight: name of the metric by which the strategy weighs clients.
        shapes: a small model.
    """

    make: Callable[[int], Strategy]
    clip_norm: float
    noise_multiplier: float
    clients: int = 8
    mods: Sequence[Any] = ()
    weight: str = "num-examples"
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=lambda: {"table": (64, 24), "bias": (1200,)})

    @property
    def noise_stddev(self) -> float:
        """Claimed standard deviation on every coordinate of the clipped sum."""
        return self.noise_multiplier * self.clip_norm


@dataclass(frozen=True)
class _Sent:
    """What one client answers: its update and its declared number of examples."""

    update: Arrays
    examples: int = 1


def conformance(case: FlowerStrategy, *, seed: int = 0) -> list[Finding]:
    """T1 (updates, weights, an all-zero update, dropouts), T2 and T3 of a strategy.

    Raises:
        EvaluationError: a cohort of fewer than five, or noise that does not repeat under a seed.
    """
    if case.clients < 5:
        raise EvaluationError("the trials need a cohort of at least five clients")
    setup, subject = _setup(case), Subject(clip=_unclipped, make_sum=_Collected, release=partial(_released, case))
    _check_coupled(case, setup, seed)
    shared = (sensitivity, noise_scale, whiteness)
    own = (declared_weight, zero_update, dropouts, fresh_noise)
    return [
        *(finding for check in shared for finding in check(subject, setup, seed)),
        *(finding for check in own for finding in check(case, seed=seed)),
    ]


def _setup(case: FlowerStrategy) -> Setup:
    plan = dataclasses.replace(toy_plan(sigma=case.noise_multiplier), l2_clip_norm=case.clip_norm)
    return Setup(plan, tuple(ParameterSpec(name, shape) for name, shape in case.shapes.items()))


class _Collected(PrivateSum):
    """In the place of a sum: the contributions, one a client."""

    __slots__ = ("updates",)

    def __init__(self, specs: Sequence[ParameterSpec]) -> None:
        super().__init__(specs)
        self.updates: list[Arrays] = []

    def add(self, batch: UpdateBatch) -> None:
        self.updates += [{name: array[k] for name, array in batch.dense.items()} for k in range(batch.count)]


def _unclipped(batch: UpdateBatch, bound: float) -> ClippedBatch:
    """Clipping is the strategy's work."""
    return ClippedBatch(batch, 0, 0)


def _released(case: FlowerStrategy, total: Any, plan: PrivacyPlan, source: NoiseSource) -> Released:
    sent = [_Sent(update) for update in total.updates]
    with lent(int(source.integers(1, 2**32)[0])):
        return Released({}, dict(_required(Cohort(case).round(sent))))


def _required(found: Arrays | None) -> Arrays:
    if found is None:
        raise ConformanceError("the strategy released nothing")
    return found


class Cohort:
    """A strategy with its clients; every round begins from a model of zeros."""

    def __init__(self, case: FlowerStrategy) -> None:
        self._case, self._number = case, 0
        self._strategy = case.make(case.clients)
        self._sent: Sequence[_Sent | None] = ()
        app = ClientApp(mods=list(case.mods))
        app.train()(self._train)
        self._grid = InProcessGrid(app, [{}] * case.clients)

    def round(self, sent: Sequence[_Sent | None]) -> Arrays | None:
        """The noised sum after one round; ``None`` where the strategy released nothing.

        Args:
            sent: of each client; ``None`` for one that drops out; those not given send next to nothing.

        Raises:
            ConformanceError: the strategy, or a client's mod, failed.
        """
        case = self._case
        self._sent = [*sent, *[_Sent(_nothing(case))] * (case.clients - len(sent))]
        self._number += 1
        start = ArrayRecord({n: Array(np.zeros(shape, np.float32)) for n, shape in case.shapes.items()})
        try:
            with np.errstate(all="ignore"), _quiet():
                messages = list(self._strategy.configure_train(self._number, start, ConfigRecord(), self._grid))
                present = [m for m in messages if self._sent[m.metadata.dst_node_id - FIRST_NODE_ID] is not None]
                replies = list(self._grid.send_and_receive(present))
                arrays, _ = self._strategy.aggregate_train(self._number, replies)
        except Exception as error:  # somebody else's code may fail in any way, and that it does is the finding
            raise ConformanceError(f"the strategy raised {type(error).__name__}") from error
        if self._grid.raised:
            raise ConformanceError(f"a client's mod raised {type(self._grid.raised.pop()).__name__}")
        if arrays is None:
            return None
        return {name: arrays[name].numpy() * np.float32(case.clients) for name in case.shapes}

    def _train(self, message: Message, context: Context) -> Message:
        given = self._sent[context.node_id - FIRST_NODE_ID]
        key, start = next(iter(message.content.array_records.items()))
        if given is None:
            raise EvaluationError("a client that dropped out was asked")
        arrays = {name: Array(start[name].numpy() + given.update[name]) for name in start}
        metrics = MetricRecord({self._case.weight: given.examples})
        return Message(RecordDict({key: ArrayRecord(arrays), "metrics": metrics}), reply_to=message)


@contextmanager
def _quiet() -> Iterator[None]:
    """Flower writes a line a client; a trial has thousands."""
    logger = logging.getLogger("flwr")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _nothing(case: FlowerStrategy) -> Arrays:
    update = {name: np.zeros(shape, np.float32) for name, shape in case.shapes.items()}
    next(iter(update.values())).reshape(-1)[0] = _NOTHING * case.clip_norm
    return update


def _updates(case: FlowerStrategy, norms: Sequence[float], seed: int) -> list[_Sent]:
    """Random updates of the given norms, in units of C."""
    setup, rng = _setup(case), np.random.default_rng(seed)
    made = [contribution(setup, rng, norm) for norm in norms]
    return [_Sent({name: array[0] for name, array in batch.dense.items()}) for batch in made]


def _sum(case: FlowerStrategy, sent: Sequence[_Sent | None], seed: int) -> NDArray[np.float64] | None:
    with lent(seed):
        found = Cohort(case).round(sent)
    return None if found is None else np.concatenate([a.ravel().astype(np.float64) for a in found.values()])


def _check_coupled(case: FlowerStrategy, setup: Setup, seed: int) -> None:
    first, second = (_released(case, _Collected(()), setup.plan, NoiseSource.seeded_for_tests(seed)) for _ in range(2))
    gap = float(np.abs(flat(setup, first) - flat(setup, second)).max())
    if not gap <= 1e-3 * case.noise_stddev:
        raise EvaluationError(
            "two trials of this strategy under one seed differ: neighbours cannot be compared",
            remedy="Draw its noise from numpy's or torch's global generator in the trial.",
        )


def _moved(case: FlowerStrategy, fewer: Sequence[_Sent | None], more: Sequence[_Sent | None], *, seed: int) -> float:
    """Distance of two rounds with the same noise; 0 where neither releases anything, infinite where one does."""
    first, second = _sum(case, fewer, seed), _sum(case, more, seed)
    if first is None or second is None:
        return 0.0 if first is second else math.inf
    return float(np.linalg.norm(first - second))


def _bounded(case: FlowerStrategy, told: str, *, seed: int, **rounds: Sequence[_Sent | None]) -> list[Finding]:
    try:
        moved = _moved(case, rounds["fewer"], rounds["more"], seed=seed)
    except ConformanceError as error:
        return [Finding("T1", told, error.message, False)]
    coordinates = sum(math.prod(shape) for shape in case.shapes.values())
    return [bound_finding("T1", told, moved, case.clip_norm, slack=1e-5 * case.noise_stddev * coordinates**0.5)]


def declared_weight(case: FlowerStrategy, *, seed: int = 0) -> list[Finding]:
    """An update of a client that declares many examples moves the sum by at most C as well."""
    *others, extra = _updates(case, (0.1, 0.1, 0.1, 20.0), seed)
    heavy = _Sent(extra.update, HEAVY)
    return _bounded(case, f"weight of {HEAVY} examples declared", seed=seed, fewer=others, more=[*others, heavy])


def zero_update(case: FlowerStrategy, *, seed: int = 0) -> list[Finding]:
    """A client that learned nothing sends zeros, and nothing happens."""
    *others, idle = _updates(case, (0.1, 0.1, 0.1, 0.0), seed)
    return _bounded(case, "all-zero update", seed=seed, fewer=others, more=[*others, idle])


def dropouts(case: FlowerStrategy, *, seed: int = 0) -> list[Finding]:
    """Where half of the cohort does not answer, one update still moves the sum by at most C."""
    gone = [None] * (case.clients // 2)
    *others, extra = _updates(case, (*[0.1] * (case.clients - len(gone) - 1), 20.0), seed)
    fewer, more = [*others, _Sent(_nothing(case)), *gone], [*others, extra, *gone]
    return _bounded(case, "update beside dropouts", seed=seed, fewer=fewer, more=more)


def fresh_noise(case: FlowerStrategy, *, seed: int = 0) -> list[Finding]:
    """Consecutive rounds of one strategy have unrelated noise."""
    with lent(seed):
        cohort = Cohort(case)
        rounds = [_required(cohort.round([])) for _ in range(_ROUNDS)]
    noise = [np.concatenate([a.ravel().astype(np.float64) for a in r.values()]) / case.noise_stddev for r in rounds]
    return [correlation_finding("T3", "lag-1 over rounds", np.concatenate(noise[:-1]), np.concatenate(noise[1:]))]


def canary_scores(case: FlowerStrategy, canaries: int, *, columns: int = 8, seed: int = 0) -> CanaryScores:
    """Scores of canary clients in one round in which each sends its canary with probability 1/2, for ``audited``.

    Canary k is an over-long update along a random direction in row k of a table of its own; the clients of a cohort of
    that size send theirs or next to nothing. A score is the noised sum along the direction: its mean is C or 0.
    """
    rng = np.random.default_rng(seed)
    included = rng.random(canaries) < 0.5
    directions = rng.normal(size=(canaries, columns))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    trial = dataclasses.replace(case, clients=canaries, shapes={"canaries": (canaries, columns)})
    sent = [_Sent(_canary(trial, k, directions[k])) if included[k] else _Sent(_nothing(trial)) for k in range(canaries)]
    with lent(seed + 1):
        released = _required(Cohort(trial).round(sent))["canaries"].astype(np.float64)
    scores = np.einsum("kd,kd->k", released, directions)
    return CanaryScores(scores, included, design="dedicated rows", view="one sum")


def _canary(case: FlowerStrategy, row: int, direction: NDArray[np.float64]) -> Arrays:
    update = np.zeros(case.shapes["canaries"], np.float32)
    update[row] = 10 * case.clip_norm * direction
    return {"canaries": update}
