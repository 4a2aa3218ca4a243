"""Where a score is called that of an included canary: strategies that never choose on the canaries they test with.

A strategy turns scores into the error counts of one or several thresholds. With several, each is tested at its share
of the error rate, so that the best of them may be reported.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from common.evaluation.audit._checks import as_scored, refused, require_whole
from common.evaluation.audit.bounds import ErrorCounts, Floats

PUBLIC_SEED = 20_230_515  # of what needs to be arbitrary, and must not be chosen
_CHOICE_Z = 1.96


@dataclass(frozen=True)
class Counted:
    """Error counts to be bounded.

    Attributes:
        thresholds: shape (T,); a score of at least that is called included.
        counts: of each threshold, arrays of shape (T,).
    """

    thresholds: Floats
    counts: ErrorCounts

    @property
    def tests(self) -> int:
        """Among how many tests the error rate is shared."""
        return len(self.thresholds)


class Strategy(Protocol):
    """How thresholds are found."""

    def tested(self, scores: ArrayLike, included: ArrayLike) -> Counted:
        """Thresholds and their error counts. Raises ``EvaluationError`` where the scores do not allow it."""


@dataclass(frozen=True)
class Explicit:
    """One threshold, fixed before the scores were seen: as a score, or as the rank ``k`` of a score.

    A rank's threshold is the k-th highest score of all canaries, whoever was included; NaN ranks last.
    """

    threshold: float | None = None
    k: int | None = None

    def __post_init__(self) -> None:
        if (self.threshold is None) == (self.k is None):
            raise refused("an explicit threshold is a score or a rank, one of the two")
        if self.threshold is not None and np.isnan(self.threshold):
            raise refused("a threshold must be a number")
        if self.k is not None:
            require_whole("the rank of a threshold", self.k, at_least=1)

    def tested(self, scores: ArrayLike, included: ArrayLike) -> Counted:
        """See ``Strategy``."""
        found, answers = as_scored(scores, included)
        at = self.threshold if self.threshold is not None else _ranked(found, [self.k or 0])
        return _counted(found, answers, np.atleast_1d(np.asarray(at, dtype=np.float64)))


@dataclass(frozen=True)
class Bonferroni:
    """Thresholds at ``candidates`` evenly spaced ranks of all scores: all are tested, each at its share of alpha."""

    candidates: int = 15

    def __post_init__(self) -> None:
        require_whole("the number of candidate thresholds", self.candidates, at_least=1)

    def tested(self, scores: ArrayLike, included: ArrayLike) -> Counted:
        """See ``Strategy``."""
        found, answers = as_scored(scores, included)
        if self.candidates > len(found):
            raise refused(f"{self.candidates} candidate thresholds for {len(found)} canaries")
        return _counted(found, answers, _evenly(found, self.candidates))


def worth_in_mu(counts: ErrorCounts) -> Floats:
    """Roughly the bound of mu at 5 %, from Wilson's upper bounds of the rates: fast, and only to choose by."""
    from scipy.special import ndtri

    a, b = _wilson(counts.false_positives, counts.negatives), _wilson(counts.false_negatives, counts.positives)
    return -ndtri(a) - ndtri(b)


def _wilson(errors: ArrayLike, trials: ArrayLike) -> Floats:
    k, n, z2 = np.asarray(errors), np.asarray(trials), _CHOICE_Z**2
    return (k + z2 / 2 + _CHOICE_Z * np.sqrt(k * (n - k) / n + z2 / 4)) / (n + z2)


@dataclass(frozen=True)
class Split:
    """The threshold that does best on one half of the canaries, tested on the other half alone.

    Attributes:
        candidates: how many evenly spaced ranks of the first half are tried.
        worth: what a threshold is chosen by.
        seed: draws the halves; a constant, so that nobody can draw until a violation appears or vanishes.
    """

    candidates: int = 31
    worth: Callable[[ErrorCounts], Floats] = worth_in_mu
    seed: int = PUBLIC_SEED

    def __post_init__(self) -> None:
        require_whole("the number of candidate thresholds", self.candidates, at_least=1)

    def tested(self, scores: ArrayLike, included: ArrayLike) -> Counted:
        """See ``Strategy``."""
        found, answers = as_scored(scores, included)
        choosing, testing = halves(len(found), self.seed)
        if len(choosing) < self.candidates:
            raise refused(f"{self.candidates} candidate thresholds for {len(choosing)} canaries to choose on")
        tried = _counted(*as_scored(found[choosing], answers[choosing]), _evenly(found[choosing], self.candidates))
        best = tried.thresholds[[int(np.argmax(self.worth(tried.counts)))]]
        return _counted(*as_scored(found[testing], answers[testing]), best)


def halves(count: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Two disjoint random halves of the canaries: to choose on, and to test with."""
    order = np.random.default_rng(seed).permutation(count)
    return order[: count // 2], order[count // 2 :]


def best_bound(tested: Counted, bound: Callable[[ErrorCounts, float], Floats], *, alpha: float) -> tuple[float, int]:
    """The best bound over all thresholds of ``tested``, each at alpha / tests, and which threshold it is of.

    Args:
        bound: (counts, alpha) -> lower bounds of shape (T,).
    """
    found = bound(tested.counts, share(alpha, tested.tests))
    best = int(np.argmax(found))
    return float(found[best]), best


def share(alpha: float, tests: int) -> float:
    """Bonferroni: the error rate of each of so many tests, for ``alpha`` in all."""
    require_whole("the number of tests", tests, at_least=1)
    return alpha / tests


def _counted(scores: Floats, answers: NDArray[np.bool_], thresholds: Floats) -> Counted:
    """Errors of every threshold. A NaN score is an error whatever the answer is."""
    members, others = np.sort(scores[answers]), np.sort(scores[~answers])  # NaN is sorted last
    known_members, known_others = members[~np.isnan(members)], others[~np.isnan(others)]
    missed = np.searchsorted(known_members, thresholds, side="left") + len(members) - len(known_members)
    accused = len(others) - np.searchsorted(known_others, thresholds, side="left")
    full = np.ones(len(thresholds), dtype=np.int64)
    return Counted(thresholds, ErrorCounts(accused, full * len(others), missed, full * len(members)))


def _ranked(scores: Floats, ranks: list[int]) -> Floats:
    """The scores of the given ranks, 1 the highest; NaN ranks last, as minus infinity."""
    if max(ranks) > len(scores):
        raise refused(f"rank {max(ranks)} among {len(scores)} canaries")
    ordered = np.sort(np.where(np.isnan(scores), -np.inf, scores))[::-1]
    return ordered[np.asarray(ranks) - 1]


def _evenly(scores: Floats, candidates: int) -> Floats:
    return _ranked(scores, [max(1, round((j + 1) * len(scores) / (candidates + 1))) for j in range(candidates)])
