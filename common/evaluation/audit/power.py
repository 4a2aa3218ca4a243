"""What an audit can see at all: its cap, its power against noise that is too small, and how many guesses to make.

Everything here is computed before a score is seen, on the exact Gaussian problem that a dedicated-row canary is: a
score is N(0, 1) for a canary left out, N(f mu, 1) for an included one, where noise is f times too small.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray

from common.evaluation.audit import one_run
from common.evaluation.audit._checks import refused, require_whole
from common.evaluation.audit.bounds import Floats, mu_of_epsilon
from common.evaluation.audit.methods import ONE_RUN, ONE_RUN_FDP, Method, OneRun
from common.evaluation.audit.one_run import Guesses

FACTORS = (1.2, 1.41, 1.6, 2.0, 2.5, 3.0, 4.0)
POWER = 0.95
TRIALS = 120
_SEED = 20_241_031
_SHARES = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
_AIM = 1.41  # the noise error that the number of guesses is chosen for


def cap(canaries: int, guesses: int, *, delta: float, alpha: float, method: str) -> float:
    """The bound on epsilon if every guess is right: what this audit can show at best.

    Raises:
        EvaluationError: an unknown method, or numbers out of range.
    """
    return _bound(Guesses(canaries, guesses, guesses), delta, alpha, method)


def choose_guesses(canaries: int, *, claimed_epsilon: float, delta: float, alpha: float, method: str) -> int:
    """How many guesses to make: what shows most of noise sqrt(2) times too small, among numbers with a cap > claim.

    Where no number has such a cap all of them compete. The scores play no part.

    Raises:
        EvaluationError: an unknown method, or numbers out of range.
    """
    require_whole("the number of canaries", canaries, at_least=2)
    mu = _AIM * mu_of_epsilon(claimed_epsilon, delta)
    numbers = sorted({max(2, min(2 * round(share * canaries / 2), canaries)) for share in _SHARES})
    audible = [
        guesses
        for guesses in numbers
        if math.isfinite(OneRun(method, alpha, delta, canaries, guesses).critical(claimed_epsilon))
    ]

    def shown(guesses: int) -> float:
        right = math.floor(guesses * expected_accuracy(guesses / canaries, mu))
        return _bound(Guesses(canaries, guesses, right), delta, alpha, method)

    return max(audible or numbers, key=shown)


def expected_accuracy(share: float, mu: float) -> float:
    """Share of right guesses among the highest and lowest ``share`` / 2 of all scores, for very many canaries."""
    from scipy.optimize import brentq
    from scipy.special import ndtr

    if not 0 < share <= 1:
        raise refused(f"the share of canaries guessed lies above 0 and at most at 1, not at {share}")
    edge = brentq(lambda t: (ndtr(mu - t) + ndtr(-t)) - share, -9.0, mu + 9.0)
    return float(ndtr(mu - edge) / share)


def gaussian_problem(canaries: int, mu: float, rng: np.random.Generator) -> tuple[Floats, NDArray[np.bool_]]:
    """Scores and answers of one run of the exact Gaussian problem; both kinds occur."""
    included = rng.random(canaries) < 0.5
    noise = rng.normal(size=canaries)
    included[0], included[-1] = True, False
    return noise + mu * included, included


def statistics(method: Method, canaries: int, mu: float, *, trials: int = TRIALS, spread: float = 0.0) -> Floats:
    """The test's statistic in so many simulated runs, from a public seed: the same noise for every mu.

    Args:
        spread: standard deviation of what included canaries' scores vary by beside the noise, in the noise's.
    """
    rng, found = np.random.default_rng(_SEED), []
    for _ in range(trials):
        scores, included = gaussian_problem(canaries, mu, rng)
        if spread > 0:
            scores = scores + spread * included * rng.normal(size=canaries)
        found.append(method.statistic(scores, included))
    return np.array(found)


@functools.lru_cache(maxsize=256)  # simulated from a public seed: a function of its arguments alone
def smallest_factor(
    method: Method,
    *,
    canaries: int,
    claimed_epsilon: float,
    trials: int = TRIALS,
    strength: float = 1.0,
    spread: float = 0.0,
) -> float | None:
    """The smallest of ``FACTORS`` by which noise could be too small and the test reject the claim in 95 % of all runs.

    ``None`` where not even the largest is seen.

    Args:
        strength: share of the claimed effect that the canaries have.
        spread: what included canaries' scores vary by because chance decides in which releases they take part, in
            standard deviations of the claimed noise. Noise that is too small leaves it as it is.
    """
    mu = mu_of_epsilon(claimed_epsilon, method.delta)
    critical = method.critical(claimed_epsilon)

    def seen(factor: float) -> bool:
        found = statistics(method, canaries, factor * strength * mu, trials=trials, spread=factor * spread)
        return float(np.mean(found > critical)) >= POWER

    if math.isinf(critical) or not seen(FACTORS[-1]):
        return None
    low, high = -1, len(FACTORS) - 1
    while high - low > 1:  # power grows with the factor
        middle = (low + high) // 2
        low, high = (low, middle) if seen(FACTORS[middle]) else (middle, high)
    return FACTORS[high]


@functools.lru_cache(maxsize=256)  # simulated from a public seed: a function of its arguments alone
def best_attainable(method: Method, *, canaries: int, claimed_epsilon: float, trials: int = TRIALS) -> float:
    """The median bound where the mechanism spends exactly what it claims: a good audit prints about this."""
    found = statistics(method, canaries, mu_of_epsilon(claimed_epsilon, method.delta), trials=trials)
    return method.epsilon(float(np.quantile(found, 0.5, method="lower")))


def _bound(found: Guesses, delta: float, alpha: float, method: str) -> float:
    if method == ONE_RUN:
        return one_run.epsilon_bound(found, delta=delta, alpha=alpha)
    if method == ONE_RUN_FDP:
        return one_run.fdp_epsilon_bound(found, delta=delta, alpha=alpha)
    raise refused(f"{method!r} is no one-run method; there are {ONE_RUN} and {ONE_RUN_FDP}")
