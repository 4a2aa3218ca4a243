"""What events cost: dp_accounting's privacy loss distributions first, Opacus' PRV accountant as the second opinion.

Events are ``dp_accounting.DpEvent`` objects of a closed set: NoOp, NonPrivate, Gaussian, Poisson-sampled Gaussian, and
compositions of these. The central-limit ("GDP") accountant is not offered: it is an approximation that reports too
small an epsilon (1.618 instead of 1.828 for rate .01, sigma 1, 1000 steps, delta 1e-5).
"""

from __future__ import annotations

import functools
import math
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from common.errors import PrivacyConfigError
from common.privacy.events import event_from_json, event_to_json

if TYPE_CHECKING:
    from dp_accounting import DpEvent

__all__ = [
    "SecondOpinion",
    "calibrate",
    "check_delta",
    "check_delta_range",
    "epsilon",
    "event_from_json",
    "event_to_json",
    "grouped",
    "second_opinion",
    "tpr_bound",
]

MIN_DELTA = 1e-12  # below it the truncated tails of the accountants are no longer small beside delta
_COARSE_GRID = 1e-2
_PRV_MOST = 600.0
_SIGMA_RANGE = (1e-3, 1e9)

# (sampling rate, noise multiplier) -> how often; rate 1 is one pooled Gaussian. Hashable, so results can be cached.
Groups = tuple[tuple[tuple[float, float], int], ...]


@dataclass(frozen=True)
class SecondOpinion:
    """Epsilon by Opacus' PRV accountant with the error bounds that it states."""

    lower: float
    estimate: float
    upper: float


def epsilon(event: DpEvent, delta: float) -> float:
    """Epsilon of ``event`` at ``delta`` by dp_accounting's PLD accountant; ``inf`` where nothing protects.

    Adjacency is add/remove of one unit. The result is an upper bound; its grid is 1e-4 up to epsilon 20 and grows with
    larger ones, where the absolute error is still below a thousandth of the value.

    Raises:
        PrivacyConfigError: delta is out of range or the event is not of the closed set.

    Source: Koskela et al. 2020; Doroshenko et al. 2022 (connect-the-dots).
    """
    check_delta_range(delta)
    groups = grouped(event)
    return math.inf if groups is None else _fine_epsilon(groups, delta)


def check_delta_range(delta: float) -> None:
    """Raise ``PrivacyConfigError`` unless delta lies in [1e-12, 1)."""
    if not MIN_DELTA <= delta < 1:
        raise PrivacyConfigError(f"delta must lie in [{MIN_DELTA:g}, 1): the accountants are exact there; got {delta}")


def check_delta(delta: float, units: int) -> None:
    """Refuse a delta at which a mechanism that publishes one unit outright would still count as private.

    Args:
        units: how many privacy units the guarantee covers, as far as is public.

    Raises:
        PrivacyConfigError: delta >= 1 / units.
    """
    check_delta_range(delta)
    if units > 0 and delta * units >= 1:
        raise PrivacyConfigError(
            f"delta = {delta:g} is not below 1/{units}: publishing one unit at random would satisfy it",
            remedy=f"Set privacy.delta to {0.1 / units:.1g} or less.",
        )


def grouped(event: DpEvent) -> Groups | None:
    """The event as counted Gaussians; ``None`` if part of it is not private.

    Unsampled Gaussians pool exactly into one: noise multipliers add as inverse squares. Equal sampled ones are counted.
    """
    counts: Counter[tuple[float, float]] = Counter()
    if not _count(event, 1, counts):
        return None
    precision = sum(n / sigma**2 for (rate, sigma), n in counts.items() if rate == 1.0)
    sampled = sorted((key, n) for key, n in counts.items() if key[0] < 1.0)
    pooled = [((1.0, precision**-0.5), 1)] if precision > 0 else []
    return tuple(pooled + sampled)


def _count(event: DpEvent, times: int, counts: Counter[tuple[float, float]]) -> bool:
    import dp_accounting as dp

    match event:
        case dp.NoOpDpEvent():
            return True
        case dp.NonPrivateDpEvent():
            return False
        case dp.SelfComposedDpEvent():
            return _count(event.event, times * event.count, counts)
        case dp.ComposedDpEvent():
            private = [_count(part, times, counts) for part in event.events]  # all of them: none may go unchecked
            return all(private)
        case dp.GaussianDpEvent():
            return _count_gaussian(event, 1.0, times, counts)
        case dp.PoissonSampledDpEvent() if isinstance(event.event, dp.GaussianDpEvent):
            return _count_gaussian(event.event, float(event.sampling_probability), times, counts)
    raise PrivacyConfigError(
        f"no accountant here covers {type(event).__name__}",
        remedy="Two Gaussians on one sample are one event with 1/sigma^2 = 1/s1^2 + 1/s2^2.",
    )


def _count_gaussian(event: Any, rate: float, times: int, counts: Counter[tuple[float, float]]) -> bool:
    sigma = float(event.noise_multiplier)
    if not (0 <= rate <= 1 and sigma >= 0):
        raise PrivacyConfigError("an event needs a rate in [0, 1] and a noise multiplier that is not negative")
    if rate == 0 or math.isinf(sigma):
        return True
    if sigma == 0:
        return False
    counts[(rate, sigma)] += times
    return True


def _fine_epsilon(groups: Groups, delta: float) -> float:
    """What is reported: on a grid of 1e-5 below epsilon 0.05, of 1e-4 below 20, and coarser above."""
    middle = _middle_epsilon(groups, delta)
    if not 0 < middle <= 20:
        return middle
    return _pld_epsilon(groups, delta, 1e-4 if middle > 0.05 else 1e-5)


def _middle_epsilon(groups: Groups, delta: float) -> float:
    rough = _rough_epsilon(groups, delta)
    if not 0 < rough < math.inf:
        return rough
    return _pld_epsilon(groups, delta, max(1e-3, 10.0 ** math.floor(math.log10(rough)) * 1e-5))


def _rough_epsilon(groups: Groups, delta: float) -> float:
    """A fast estimate, accurate enough to choose the grid and to bracket a root."""
    if not groups:
        return 0.0
    if len(groups) == 1 and groups[0][0][0] == 1.0:
        import dp_accounting as dp

        return float(dp.get_epsilon_gaussian(groups[0][0][1], delta))
    # One step's loss reaches about (1/sigma)^2/2 + 8/sigma: the grid keeps that to some 1e5 points.
    widest = max(0.5 / sigma**2 + 8 / sigma for (_, sigma), _ in groups)
    return _pld_epsilon(groups, delta, max(_COARSE_GRID, widest * 1e-5))


@functools.lru_cache(maxsize=1024)
def _pld_epsilon(groups: Groups, delta: float, grid: float) -> float:
    import dp_accounting as dp
    from dp_accounting.pld import PLDAccountant

    accountant = PLDAccountant(dp.NeighboringRelation.ADD_OR_REMOVE_ONE, value_discretization_interval=grid)
    for (rate, sigma), count in groups:
        step = dp.GaussianDpEvent(sigma)
        accountant.compose(step if rate == 1.0 else dp.PoissonSampledDpEvent(rate, step), count)
    return float(accountant.get_epsilon(delta))


def second_opinion(event: DpEvent, delta: float) -> SecondOpinion:
    """Epsilon of ``event`` by Opacus' PRV accountant (Gopi et al. 2021), with its own lower and upper bound.

    Above epsilon 600 its arithmetic overflows: the answer is then that it does not know (0 to infinity).

    Raises:
        PrivacyConfigError: as ``epsilon``.
    """
    check_delta_range(delta)
    groups = grouped(event)
    if groups is None:
        return SecondOpinion(math.inf, math.inf, math.inf)
    rough = _rough_epsilon(groups, delta)
    if rough == 0:
        return SecondOpinion(0.0, 0.0, 0.0)
    if rough > _PRV_MOST:
        return SecondOpinion(0.0, math.inf, math.inf)
    return _prv_epsilon(groups, delta, max(1e-3, min(0.01, 0.02 * rough), 0.002 * rough))


@functools.lru_cache(maxsize=256)
def _prv_epsilon(groups: Groups, delta: float, eps_error: float) -> SecondOpinion:
    import numpy as np
    from opacus.accountants import PRVAccountant

    accountant = PRVAccountant()
    accountant.history = [(sigma, rate, count) for (rate, sigma), count in groups]
    delta_error = delta / 1000
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        # Opacus takes log(1 - rate) at rate 1 and warns about the range of Renyi orders that set its grid.
        warnings.simplefilter("ignore")
        # `get_epsilon` returns the upper bound alone, so its two steps are taken here.
        distribution = accountant._get_dprv(eps_error=eps_error, delta_error=delta_error)
        lower, estimate, upper = distribution.compute_epsilon(delta, delta_error, eps_error)
    return SecondOpinion(float(lower), float(estimate), float(upper))


def tpr_bound(epsilon: float, delta: float, fpr: float) -> float:
    """The best true positive rate of any membership attack whose false positive rate is ``fpr``.

    Source: Kairouz, Oh and Viswanath 2015 (arXiv 1311.0776), equation 2.
    """
    return min(1.0, math.exp(min(epsilon, 700.0)) * fpr + delta, 1.0 - math.exp(-epsilon) * (1.0 - delta - fpr))


def calibrate(make_event: Callable[[float], DpEvent], *, epsilon: float, delta: float) -> float:
    """A noise multiplier whose event costs between 0.998 and 1 times ``epsilon`` by PLD, on the finest grid.

    Args:
        make_event: noise multiplier -> event; its cost must fall as the multiplier grows.

    Raises:
        PrivacyConfigError: no multiplier between 1e-3 and 1e9 reaches the target.
    """
    check_delta_range(delta)
    if not 0 < epsilon < math.inf:
        raise PrivacyConfigError(f"epsilon must be positive and finite, not {epsilon}")
    sigma, slope = 1.0, -1.0
    # Two fast stages find the place, so that the fine grid is computed once or twice.
    for measure, slack in ((_rough_epsilon, 0.02), (_middle_epsilon, 2e-3), (_fine_epsilon, 2e-3)):

        def cost(sigma: float, measure: Callable[[Groups, float], float] = measure) -> float:
            groups = grouped(make_event(sigma))
            return math.inf if groups is None else measure(groups, delta)

        sigma, slope = _solve(cost, epsilon, slack, (sigma, slope))
    return sigma


def _solve(
    cost: Callable[[float], float], target: float, slack: float, start: tuple[float, float]
) -> tuple[float, float]:
    """A sigma with ``target * (1 - slack) <= cost(sigma) <= target``, and the slope of log cost in log sigma there.

    Newton's iteration in log-log, with the slope of the last two points, inside a bracket.
    """
    low, high = _SIGMA_RANGE
    sigma, slope = start
    last: tuple[float, float] | None = None
    reached = False  # whether cost(high) <= target has been seen
    for _ in range(100):
        value = cost(sigma)
        if target * (1 - slack) <= value <= target:
            return sigma, slope
        if value > target:
            low = sigma
        else:
            high, reached = sigma, True
        if high / low < 1 + 1e-6:
            break
        usable = 0 < value < math.inf
        if last is not None and usable and value != last[1]:
            slope = min(math.log(value / last[1]) / math.log(sigma / last[0]), -0.05)
        last = (sigma, value) if usable else None
        guess = sigma * (target * (1 - slack / 2) / value) ** (1 / slope) if usable else 0.0
        guess = min(max(guess, sigma / 32), sigma * 32)
        sigma = guess if low < guess < high else math.sqrt(low * high)
    if reached:  # the cost jumps over the target here, for the grid is finite: take the safe side of the jump
        return high, slope
    raise PrivacyConfigError(
        f"no noise multiplier in [{_SIGMA_RANGE[0]:g}, {_SIGMA_RANGE[1]:g}] gives epsilon {target:g} here",
        remedy="Choose an epsilon between 0.001 and 1000, fewer rounds, or a larger delta.",
    )
