"""The tests that an audit registers: each turns scores into one statistic, and the statistic into a bound on epsilon.

More evidence is a larger statistic. ``critical`` says from which statistic on a claim is rejected, so that the power of
a test can be simulated without a bound for every trial.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from common.evaluation.audit import bounds, one_run, thresholds
from common.evaluation.audit._checks import as_scored
from common.evaluation.audit.bounds import ErrorCounts, Floats
from common.evaluation.audit.one_run import Guesses

Answers = NDArray[np.bool_]
ONE_RUN, ONE_RUN_FDP = "one_run", "one_run_fdp"
GDP_THRESHOLD, MEAN_DIFFERENCE, CLOPPER_PEARSON = "gdp_threshold", "mean_difference", "clopper_pearson"
_MOST_SKEW, _MOST_KURTOSIS = 5.0, 6.0  # in their standard errors under normality


class Method(Protocol):
    """One registered test: everything about it is fixed before the scores are seen.

    Attributes:
        name: of the method.
        assumes: in words, what must be true for its error rate to hold.
        alpha: its error rate.
        delta: the claim's.
    """

    @property
    def name(self) -> str: ...
    @property
    def assumes(self) -> str: ...
    @property
    def alpha(self) -> float: ...
    @property
    def delta(self) -> float: ...

    def __hash__(self) -> int:
        """Methods are frozen: what they can see is computed once."""

    def statistic(self, scores: Floats, included: Answers) -> float:
        """What the scores come to."""

    def epsilon(self, statistic: float) -> float:
        """The lower bound of epsilon that a statistic proves."""

    def estimate(self, scores: Floats, included: Answers) -> float:
        """Point estimate of epsilon: half of all runs would show more. No bound."""

    def critical(self, claimed_epsilon: float) -> float:
        """A claim is rejected by statistics above this."""

    def most(self, canaries: int) -> float:
        """The statistic where every canary is told right."""


@dataclass(frozen=True)
class OneRun:
    """One-run test of a claim (``ONE_RUN``) or of its Gaussian trade-off curve (``ONE_RUN_FDP``).

    Attributes:
        canaries: how many there are.
        guesses: how many are guessed, half of them as included.
    """

    name: str
    alpha: float
    delta: float
    canaries: int
    guesses: int

    @property
    def assumes(self) -> str:
        """See ``Method``."""
        curve = "any mechanism" if self.name == ONE_RUN else "a mechanism with a Gaussian trade-off curve"
        return f"{curve}; canaries may depend on one another"

    def guessed(self, scores: Floats, included: Answers) -> Guesses:
        """The guesses and how many are right."""
        return one_run.guesses(scores, included, top=(self.guesses + 1) // 2, bottom=self.guesses // 2)

    def statistic(self, scores: Floats, included: Answers) -> float:
        """Right guesses."""
        return float(self.guessed(scores, included).right)

    def epsilon(self, statistic: float) -> float:
        """See ``Method``."""
        return self._epsilon(int(statistic), self.alpha)

    def estimate(self, scores: Floats, included: Answers) -> float:
        """The bound at error rate one half."""
        return self._epsilon(int(self.statistic(scores, included)), 0.5)

    def critical(self, claimed_epsilon: float) -> float:
        """See ``Method``."""
        if self.name == ONE_RUN:

            def refuted(found: Guesses) -> bool:
                return one_run.p_value(found, epsilon=claimed_epsilon, delta=self.delta) <= self.alpha
        else:
            mu = bounds.mu_of_epsilon(claimed_epsilon, self.delta)

            def refuted(found: Guesses) -> bool:
                return one_run.rejects_mu(found, mu=mu, alpha=self.alpha)

        fewest = one_run.critical_right(self.canaries, self.guesses, refuted=refuted)
        return math.inf if fewest is None else fewest - 0.5

    def most(self, canaries: int) -> float:
        """See ``Method``."""
        return float(self.guesses)

    def _epsilon(self, right: int, alpha: float) -> float:
        found = Guesses(self.canaries, self.guesses, right)
        bound = one_run.epsilon_bound if self.name == ONE_RUN else one_run.fdp_epsilon_bound
        return bound(found, delta=self.delta, alpha=alpha)


@dataclass(frozen=True)
class GdpThreshold:
    """Error rates at a few thresholds, as mu of a Gaussian trade-off curve."""

    alpha: float
    delta: float
    strategy: thresholds.Strategy = field(default_factory=partial(thresholds.Bonferroni, 7))
    name: str = GDP_THRESHOLD
    assumes: str = "a mechanism with a Gaussian trade-off curve; independent canaries"

    def statistic(self, scores: Floats, included: Answers) -> float:
        """The bound of mu."""
        found = self.strategy.tested(scores, included)
        return thresholds.best_bound(found, lambda c, a: bounds.mu_bound(c, alpha=a), alpha=self.alpha)[0]

    def epsilon(self, statistic: float) -> float:
        """See ``Method``."""
        return bounds.epsilon_of_mu(statistic, self.delta)

    def estimate(self, scores: Floats, included: Answers) -> float:
        """From the error rates themselves, half an error added."""
        found = bounds.mu_estimate(self.strategy.tested(scores, included).counts)
        return bounds.epsilon_of_mu(float(np.max(found)), self.delta)

    def critical(self, claimed_epsilon: float) -> float:
        """See ``Method``."""
        return bounds.mu_of_epsilon(claimed_epsilon, self.delta)

    def most(self, canaries: int) -> float:
        """See ``Method``."""
        return self.statistic(*_told_apart(canaries))


@dataclass(frozen=True)
class ClopperPearson:
    """Error rates at a threshold chosen on one half of the canaries, as epsilon: no curve is assumed."""

    alpha: float
    delta: float
    name: str = CLOPPER_PEARSON
    assumes: str = "any mechanism; independent canaries"

    @property
    def strategy(self) -> thresholds.Strategy:
        """A threshold that shows much epsilon need not show much mu."""
        return thresholds.Split(worth=partial(bounds.epsilon_bound, delta=self.delta, alpha=0.05))

    def statistic(self, scores: Floats, included: Answers) -> float:
        """The bound of epsilon."""
        found = self.strategy.tested(scores, included)
        bound = partial(bounds.epsilon_bound, delta=self.delta)
        return thresholds.best_bound(found, lambda c, a: bound(c, alpha=a), alpha=self.alpha)[0]

    def epsilon(self, statistic: float) -> float:
        """See ``Method``."""
        return statistic

    def estimate(self, scores: Floats, included: Answers) -> float:
        """From the error rates themselves, half an error added."""
        counts: ErrorCounts = self.strategy.tested(scores, included).counts
        return float(np.max(bounds.epsilon_estimate(counts, delta=self.delta)))

    def critical(self, claimed_epsilon: float) -> float:
        """See ``Method``."""
        return claimed_epsilon

    def most(self, canaries: int) -> float:
        """See ``Method``."""
        return self.statistic(*_told_apart(canaries))


@dataclass(frozen=True)
class MeanDifference:
    """The difference of mean scores in units of the noise: the sharpest test, for normal scores only.

    Attributes:
        noise_stddev: of a score, where it is known; the scores themselves are believed where they contradict it.
    """

    alpha: float
    delta: float
    noise_stddev: float | None = None
    name: str = MEAN_DIFFERENCE
    assumes: str = "normal scores of equal variance; independent canaries"

    def statistic(self, scores: Floats, included: Answers) -> float:
        """The bound of mu; 0 where the scores are not normal."""
        return self._mu(scores, included, self.alpha)

    def epsilon(self, statistic: float) -> float:
        """See ``Method``."""
        return bounds.epsilon_of_mu(statistic, self.delta)

    def estimate(self, scores: Floats, included: Answers) -> float:
        """From the difference itself."""
        return bounds.epsilon_of_mu(self._mu(scores, included, 0.5), self.delta)

    def critical(self, claimed_epsilon: float) -> float:
        """See ``Method``."""
        return bounds.mu_of_epsilon(claimed_epsilon, self.delta)

    def most(self, canaries: int) -> float:
        """Without limit."""
        return math.inf

    def _mu(self, scores: Floats, included: Answers, alpha: float) -> float:
        found, answers = as_scored(scores, included)
        members, others = found[answers], found[~answers]
        if min(len(members), len(others)) < 2 or not looks_normal(members, others):
            return 0.0
        known = self.noise_stddev
        if known is not None and not contradicted(members, others, known):
            return float(bounds.mean_difference_bound(members, others, noise_stddev=known, alpha=alpha))
        return float(bounds.effect_size_bound(members, others, alpha=alpha))


def looks_normal(members: Floats, others: Floats) -> bool:
    """Whether the scores within the kinds have a normal's skewness and kurtosis (Jarque and Bera 1980), roughly."""
    with np.errstate(invalid="ignore"):
        within = np.concatenate([members - members.mean(), others - others.mean()])
    if not np.isfinite(within).all() or np.allclose(within, 0.0):
        return False
    standard, n = within / within.std(), len(within)
    skew, kurtosis = float(np.mean(standard**3)), float(np.mean(standard**4)) - 3
    return abs(skew) < _MOST_SKEW * math.sqrt(6 / n) and abs(kurtosis) < _MOST_KURTOSIS * math.sqrt(24 / n)


def contradicted(members: Floats, others: Floats, noise_stddev: float) -> bool:
    """Whether the scores' own standard deviation cannot be the given one (chi-square, p < 1e-6)."""
    from scipy.special import chdtr, chdtrc

    degrees = len(members) + len(others) - 2
    seen = degrees * float(bounds.pooled_stddev(members, others)) ** 2 / noise_stddev**2
    return bool(min(chdtr(degrees, seen), chdtrc(degrees, seen)) < 0.5e-6)


def _told_apart(canaries: int) -> tuple[Floats, Answers]:
    """Scores that tell everything, half of the canaries included, the halves of a split alike."""
    included = np.zeros(canaries, dtype=bool)
    for half in thresholds.halves(canaries, thresholds.PUBLIC_SEED):
        included[half[: len(half) // 2]] = True
    return included.astype(np.float64), included
