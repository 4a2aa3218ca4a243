"""What an audit works on and what it hands on: scores of canaries, the evidence of every test, the verdict."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from common.evaluation.audit._checks import as_scored, refused
from common.evaluation.audit.bounds import Floats, effect_size_bound, mu_of_epsilon
from common.evaluation.audit.methods import ONE_RUN, ONE_RUN_FDP, Answers, MeanDifference, Method, OneRun
from common.evaluation.audit.power import FACTORS, best_attainable, smallest_factor

HEADLINE = (ONE_RUN, ONE_RUN_FDP)
STRENGTH_ALPHA = 0.05
_STEPS = 50  # of strength and spread
_UNFAIR = 6.0  # standard deviations of a fair coin


@dataclass(frozen=True, eq=False)
class CanaryScores:
    """What an attack says of every canary of one design in one view.

    Attributes:
        scores: shape (m,), higher for canaries that look included; NaN never helps.
        included: shape (m,), bool: each canary was drawn in by a fair coin of its own.
        design: of the canaries (``dedicated rows``).
        view: what was seen (``all sums``, ``final table``).
        noise_stddev: standard deviation of the noise in a score, measured apart from the canaries; ``None`` where it is
            not known. Where the scores contradict it they are believed.
        claimed_stddev: what it is if the mechanism is as claimed; infinite where nobody can tell. Only with it is the
            strength of canaries right that sampling weakens: noise that is too small would pass for strong canaries.
            Where it is ``None``, their own spread is taken, which suits canaries that take part in every release.
        supplementary: whether the design only adds alarms: its silence is not counted on.
        sampled: whether chance decides in which releases a canary takes part, so that its score varies by more than
            noise, and by as much where noise is missing.

    Raises:
        EvaluationError: shapes that differ, one kind of canary alone, answers that no fair coin gives, scores that are
            all the same, or a standard deviation that is not positive.
    """

    scores: Floats
    included: Answers
    design: str
    view: str
    noise_stddev: float | None = None
    claimed_stddev: float | None = None
    supplementary: bool = False
    sampled: bool = False

    def __post_init__(self) -> None:
        scores, included = as_scored(self.scores, self.included)
        known = scores[~np.isnan(scores)]
        if not len(known) or np.all(known == known[0]):
            raise refused(f"all canaries of {self.design} have the same score in {self.view}: nothing can be tested")
        if abs(int(included.sum()) - len(included) / 2) > _UNFAIR * math.sqrt(len(included)) / 2:
            raise refused(f"{included.sum()} of {len(included)} canaries included: no fair coin did that")
        if self.noise_stddev is not None and not (math.isfinite(self.noise_stddev) and self.noise_stddev > 0):
            raise refused(f"the standard deviation of the noise must be above 0, not {self.noise_stddev}")
        object.__setattr__(self, "scores", scores)
        object.__setattr__(self, "included", included)


@dataclass(frozen=True)
class Evidence:
    """What one registered test found.

    Attributes:
        method: its name; ``assumes``: what must be true for its error rate to hold.
        design, view: of the canaries.
        bound: lower bound of epsilon that holds with probability 1 - alpha; ``estimate``: without confidence.
        alpha: the test's own error rate, after its share of the whole was taken.
        rejects: whether the bound exceeds the claim.
        canaries: how many there are.
        supplementary: whether its silence is not counted on.
        guesses, right: of a one-run test; ``None`` for the others.
        cap: the bound if every canary were told right; infinite where nothing limits it.
        strength: share of the claimed effect that these canaries have at least (95 % confidence), at most 1: what is
            seen of them may be weakened by sampling or by what comes after the noise.
        smallest_factor: by how many times the noise must be too small for this test to notice in 95 % of all runs,
            with canaries of this strength; ``None`` where not even the largest factor tried would be noticed.
        best_attainable: the median bound against a mechanism that spends exactly what is claimed.
    """

    method: str
    assumes: str
    design: str
    view: str
    bound: float
    estimate: float
    alpha: float
    rejects: bool
    canaries: int
    supplementary: bool
    guesses: int | None
    right: int | None
    cap: float
    strength: float
    smallest_factor: float | None
    best_attainable: float

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary; an infinite cap becomes ``None`` because JSON has no infinity."""
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in asdict(self).items()}


class Outcome(StrEnum):
    """All that an audit may conclude."""

    CONSISTENT = "CONSISTENT"
    VIOLATION_FOUND = "VIOLATION FOUND"
    INCONCLUSIVE = "INCONCLUSIVE"


@dataclass(frozen=True)
class Verdict:
    """The outcome, why, and on what.

    Attributes:
        outcome: one of three.
        reason: in words.
        claimed_epsilon, delta: the claim that was tested.
        evidence: of every registered test; empty where none could be made.
        noticed: how many times too small noise had to be for every design whose silence counts to notice it, rounded
            up to two decimals; ``None`` where the silence of some design says nothing.
    """

    outcome: Outcome
    reason: str
    claimed_epsilon: float
    delta: float
    evidence: tuple[Evidence, ...] = ()
    noticed: float | None = None

    @property
    def headline(self) -> Evidence | None:
        """The one-run test with the largest bound; ``None`` without evidence."""
        candidates = [e for e in self.evidence if e.method in HEADLINE]
        return max(candidates, key=lambda e: e.bound) if candidates else None

    @property
    def alarms(self) -> tuple[Evidence, ...]:
        """The tests beside the headline that reject the claim."""
        return tuple(e for e in self.evidence if e.method not in HEADLINE and e.rejects)

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for audit.json."""
        headline = self.headline
        return {
            "outcome": str(self.outcome),
            "reason": self.reason,
            "claimed_epsilon": self.claimed_epsilon,
            "delta": self.delta,
            "noticed": self.noticed,
            "headline": None if headline is None else headline.to_json(),
            "evidence": [e.to_json() for e in self.evidence],
        }


def gathered(
    method: Method, scores: CanaryScores, *, claimed_epsilon: float, known: dict[Any, tuple[float | None, float]]
) -> Evidence:
    """Run one registered test and say what it could have seen at best.

    Args:
        known: what was found before of the same test on as many canaries; completed here.
    """
    canaries = len(scores.scores)
    key = (_standard(method), canaries)
    if key not in known:
        smallest = smallest_factor(key[0], canaries=canaries, claimed_epsilon=claimed_epsilon)
        known[key] = smallest, best_attainable(key[0], canaries=canaries, claimed_epsilon=claimed_epsilon)
    statistic = method.statistic(scores.scores, scores.included)
    bound = method.epsilon(statistic)
    one_run = isinstance(method, OneRun)
    strength = strength_of(scores, claimed_epsilon=claimed_epsilon, delta=method.delta)
    return Evidence(
        method=method.name,
        assumes=method.assumes,
        design=scores.design,
        view=scores.view,
        bound=bound,
        estimate=method.estimate(scores.scores, scores.included),
        alpha=method.alpha,
        rejects=bound > claimed_epsilon,
        canaries=canaries,
        supplementary=scores.supplementary,
        guesses=method.guesses if isinstance(method, OneRun) else None,
        right=int(statistic) if one_run else None,
        cap=method.epsilon(method.most(canaries)),
        strength=strength,
        smallest_factor=_noticed(key[0], scores, claimed_epsilon, known[key][0], strength),
        best_attainable=known[key][1],
    )


def strength_of(scores: CanaryScores, *, claimed_epsilon: float, delta: float) -> float:
    """Share of the claimed effect that the canaries have at least, with 95 % confidence; in [0, 1].

    An audit sees an error of the noise only through its canaries: what does not reach the scores cannot be noticed,
    however many there are. The noise is the claimed one, where that is known; what is uncertain is how far the means
    lie apart. Of a mechanism that leaks clearly more than it claims, this is 1.
    """
    members, others = scores.scores[scores.included], scores.scores[~scores.included]
    members, others = members[~np.isnan(members)], others[~np.isnan(others)]
    if min(len(members), len(others)) < 2:
        return 0.0
    if scores.claimed_stddev is None:
        effect = float(effect_size_bound(members, others, alpha=STRENGTH_ALPHA))
    else:
        effect = least_difference(members, others, alpha=STRENGTH_ALPHA) / scores.claimed_stddev
    return float(np.clip(effect / mu_of_epsilon(claimed_epsilon, delta), 0.0, 1.0))


def least_difference(members: Floats, others: Floats, *, alpha: float) -> float:
    """Lower confidence bound of the difference of means, at least 0: Welch's, whatever the noise of either kind is.

    With as few degrees of freedom as the smaller kind has, which is never too few; 0 where a score is not finite.
    """
    from scipy.special import stdtrit

    with np.errstate(invalid="ignore"):
        error = math.sqrt(members.var(ddof=1) / len(members) + others.var(ddof=1) / len(others))
        found = members.mean() - others.mean() + stdtrit(min(len(members), len(others)) - 1, alpha) * error
    return max(0.0, float(found)) if math.isfinite(found) else 0.0


def _noticed(
    method: Method, scores: CanaryScores, claimed_epsilon: float, exact: float | None, strength: float
) -> float | None:
    """The smallest error of the noise that is noticed; of sampled canaries by a simulation of what they are."""
    if not scores.sampled:
        return _weakened(exact, strength)
    spread, least = spread_of(scores), math.floor(_STEPS * strength) / _STEPS
    if exact is None or least <= 0 or not math.isfinite(spread):
        return None
    rounded = math.ceil(_STEPS * spread) / _STEPS  # few different ones, each simulated once
    return smallest_factor(
        method, canaries=len(scores.scores), claimed_epsilon=claimed_epsilon, strength=least, spread=rounded
    )


def spread_of(scores: CanaryScores) -> float:
    """What included canaries' scores vary by beside the noise, in the claimed noise's standard deviation, or theirs."""
    members, others = scores.scores[scores.included], scores.scores[~scores.included]
    members, others = members[~np.isnan(members)], others[~np.isnan(others)]
    if min(len(members), len(others)) < 2:
        return math.inf
    noise = float(others.std(ddof=1)) if scores.claimed_stddev is None else scores.claimed_stddev
    more = max(0.0, float(members.var(ddof=1) - others.var(ddof=1)))
    return math.sqrt(more) / noise if noise > 0 else math.inf


def _weakened(factor: float | None, strength: float) -> float | None:
    """The factor by which noise must be too small to be noticed through canaries of this strength."""
    if factor is None or strength <= 0 or factor / strength > FACTORS[-1]:
        return None
    return factor / strength


def _standard(method: Method) -> Method:
    """The same test on the exact Gaussian problem, whose noise is not known to it."""
    return dataclasses.replace(method, noise_stddev=None) if isinstance(method, MeanDifference) else method
