"""What events cost: dp_accounting's privacy loss distributions first, another accountant as the second opinion.

Events are ``dp_accounting.DpEvent`` objects of a closed set: NoOp, NonPrivate, Gaussian, Poisson-sampled Gaussian,
truncated Poisson, mixtures of Gaussians, integer noise (``integer_events``), and compositions of these. The
central-limit ("GDP") accountant is not offered: it is an approximation that reports too small an epsilon (1.618 instead
of 1.828 for rate .01, sigma 1, 1000 steps, delta 1e-5).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from common.errors import PrivacyConfigError
from common.privacy.events import event_from_json, event_to_json, examples_event, truncated_poisson_event
from common.privacy.groups import Groups, grouped, is_gaussian, split
from common.privacy.pld import close_epsilon, fine_epsilon, middle_epsilon, rough_epsilon
from common.privacy.second import SecondOpinion, second_epsilon

if TYPE_CHECKING:
    from dp_accounting import DpEvent

__all__ = [
    "SecondOpinion",
    "calibrate",
    "check_delta",
    "check_delta_range",
    "combined_noise_multiplier",
    "epsilon",
    "event_from_json",
    "event_to_json",
    "examples_event",
    "first_accountant",
    "grouped",
    "remaining_noise_multiplier",
    "second_opinion",
    "tpr_bound",
    "truncated_poisson_event",
]

MIN_DELTA = 1e-12  # below it the truncated tails of the accountants are no longer small beside delta
_SIGMA_RANGE = (1e-3, 1e9)
_SLACK = 2e-3  # a calibrated noise costs at least this share less than 1 of its target
_NUMERICAL = 1e-5  # more than rounding errors can add to an epsilon


def epsilon(event: DpEvent, delta: float) -> float:
    """Epsilon of ``event`` at ``delta``: an upper bound; ``inf`` where nothing protects.

    By dp_accounting's privacy loss distributions, on a grid of 1e-4 up to epsilon 20 that grows with larger ones, where
    the absolute error is still below a thousandth of the value; integer noise by its Renyi divergence. Where both
    occur the bounds add up at half of delta each, unless all the rest is unsampled Gaussian and has a Renyi
    divergence too. Adjacency is add/remove of one unit; zero-out costs the same.

    Raises:
        PrivacyConfigError: delta is out of range or the event is not of the closed set.
    """
    check_delta_range(delta)
    groups = grouped(event)
    return math.inf if groups is None else _bound(groups, delta, fine_epsilon)


def _bound(groups: Groups, delta: float, measure: Callable[[Groups, float], float]) -> float:
    """``measure`` for what has a privacy loss distribution, the Renyi bound for integer noise, both where both occur.

    Source of the sum: basic composition (Dwork and Roth 2014, theorem 3.16), which holds for adaptive choices too.
    """
    continuous, integer = split(groups)
    if not integer:
        return measure(continuous, delta)
    if not continuous:
        return _renyi_epsilon(groups, delta)
    apart = measure(continuous, delta / 2) + _renyi_epsilon(integer, delta / 2)
    if all(is_gaussian(key) and key[0] == 1.0 for key, _ in continuous):
        return min(apart, _renyi_epsilon(groups, delta))
    return apart


def _renyi_epsilon(groups: Groups, delta: float) -> float:
    """Epsilon of integer noise and unsampled Gaussians by the sum of their Renyi divergences.

    Source: Mironov 2017 (arXiv 1702.07476), propositions 1 and 7; the conversion is proposition 12 of Canonne, Kamath
    and Steinke 2020, by dp_accounting.
    """
    import numpy as np
    from dp_accounting.rdp.rdp_privacy_accountant import compute_epsilon

    from common.privacy.integer_events import ORDERS

    total = np.zeros_like(ORDERS)
    for key, count in groups:
        total += count * (ORDERS / (2 * key[1] ** 2) if is_gaussian(key) else key.renyi())
    return float(compute_epsilon(ORDERS, total, delta)[0])


def first_accountant(event: DpEvent) -> str:
    """Which accountant ``epsilon`` uses: ``PLD``, ``RDP`` (integer noise alone), or ``PLD + RDP``."""
    continuous, integer = split(grouped(event) or ())
    return "PLD" if not integer else "PLD + RDP" if continuous else "RDP"


def second_opinion(event: DpEvent, delta: float) -> SecondOpinion:
    """Epsilon of ``event`` by another accountant, with its name and its own error; or none, and the reason.

    Raises:
        PrivacyConfigError: as ``epsilon``.
    """
    check_delta_range(delta)
    return second_epsilon(grouped(event), delta)


def combined_noise_multiplier(*noise_multipliers: float) -> float:
    """The noise multiplier of several Gaussians on ONE sample: ``(sum of sigma_i^-2)^(-1/2)``.

    Scaled to unit noise, outputs with sensitivities 1 / sigma_i side by side are one Gaussian mechanism whose L2
    sensitivity is the root of the sum of their squares. Under sampling the joint output must be accounted so: the same
    units enter all parts, and accounting each part as a sampled event of its own gives too small an epsilon.

    Raises:
        PrivacyConfigError: none is given, or one is not positive and finite.

    Source: Dong, Roth and Su 2022 (arXiv 1905.02383), corollary 3.3; used by Ghazi et al. 2023 (arXiv 2311.08357) for
    the two noises of DP-AdaFEST, and by Andrew et al. 2021 (arXiv 1905.03871), theorem 1, for the clipping count.
    """
    if not noise_multipliers or not all(0 < sigma < math.inf for sigma in noise_multipliers):
        raise PrivacyConfigError("the noise multipliers on one sample must be positive and finite")
    return float(sum(sigma**-2 for sigma in noise_multipliers) ** -0.5)


def remaining_noise_multiplier(total: float, spent: float) -> float:
    """What a second Gaussian on the sample needs beside one of ``spent``, for ``total`` in all.

    Raises:
        PrivacyConfigError: the first one alone costs more than ``total``.
    """
    precision = total**-2 - spent**-2
    if precision <= 0:
        raise PrivacyConfigError(
            f"a noise multiplier of {spent:g} beside the values costs more than {total:g} in all",
            remedy=f"Take one well above {total:g}: 5 times it costs two per cent, 10 times half a per cent.",
        )
    return float(precision**-0.5)


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

    def cost(measure: Callable[[Groups, float], float]) -> Callable[[float], float]:
        def of(sigma: float) -> float:
            groups = grouped(make_event(sigma))
            return math.inf if groups is None else _bound(groups, delta, measure)

        return of

    # Fast stages find the place, so that a finer grid is computed a few times, or not at all.
    sigma, slope = _start(grouped(make_event(1.0)), epsilon, delta), -1.5
    if not cost(rough_epsilon)(sigma) > 1.1 * cost(middle_epsilon)(sigma):  # else the rough grid leads astray
        sigma, slope = _solve(cost(rough_epsilon), epsilon, 0.02, (sigma, slope))
    sigma, slope = _solve(cost(middle_epsilon), epsilon, _SLACK, (sigma, slope))
    middle = cost(middle_epsilon)(sigma)
    gap = cost(rough_epsilon)(sigma) - middle
    if gap > 0.5 * epsilon:  # losses so small that twice the grid would not be close
        return _solve(cost(fine_epsilon), epsilon, _SLACK, (sigma, slope))[0]
    # A finer grid that holds these points never costs more, and a tenth of the grid has a hundredth of the error.
    if gap > 0 and epsilon * (1 - _SLACK) + gap / 25 <= middle <= epsilon * (1 - _NUMERICAL):
        return sigma
    return _solve(cost(close_epsilon), epsilon * (1 - _NUMERICAL), _SLACK / 2, (sigma, slope))[0]


def _start(groups: Groups | None, epsilon: float, delta: float) -> float:
    """Where to begin the search, given the groups at noise multiplier 1: a guess, from which nothing is claimed.

    Many small losses add up to about one Gaussian with sigma^-2 = T q^2 (e^(1 / s^2) - 1) at multiplier s.
    """
    import dp_accounting as dp

    if not groups or not all(is_gaussian(key) for key, _ in groups):
        return 1.0
    weight = sum(count * key[0] ** 2 * key[1] ** -2 for key, count in groups)
    ratio = dp.get_sigma_gaussian(epsilon, delta) ** -2 / weight
    guess = ratio if groups[0][0][0] == 1.0 else math.log1p(ratio)
    return min(max(guess**-0.5, 0.2), 1e6)


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
            slope = min(math.log(value / last[1]) / math.log(sigma / last[0]), -1.0)
        last = (sigma, value) if usable else None
        guess = sigma * (target * (1 - slack / 2) / value) ** (1 / slope) if usable else 0.0
        guess = min(max(guess, sigma / 2), sigma * 32)  # small noise takes long
        sigma = guess if low < guess < high else math.sqrt(low * high)
    if reached:  # the cost jumps over the target here, for the grid is finite: take the safe side of the jump
        return high, slope
    raise PrivacyConfigError(
        f"no noise multiplier in [{_SIGMA_RANGE[0]:g}, {_SIGMA_RANGE[1]:g}] gives epsilon {target:g} here",
        remedy="Choose an epsilon between 0.001 and 1000, fewer rounds, or a larger delta.",
    )
