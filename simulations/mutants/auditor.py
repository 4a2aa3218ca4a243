"""Auditors gone wrong: they accuse the innocent, or take their own silence for proof."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from common.evaluation.audit import bounds, evidence, methods, one_run, thresholds, verdict
from common.evaluation.audit._checks import as_scored
from common.evaluation.audit.bounds import ErrorCounts, Floats
from common.evaluation.audit.evidence import CanaryScores, Evidence
from common.evaluation.audit.methods import Answers, OneRun
from common.evaluation.audit.one_run import Guesses
from common.evaluation.audit.power import FACTORS
from simulations.mutants import Mutant, broken


def _lower_tail(errors: ArrayLike, trials: ArrayLike, *, alpha: float) -> Floats:
    """The other end of Clopper and Pearson's interval."""
    from scipy.special import betaincinv

    k, n = np.asarray(errors, dtype=np.float64), np.asarray(trials, dtype=np.float64)
    return np.where(k <= 0, 1e-9, betaincinv(np.maximum(k, 1), n - k + 1, alpha))


def _alpha_twice(counts: ErrorCounts, *, alpha: float) -> tuple[Floats, Floats]:
    """Either rate at alpha: together they are wrong in 2 alpha of all runs."""
    return (
        bounds.upper_rate(counts.false_positives, counts.negatives, alpha=alpha),
        bounds.upper_rate(counts.false_negatives, counts.positives, alpha=alpha),
    )


def _either_way_round(a: Floats, b: Floats) -> Floats:
    """jax-privacy 2.0.0: what is negative shows that the sides are swapped. On noise it shows an epsilon of 4."""
    from scipy.special import ndtri

    return np.abs(-ndtri(a) - ndtri(b))


def _upper_end(members: ArrayLike, others: ArrayLike, *, noise_stddev: float, alpha: float) -> Floats:
    return _mean_difference(members, others, noise_stddev=noise_stddev, alpha=1 - alpha)


def _overflowing(epsilon: float, mu: float) -> float:
    """The textbook formula: e^epsilon times a tail that is rounded to 0."""
    from scipy.special import ndtr

    if mu == 0:
        return 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        beyond = np.exp(np.float64(epsilon)) * (1 - ndtr(epsilon / mu + mu / 2))
    return float(ndtr(mu / 2 - epsilon / mu) - np.nan_to_num(beyond, nan=0.0, posinf=1.0))


def _without_delta(found: Guesses, *, epsilon: float, delta: float) -> float:
    return _p_value(found, epsilon=epsilon, delta=0.0)


def _delta_of_guesses(found: Guesses, *, epsilon: float, delta: float) -> float:
    """2 r delta for 2 m delta: canaries that were not guessed are forgotten."""
    return _p_value(Guesses(found.made, found.made, found.right), epsilon=epsilon, delta=delta)


def _without_tau(found: Guesses, *, blow_down: Callable[[float], float], alpha: float) -> bool:
    return _rejects(found, blow_down=blow_down, alpha=min(0.999, 4 * alpha))


def _twice(scores: ArrayLike, included: ArrayLike, *, top: int, bottom: int) -> Guesses:
    found = _guesses(scores, included, top=top, bottom=bottom)
    return Guesses(2 * found.canaries, 2 * found.made, 2 * found.right)


def _peeking(scores: ArrayLike, included: ArrayLike, *, top: int, bottom: int) -> Guesses:
    """The attack was fitted to the answers that it guesses."""
    found, answers = as_scored(scores, included)
    return _guesses(np.where(np.isnan(found), 0, found) + 0.5 * answers, answers, top=top, bottom=bottom)


def _ties_by_answer(scores: NDArray[np.float64], answers: NDArray[np.bool_], count: int) -> int:
    """Equal scores in the order that is best."""
    order = np.lexsort((answers, scores))
    return int(answers[order[len(order) - count :]].sum())


def _nan_where_it_helps(scores: NDArray[np.float64], included: NDArray[np.bool_]) -> NDArray[np.float64]:
    return np.where(np.isnan(scores), np.where(included, np.inf, -np.inf), scores)


def _best_number(self: OneRun, scores: Floats, included: Answers) -> Guesses:
    """As many guesses as show most."""
    tried = [_guesses(scores, included, top=each, bottom=each) for each in range(3, self.guesses // 2 + 1)]
    return max(tried, key=lambda found: found.right / found.made)


def _one_half(count: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The half that is tested is the half that was chosen on."""
    _, testing = _halves(count, seed)
    return testing, testing


def _whole(alpha: float, tests: int) -> float:
    return alpha


def _each_design_alone(designs: int, *, alpha: float, gaussian: bool) -> tuple[float, float]:
    return _error_rates(1, alpha=alpha, gaussian=gaussian)


def _nan_left_out(scores: Floats, answers: NDArray[np.bool_], at: Floats) -> thresholds.Counted:
    """A NaN is above no threshold: right for everybody who was left out."""
    return _counted(np.where(np.isnan(scores), -np.inf, scores), answers, at)


def _always_heard(*given: Any, **named: Any) -> None:
    """Silence is consistent."""


def _in_test_mode(scores: Any, *, test_mode: bool) -> str | None:
    return _prevented(scores, test_mode=False)


def _any_number(scores: Any, *, test_mode: bool) -> str | None:
    return _prevented([], test_mode=test_mode)


def _sees_all(*given: Any, **named: Any) -> float:
    return FACTORS[0]


def _full_strength(scores: CanaryScores, *, claimed_epsilon: float, delta: float) -> float:
    return 1.0


def _by_observed_noise(scores: CanaryScores, *, claimed_epsilon: float, delta: float) -> float:
    """Strength from the noise on trial: what is missing makes weak canaries look strong."""
    return _strength(dataclasses.replace(scores, claimed_stddev=None), claimed_epsilon=claimed_epsilon, delta=delta)


def _as_seen(members: Floats, others: Floats, *, alpha: float) -> float:
    """The difference of means itself, as if few canaries told it exactly."""
    return float(members.mean() - others.mean())


def _no_spread(scores: CanaryScores) -> float:
    return 0.0


def _by_the_sharpest(found: Sequence[Evidence]) -> float:
    return min(e.smallest_factor for e in found if e.smallest_factor is not None)


def _each_view_alone(tested: Any, *, alpha: float = verdict.ALPHA) -> float:
    return alpha


def _always_normal(members: Floats, others: Floats) -> bool:
    return True


def _declaration_believed(members: Floats, others: Floats, noise_stddev: float) -> bool:
    return math.isnan(noise_stddev)


_mean_difference, _p_value, _rejects = bounds.mean_difference_bound, one_run.p_value, one_run.rejects
_guesses, _halves, _counted = one_run.guesses, thresholds.halves, thresholds._counted
_error_rates, _prevented, _strength = verdict.error_rates, verdict.prevented, evidence.strength_of


def _broken(name: str, killed_by: str, *, owner: Any, attribute: str, by: Any) -> Mutant:
    return broken(name, f"auditor_{killed_by}", owner=owner, attribute=attribute, by=by)


MUTANTS = (
    _broken("an auditor with the wrong tail", "rates", owner=bounds, attribute="upper_rate", by=_lower_tail),
    _broken("both error rates at alpha", "rates", owner=bounds, attribute="upper_rates", by=_alpha_twice),
    _broken("abs() of mu", "signs", owner=bounds, attribute="_mu_of_rates", by=_either_way_round),
    _broken("the upper end for a lower bound", "signs", owner=bounds, attribute="mean_difference_bound", by=_upper_end),
    _broken("epsilon of mu that overflows", "gaussian", owner=bounds, attribute="delta_of", by=_overflowing),
    _broken("delta ignored in one run", "one_run", owner=one_run, attribute="p_value", by=_without_delta),
    _broken("delta for guesses alone", "one_run", owner=one_run, attribute="p_value", by=_delta_of_guesses),
    _broken("a curve refuted at another error rate", "one_run", owner=one_run, attribute="rejects", by=_without_tau),
    _broken("guesses counted twice", "guesses", owner=one_run, attribute="guesses", by=_twice),
    _broken("an attack that peeks at the answers", "false_alarms", owner=one_run, attribute="guesses", by=_peeking),
    _broken("ties broken by the answer", "guesses", owner=one_run, attribute="_surely_right", by=_ties_by_answer),
    _broken("NaN guessed right", "guesses", owner=one_run, attribute="against", by=_nan_where_it_helps),
    _broken("as many guesses as show most", "false_alarms", owner=OneRun, attribute="guessed", by=_best_number),
    _broken("thresholds chosen on the test half", "thresholds", owner=thresholds, attribute="halves", by=_one_half),
    _broken("the best threshold at full alpha", "thresholds", owner=thresholds, attribute="share", by=_whole),
    _broken("NaN below every threshold", "thresholds", owner=thresholds, attribute="_counted", by=_nan_left_out),
    _broken("every design at full alpha", "family", owner=verdict, attribute="error_rates", by=_each_design_alone),
    _broken("every view at full alpha", "family", owner=verdict, attribute="alpha_of_each", by=_each_view_alone),
    _broken("silence below the cap is consistent", "silence", owner=verdict, attribute="unheard", by=_always_heard),
    _broken("a verdict on a run in test mode", "silence", owner=verdict, attribute="prevented", by=_in_test_mode),
    _broken("a verdict on a few canaries", "silence", owner=verdict, attribute="prevented", by=_any_number),
    _broken("power that nobody looked at", "silence", owner=evidence, attribute="smallest_factor", by=_sees_all),
    _broken("power of canaries without effect", "silence", owner=evidence, attribute="strength_of", by=_full_strength),
    _broken(
        "strength by the noise on trial", "strength", owner=evidence, attribute="strength_of", by=_by_observed_noise
    ),
    _broken("strength without its uncertainty", "strength", owner=evidence, attribute="least_difference", by=_as_seen),
    _broken(
        "the sharpest design speaks for all", "silence", owner=verdict, attribute="_of_least_sharp", by=_by_the_sharpest
    ),
    _broken("sampling taken for no spread", "sampling", owner=evidence, attribute="spread_of", by=_no_spread),
    _broken("means of any scores", "normality", owner=methods, attribute="looks_normal", by=_always_normal),
    _broken("declared noise believed", "normality", owner=methods, attribute="contradicted", by=_declaration_believed),
)
