"""Deliberately broken privacy mechanisms: every one must be killed by the check it names, the correct one by none.

A ``Subject`` bundles the functions that a proof rests on. A module of this package has a constant ``MUTANTS``: a tuple
of mutants, each with one function of the correct subject replaced by a wrong one of a kind that has shipped somewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from dp_accounting import DpEvent
from numpy.typing import NDArray

from common.discovery import load_member, member_names
from common.privacy import accounting
from common.privacy.clipping import ClippedBatch, clip
from common.privacy.plan import PrivacyPlan
from common.privacy.private_sum import PrivateSum, Released, release
from common.privacy.rng import NoiseSource
from common.update import ParameterSpec, UpdateBatch


def _event(plan: PrivacyPlan, observer: str, rounds: int) -> DpEvent:
    return plan.event(observer, rounds)


def _draw(source: NoiseSource, clients: int, rate: float) -> NDArray[np.bool_]:
    return source.bernoulli(clients, rate)


@dataclass(frozen=True)
class Subject:
    """What is put to the test; the defaults are the correct functions.

    Attributes:
        clip: bounds every contribution.
        make_sum: an empty sum for the given parameters.
        release: lets the sum out with noise.
        seeded: reproducible source of a seed; ``secure``: a source as a real run makes it.
        draw: which clients take part in a round.
        event: what so many rounds of a plan cost against an observer.
        epsilon: what an event costs at a delta.
    """

    clip: Callable[[UpdateBatch, float], ClippedBatch] = clip
    make_sum: Callable[[Sequence[ParameterSpec]], PrivateSum] = PrivateSum
    release: Callable[[PrivateSum, PrivacyPlan, NoiseSource], Released] = release
    seeded: Callable[[int], NoiseSource] = NoiseSource.seeded_for_tests
    secure: Callable[[], NoiseSource] = NoiseSource.from_os
    draw: Callable[[NoiseSource, int, float], NDArray[np.bool_]] = _draw
    event: Callable[[PrivacyPlan, str, int], DpEvent] = _event
    epsilon: Callable[[DpEvent, float], float] = accounting.epsilon


@dataclass(frozen=True)
class Mutant:
    """``name`` says what is broken; ``killed_by`` is the check that must notice it."""

    name: str
    killed_by: str
    subject: Subject


CORRECT = Subject()


def all_mutants() -> tuple[Mutant, ...]:
    """Every mutant of every module of this package."""
    return tuple(m for name in member_names(__name__) for m in load_member(__name__, name, "MUTANTS"))
