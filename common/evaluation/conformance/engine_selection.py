"""T1 to T3 and T5 for rows that are selected privately, and T5 for the engine's own account."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import dp_accounting as dp
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import special

from common.evaluation.conformance.engine import (
    CLIP,
    EVERY_ROW,
    ROWS,
    SIGMA,
    TABLES,
    EngineRun,
    EngineSubject,
    Seen,
    guard_of,
    step_stddev,
    train,
)
from common.evaluation.conformance.engine_checks import adversaries
from common.evaluation.conformance.findings import Finding, binomial_finding, bound_finding, scale_finding
from common.privacy import accounting
from common.privacy.rng import NoiseSource
from common.privacy.selection import RowSelection

_EASY = RowSelection(5.0, threshold=0.5, vote_norm=1.0)  # an untouched row is kept with probability .31
_LOUD = RowSelection(2.0, threshold=0.5, vote_norm=1.0)  # votes that cost about as much as the values
_NEVER = RowSelection(5.0, threshold=1e6, vote_norm=1.0)
_DELTA, _STEPS = 1e-5, 24


def vote_sensitivity(subject: EngineSubject, seed: int = 0) -> list[Finding]:
    """One unit adds votes of L2 norm C_1 at most, over all tables together, however many rows it touches."""
    found = []
    base = [EVERY_ROW, EVERY_ROW]
    without = _votes(train(subject, EngineRun(base, rows="selected", selection=_EASY), seed))
    for name, extra in adversaries().items():
        seen = train(subject, EngineRun([*base, extra], rows="selected", selection=_EASY), seed)
        moved = float(np.linalg.norm(_votes(seen) - without))
        found.append(bound_finding("T1", f"votes of a unit {name}", moved, _EASY.vote_norm))
    return found


def dropped_rows(subject: EngineSubject, seed: int = 0) -> list[Finding]:
    """Of a row that is not selected nothing remains: neither in the table's state, nor in the optimizer's."""
    empty, held = (
        train(subject, EngineRun(units, rows="selected", selection=_NEVER, steps=2), seed)
        for units in ([((), 0.0)], [EVERY_ROW])
    )
    lines = []
    for name in TABLES:
        same = _traces(guard_of(empty.optimizer, name)) == _traces(guard_of(held.optimizer, name))
        lines.append(Finding("T3", f"state of {name} after rows were dropped", _told(same), same))
    states = [_traces(s.optimizer.state) + _traces(s.optimizer._sums) for s in (empty, held)]
    same = states[0] == states[1]
    return [*lines, Finding("T3", "state of the optimizer after rows were dropped", _told(same), same)]


def false_positives(subject: EngineSubject, seed: int = 0) -> list[Finding]:
    """Untouched rows are selected with exactly the chance that the threshold gives; what is selected carries noise."""
    run = EngineRun([((1, 2), 1e-6)], rows="selected", selection=_EASY, steps=_STEPS, settled=True)
    seen = train(subject, run, seed)
    chance, found = float(special.ndtr(-_EASY.threshold)), []
    votes = 0.5 * _EASY.vote_norm  # of a unit that touches two rows in each of two tables
    voted = float(special.ndtr(votes / (_EASY.noise_multiplier * _EASY.vote_norm) - _EASY.threshold))
    everything: list[NDArray[np.bool_]] = []
    share = (SIGMA**-2 - _EASY.noise_multiplier**-2) ** -0.5 / SIGMA
    for name in TABLES:
        weights = [np.zeros((ROWS, 1)), *(s[f"{name}.weight"] for s in seen.steps)]
        moves = np.stack([b - a for a, b in pairwise(weights)])
        changed: NDArray[np.bool_] = np.abs(moves).max(axis=2) > 0
        everything.append(changed[:, 1:3])
        untouched, draws = int(changed[:, 3:].sum()), changed[:, 3:].size
        found.append(binomial_finding("T2", f"untouched rows of {name} selected", untouched, draws, rate=chance))
        found.append(scale_finding("T2", f"selected rows of {name}", moves[changed] / step_stddev(SIGMA * share)))
        told = [set(s.tolist()) for s in guard_of(seen.optimizer, name).selected]
        same = told == [set(np.flatnonzero(c)) for c in changed]
        found.append(
            Finding("T3", f"rows of {name} said to be selected", "are those that moved" if same else "are others", same)
        )
    touched = np.stack(everything)
    found.append(binomial_finding("T2", "touched rows selected", int(touched.sum()), touched.size, rate=voted))
    return found


def one_event(subject: EngineSubject, seed: int = 0) -> list[Finding]:
    """Votes and values come from one sample: one Gaussian, with the noise that an observer of the source counts."""
    rate, steps = 0.2, 5
    run = EngineRun([EVERY_ROW] * 3, rows="selected", selection=_LOUD, rate=rate, steps=steps)
    watched: list[float] = []
    seen = train(subject, run, seed, source=_Counting(NoiseSource.seeded_for_tests(seed), watched))
    votes, values = max(watched) / _LOUD.vote_norm, min(s for s in watched if s > 0) / CLIP
    sigma = accounting.combined_noise_multiplier(votes, values)
    truth = dp.SelfComposedDpEvent(dp.PoissonSampledDpEvent(rate, dp.GaussianDpEvent(sigma)), steps)
    least, stated = accounting.epsilon(truth, _DELTA), seen.engine.epsilon(_DELTA)
    told = f"epsilon {stated:.4f}, at least {least:.4f}"
    return [Finding("T5", "votes and values of one sample", told, stated >= least * (1 - 1e-4))]


def engine_account(subject: EngineSubject, seed: int = 0) -> list[Finding]:
    """Logical batches that ended, counted by the caller, are those accounted, with the noise that was drawn."""
    found = []
    for name, piece in (("steps", None), ("steps in pieces", 1)):
        watched: list[float] = []
        run = EngineRun([EVERY_ROW] * 3, rate=0.5, steps=6, piece=piece)
        seen = train(subject, run, seed, source=_Counting(NoiseSource.seeded_for_tests(seed), watched))
        accounted = sum(count for _, _, count in seen.engine.accountant.history)
        exact = accounted == seen.batches == run.steps
        found.append(Finding("T5", name, f"{seen.batches} taken, {accounted} accounted", exact))
        if not exact:
            continue
        sigmas, rates = ({h[k] for h in seen.engine.accountant.history} for k in (0, 1))
        least = min((s for s in watched if s > 0 and s != 1.0), default=0.0) / CLIP  # owed noise is drawn at stddev 1
        fits = rates == {run.rate} and max(sigmas) <= least * (1 + 1e-9)
        told = f"sigma {max(sigmas):.3f} at rate {max(rates):g} accounted, {least:.3f} drawn"
        found.append(Finding("T5", f"noise of the {name}", told, fits))
        first, second = seen.engine.epsilon(_DELTA), float(seen.engine.get_epsilon(_DELTA))
        agree = math.isclose(first, second, rel_tol=0.05, abs_tol=0.02)
        found.append(Finding("T5", f"epsilon of the {name}, PLD and PRV", f"{first:.3f} and {second:.3f}", agree))
    return found


class _Counting:
    """A source that notes the stddev of every draw of normals, in all streams derived from it."""

    test_mode = True

    def __init__(self, source: NoiseSource, watched: list[float]) -> None:
        self._source, self._watched = source, watched

    def derive(self, *context: str | int) -> _Counting:
        return _Counting(self._source.derive(*context), self._watched)

    def normal(self, shape: Any, stddev: float) -> Any:
        self._watched.append(stddev)
        return self._source.normal(shape, stddev)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)


def _votes(seen: Seen) -> np.ndarray:
    """Votes of every row of both tables in the first step."""
    found = np.zeros((len(TABLES), ROWS))
    for k, name in enumerate(TABLES):
        sums = seen.sums[0].get(name)
        if sums is not None and sums.votes is not None:
            found[k, sums.rows.numpy()] = sums.votes.numpy()
    return found


def _traces(value: Any) -> list[Any]:
    """Everything in an object that could tell two runs apart, in order; sources of noise are left out."""
    if isinstance(value, torch.Tensor | np.ndarray):
        return [np.asarray(value.detach() if isinstance(value, torch.Tensor) else value).tolist()]
    if isinstance(value, dict):
        return [item for key in sorted(value, key=str) for item in (str(key), *_traces(value[key]))]
    if isinstance(value, list | tuple | set):
        return [len(value), *(item for part in value for item in _traces(part))]
    if isinstance(value, NoiseSource | _Counting):
        return []
    return _traces(vars(value)) if hasattr(value, "__dict__") else [repr(value)]


def _told(same: bool) -> str:
    return "as if they had not been touched" if same else "tells that they were touched"
