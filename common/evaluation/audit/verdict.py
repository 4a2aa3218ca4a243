"""The verdict of an audit: CONSISTENT, VIOLATION FOUND or INCONCLUSIVE, with everything that it rests on.

All tests are registered before a score is looked at: which methods, how many guesses, which share of the error rate.
The headline is a one-run bound, which survives any dependence between canaries. The alarm is a threshold test and, for
normal scores, the difference of means; both need independent canaries (a whiteness test of the noise, T3, comes first)
and have an error rate of their own. Silence counts as CONSISTENT only where the audit could have spoken.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from common.evaluation.audit._checks import refused, require_delta, require_error_rate
from common.evaluation.audit.evidence import HEADLINE, CanaryScores, Evidence, Outcome, Verdict, gathered
from common.evaluation.audit.methods import ONE_RUN, ClopperPearson, GdpThreshold, MeanDifference, Method, OneRun
from common.evaluation.audit.power import FACTORS, choose_guesses
from common.evaluation.audit.thresholds import share

ALPHA = 0.05  # chance that a whole audit accuses a mechanism that is right
ALARM_SHARE = 0.02  # of it, for the alarms: they must not fire by chance in a long series of audits
FEWEST_CANARIES = 100


def audited(
    scores: Sequence[CanaryScores],
    *,
    claimed_epsilon: float,
    delta: float,
    alpha: float = ALPHA,
    gaussian: bool = True,
    test_mode: bool = False,
) -> Verdict:
    """Test the claim of (``claimed_epsilon``, ``delta``)-DP with the scores of all designs of one view, or of several.

    Args:
        alpha: chance that all tests together accuse a correct mechanism; the alarms' share of it is ``ALARM_SHARE``.
            Where several views are judged apart, each has the share that ``alpha_of_each`` gives it.
        gaussian: whether the mechanism adds Gaussian noise, or noise with nearly its trade-off curve, sampled or not: a
            sampled one leaks less in its bulk than the curve through the claim. If not, no curve is assumed.
        test_mode: the run had seeded noise; whoever knows the seed sees everything, and nothing is proven.

    Raises:
        EvaluationError: no scores, a design twice in one view, or numbers out of range.
    """
    require_error_rate(alpha)
    require_delta(delta, positive=True)
    if not (math.isfinite(claimed_epsilon) and claimed_epsilon > 0):
        raise refused(f"a claim of epsilon = {claimed_epsilon} cannot be audited; it must be finite and above 0")
    if not scores or len({(s.design, s.view) for s in scores}) < len(scores):
        raise refused("an audit needs scores, and those of each design in each view once")
    hindrance = prevented(scores, test_mode=test_mode)
    if hindrance is not None:
        return Verdict(Outcome.INCONCLUSIVE, hindrance, claimed_epsilon, delta)
    known: dict[Any, tuple[float | None, float]] = {}
    found = [
        gathered(method, one, claimed_epsilon=claimed_epsilon, known=known)
        for one, methods in registered(scores, claimed_epsilon, delta, alpha=alpha, gaussian=gaussian)
        for method in methods
    ]
    outcome, reason = judged(found, claimed_epsilon, delta)
    return Verdict(outcome, reason, claimed_epsilon, delta, tuple(found), noticed(found, claimed_epsilon))


def prevented(scores: Sequence[CanaryScores], *, test_mode: bool) -> str | None:
    """Why there can be no verdict whatever the scores are, or ``None``."""
    if test_mode:
        return "the run was made in seeded test mode: its noise is known to anybody who knows the seed"
    for one in scores:
        if len(one.scores) < FEWEST_CANARIES:
            return f"{one.design} has {len(one.scores)} canaries; a verdict needs at least {FEWEST_CANARIES}"
    return None


def registered(
    scores: Sequence[CanaryScores], claimed_epsilon: float, delta: float, *, alpha: float, gaussian: bool
) -> list[tuple[CanaryScores, list[Method]]]:
    """Which tests are made of which scores: from how many canaries there are, never from what they score."""
    headline, alarm = error_rates(len(scores), alpha=alpha, gaussian=gaussian)
    names = HEADLINE if gaussian else (ONE_RUN,)
    guesses = {
        (m, name): choose_guesses(m, claimed_epsilon=claimed_epsilon, delta=delta, alpha=headline, method=name)
        for m in {len(one.scores) for one in scores}
        for name in names
    }
    plans = []
    for one in scores:
        m = len(one.scores)
        methods: list[Method] = [OneRun(name, headline, delta, m, guesses[m, name]) for name in names]
        if gaussian:
            methods += [GdpThreshold(alarm, delta), MeanDifference(alarm, delta, one.noise_stddev)]
        else:
            methods.append(ClopperPearson(alarm, delta))
        plans.append((one, methods))
    return plans


def error_rates(designs: int, *, alpha: float, gaussian: bool) -> tuple[float, float]:
    """Error rates of every one-run test and of every alarm: either family shares its own over methods and designs."""
    each = 2 if gaussian else 1
    return share((1 - ALARM_SHARE) * alpha, each * designs), share(ALARM_SHARE * alpha, each * designs)


def alpha_of_each(tested: Sequence[tuple[str, float]], *, alpha: float = ALPHA) -> float:
    """Error rate of each view's verdict, for ``alpha`` in the whole audit (Bonferroni).

    Args:
        tested: view and claimed epsilon of every verdict; one view under one claim is one verdict, whoever it is for.
    """
    return share(alpha, max(1, len(set(tested))))


def judged(found: Sequence[Evidence], claimed_epsilon: float, delta: float) -> tuple[Outcome, str]:
    """The outcome of all tests, and why."""
    claim = f"epsilon = {claimed_epsilon:g} at delta = {delta:g}"
    accusing = [e for e in found if e.rejects]
    if accusing:
        worst = max(accusing, key=lambda e: e.bound)
        return Outcome.VIOLATION_FOUND, (
            f"{claim} is claimed, but {len(accusing)} of {len(found)} tests reject it: {worst.method} on "
            f"{worst.design} ({worst.view}) shows at least {worst.bound:.3g} "
            f"(error rate of this test: {worst.alpha:.2g})"
        )
    deaf = unheard(found, claimed_epsilon)
    if deaf is not None:
        return Outcome.INCONCLUSIVE, f"no test rejects {claim}, but that says little: {deaf}"
    return Outcome.CONSISTENT, (
        f"none of {len(found)} tests rejects {claim}; noise {_of_least_sharp(found):.3g} times too small would have "
        "been noticed in 95 % of all runs, a smaller error might have passed"
    )


def noticed(found: Sequence[Evidence], claimed_epsilon: float) -> float | None:
    """The error of the noise that the audit as a whole would have noticed: the figure of its sentence, or ``None``."""
    return None if unheard(found, claimed_epsilon) is not None else _of_least_sharp(found)


def unheard(found: Sequence[Evidence], claimed_epsilon: float) -> str | None:
    """Why the silence of some design says nothing, or ``None`` where all could have spoken."""
    groups = _by_design(found)
    if not groups:
        return "no design whose silence counts left any trace"
    for group in groups:
        design, canaries = f"{group[0].design} ({group[0].view})", group[0].canaries
        cap = max(e.cap for e in group if e.method in HEADLINE)
        if cap <= claimed_epsilon:
            return (
                f"with all guesses right, {canaries} canaries of {design} show an epsilon of {cap:.3g} at most, "
                "no more than is claimed"
            )
        if _sharpest(group) is None:
            return f"{canaries} canaries of {design} would not show noise {FACTORS[-1]:g} times too small"
    return None


def _by_design(found: Sequence[Evidence]) -> list[list[Evidence]]:
    """Evidence by design, without designs that only add alarms."""
    names = dict.fromkeys((e.design, e.view) for e in found if not e.supplementary)
    return [[e for e in found if (e.design, e.view) == name] for name in names]


def _sharpest(group: Sequence[Evidence]) -> float | None:
    return min((e.smallest_factor for e in group if e.smallest_factor is not None), default=None)


def _of_least_sharp(found: Sequence[Evidence]) -> float:
    """What the least sharp design notices: an error that one design alone shows is seen by no other. Rounded up."""
    factor = max(_sharpest(group) or math.inf for group in _by_design(found))
    nearest = round(factor, 2)
    return nearest if nearest >= factor else round(nearest + 0.01, 2)
