"""T4: who takes part. Rates, the dispersion of every client's and every cohort's count, and bounded contributions."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import stats

from common.evaluation.conformance.findings import (
    ALARM,
    Finding,
    binomial_finding,
    dispersion_finding,
)
from common.evaluation.conformance.subject import Setup, Subject
from common.privacy.rng import NoiseSource
from common.privacy.unit_sampling import Piece, UnitSampler

_CLIENTS, _ROUNDS, _RATE = 300, 400, 0.1
_SINGLES, _LARGE, _BOUND = 30, 12, 3  # units of one example, one unit of twelve of which three may enter
_UNIT_RATE = 0.25


def poisson_draw(subject: Subject, setup: Setup, seed: int = 0) -> list[Finding]:
    """Every client is drawn with the rate, and cohorts and clients vary as independent draws do."""
    rate = setup.plan.rate if setup.plan.sampling == "poisson" else _RATE
    source = subject.seeded(seed)
    drawn = np.array([subject.draw(source, _CLIENTS, rate) for _ in range(_ROUNDS)])
    return draws_findings("clients", drawn, rate)


def draws_findings(what: str, drawn: np.ndarray, rate: float) -> list[Finding]:
    """Rate, dispersion of the cohorts' sizes and dispersion of the members' counts.

    Args:
        drawn: (rounds, members), whether each took part.
    """
    rounds, members = drawn.shape
    if rate >= 1:
        return [Finding("T4", f"rate of {what}", f"{int(drawn.sum())} of {drawn.size}", bool(drawn.all()))]
    spread = rate * (1 - rate)
    return [
        binomial_finding("T4", f"rate of {what}", int(drawn.sum()), drawn.size, rate=rate),
        dispersion_finding("T4", f"size of the cohorts of {what}", drawn.sum(axis=1), members * spread),
        dispersion_finding("T4", f"participation of each of the {what}", drawn.sum(axis=0), rounds * spread),
    ]


def unit_sampler(
    seed: int = 0, *, make: Callable[..., Any] = UnitSampler, rate: float = _UNIT_RATE, steps: int = 400
) -> list[Finding]:
    """Units of many examples: drawn whole with the rate, never twice, bounded by a random choice of their own."""
    units = np.concatenate([np.arange(_SINGLES), np.full(_LARGE, _SINGLES), np.full(2, _SINGLES + 1)])
    source = NoiseSource.seeded_for_tests(seed)
    sampler = make(units, unit_rate=rate, steps=steps, source=source, max_examples=_BOUND, max_piece=6)
    drawn, chosen, whole = np.zeros((steps, _SINGLES + 2), bool), np.zeros((steps, len(units)), bool), True
    step, pieces = 0, deque[Piece]()
    sampler.on_piece = pieces.append
    for examples in sampler:
        piece = pieces.popleft()
        whole &= not drawn[step, units[examples]].any() and len(examples) <= 6
        whole &= len(set(examples)) == len(examples) == len(piece.units)
        drawn[step, units[examples]], chosen[step, examples] = True, True
        step += piece.last
    large = chosen[:, _SINGLES : _SINGLES + _LARGE]
    taken = large.sum(axis=1)[drawn[:, _SINGLES]]
    pair = chosen[:, -2:].sum(axis=1)
    together = bool(np.all(taken == _BOUND)) and not bool(np.any(pair == 1)) and step == steps
    return [
        *draws_findings("units", drawn, rate),
        Finding("T4", "units in a logical batch", "whole and once" if whole else "split or repeated", whole),
        Finding("T4", "examples of a drawn unit", f"{_BOUND} of {_LARGE}, 2 of 2" if together else "others", together),
        _uniform(large.sum(axis=0)),
    ]


def _uniform(counts: np.ndarray) -> Finding:
    """Each of the large unit's examples is chosen equally often: subsets of a fixed size, so the spread is smaller."""
    chances, total = _BOUND / _LARGE, counts.sum() / _BOUND
    variance = total * chances * (1 - chances) * _LARGE / (_LARGE - 1)  # the counts add up to a constant
    statistic = float(np.sum((counts - counts.mean()) ** 2)) / max(variance, 1e-12)
    p = float(stats.chi2.sf(statistic, _LARGE - 1))
    return Finding("T4", "which examples a bounded unit brings", f"chi2 = {statistic:.1f}, p = {p:.1g}", p > ALARM)
