"""The second opinion: another accountant's value for the same event, or the reason why there is none."""

from __future__ import annotations

import functools
import math
import warnings
from dataclasses import dataclass

from common.privacy.groups import Groups, Key, is_gaussian, is_integer
from common.privacy.pld import rough_epsilon

_PRV_MOST = 600.0


@dataclass(frozen=True)
class SecondOpinion:
    """What another accountant says.

    Attributes:
        lower, estimate, upper: epsilon with the error bounds that the accountant states.
        accountant: ``PRV`` (Opacus); ``RDP`` (dp_accounting), which states an upper bound alone: its estimate is that
            bound and its lower bound 0; ``none``, and then 0 to infinity.
        reason: why it is not PRV; empty when it is.
    """

    lower: float
    estimate: float
    upper: float
    accountant: str = "PRV"
    reason: str = ""


def second_epsilon(groups: Groups | None, delta: float) -> SecondOpinion:
    """The second opinion on events in normal form."""
    if groups is None:
        return SecondOpinion(math.inf, math.inf, math.inf)
    uncovered = sorted({_name(key) for key, _ in groups if not is_gaussian(key)})
    if uncovered:
        reason = f"neither Opacus nor another accountant of dp_accounting covers {' and '.join(uncovered)}"
        return SecondOpinion(0.0, math.inf, math.inf, "none", reason)
    rough = rough_epsilon(groups, delta)
    if rough == 0:
        return SecondOpinion(0.0, 0.0, 0.0)
    if rough > _PRV_MOST:
        return _rdp_epsilon(groups, delta)
    return _prv_epsilon(groups, delta, max(1e-3, min(0.01, 0.02 * rough), 0.002 * rough))


def _name(key: Key) -> str:
    if is_integer(key):
        return "integer noise"
    return "a mixture of Gaussians" if hasattr(key, "sensitivities") else "truncated Poisson sampling"


@functools.lru_cache(maxsize=256)
def _prv_epsilon(groups: Groups, delta: float, eps_error: float) -> SecondOpinion:
    """Opacus' PRV accountant. Source: Gopi et al. 2021."""
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


def _rdp_epsilon(groups: Groups, delta: float) -> SecondOpinion:
    """dp_accounting's Renyi accountant (Mironov, Talwar and Zhang 2019), where PRV's arithmetic overflows."""
    import dp_accounting as dp

    accountant = dp.rdp.RdpAccountant()
    for (rate, sigma), count in groups:
        step = dp.GaussianDpEvent(sigma)
        accountant.compose(step if rate == 1.0 else dp.PoissonSampledDpEvent(rate, step), count)
    upper = float(accountant.get_epsilon(delta)) if (accountant.rdp >= 0).all() else math.inf
    reason = f"above epsilon {_PRV_MOST:g} the arithmetic of Opacus' PRV accountant overflows"
    if math.isinf(upper):
        return SecondOpinion(0.0, math.inf, math.inf, "none", f"{reason}, and RDP gives no finite value")
    return SecondOpinion(0.0, upper, upper, "RDP", reason)
