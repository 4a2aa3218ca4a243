"""Plans of mode distributed, once the dimension of an update is known: scale, bits and noise are chosen together."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from common.errors import PrivacyConfigError
from common.privacy import accounting
from common.privacy.grid import BITS, Grid, SecureSum, Shape, grid_at, scales, too_coarse, too_fine
from common.privacy.integer_events import SMOOTHING_VARIANCE
from common.privacy.row_votes import event_at

if TYPE_CHECKING:
    from dp_accounting import DpEvent

    from common.privacy.plan import PrivacyPlan

MOST_INFLATION = 0.01  # of the sensitivity by rounding, where the bits are chosen here
_STDDEVS = (1e-3, 0.999e6)  # of all noise, in steps: what events of integer noise take
_Multiplier = Callable[[float], float]  # scale -> noise multiplier


def sized(plan: PrivacyPlan, dimension: int, rows: int = 0) -> PrivacyPlan:
    """The plan for sums of ``dimension`` numbers; any other mode's plan as it is.

    Bits that were left open are the fewest of 16, 24 and 32 with which rounding adds at most 1 % to the sensitivity; 32
    where none do, and the plan shows how much it is. Noise for a target epsilon is calibrated at the very scale used.

    Args:
        rows: of the row domain, where clients vote on rows.

    Raises:
        PrivacyConfigError: no scale fits these clients and bits, or no noise reaches the target.
    """
    secure = plan.secure
    if secure is None:
        return plan
    if plan.votes is not None:
        plan = dataclasses.replace(plan, votes=dataclasses.replace(plan.votes, rows=rows))
    if dimension < 1:
        raise PrivacyConfigError("a secure sum needs updates of one number at least")
    shape = plan.grid_shape
    multiplier = _calibrated(plan, dimension) if plan.target_epsilon is not None else lambda _: plan.noise_multiplier

    def of_values(scale: float) -> float:
        return dataclasses.replace(plan, noise_multiplier=multiplier(scale)).value_multiplier

    found: Grid | None = None
    for bits in (secure.bits,) if secure.bits else BITS:
        terms = dataclasses.replace(secure, dimension=dimension, bits=bits)
        wider = _finest(terms, shape, of_values)
        found = wider or found
        if wider is not None and wider.inflation <= MOST_INFLATION:
            break
    if found is None:
        raise PrivacyConfigError(
            f"no scale fits {secure.max_clients} clients and their noise into the bits of a masked number, with "
            "noise that can be drawn",
            remedy="Raise federation.bits, lower federation.max_clients, or raise min_clients - colluders towards it; "
            "with very little noise, raise privacy.noise_multiplier.",
        )
    made = dataclasses.replace(plan, secure=found.secure, noise_multiplier=multiplier(found.scale))
    if made.votes is not None:
        _ = made.vote_grid  # refuses votes whose noise cannot be drawn
    return made


@functools.lru_cache(maxsize=64)
def grid_of(secure: SecureSum, shape: Shape, noise_multiplier: float) -> Grid:
    """The finest grid that fits: a function of public terms alone, so that a stored claim is recomputed by it.

    Raises:
        PrivacyConfigError: the dimension is not known yet, or no scale fits.
    """
    if not secure.dimension or not secure.bits:
        raise PrivacyConfigError(
            "the row domain is not known yet, so this plan accounts nothing",
            remedy="Make the plan with its vocabulary (common.work.work_for with a domain).",
        )
    found = _finest(secure, shape, lambda _: noise_multiplier)
    if found is None:
        raise PrivacyConfigError("no scale fits the clients, bits and noise of this secure sum")
    return found


def _finest(secure: SecureSum, shape: Shape, multiplier: _Multiplier) -> Grid | None:
    """The grid with the largest scale that is not too fine, by bisection; ``None`` where that is too coarse.

    With twice the scale, every number in steps grows, also at the smaller noise that then reaches a target.
    """

    def made(scale: float) -> Grid | None:
        sigma = multiplier(scale)
        grid = grid_at(secure, shape, sigma, scale) if math.isfinite(sigma) else None
        return None if grid is None or too_fine(grid) else grid

    choice = scales(shape.l2_clip_norm)
    low, high = -1, len(choice)
    best: Grid | None = None
    while high - low > 1:
        middle = (low + high) // 2
        grid = made(choice[middle])
        low, high = (middle, high) if grid is not None else (low, middle)
        best = grid or best
    return None if best is None or too_coarse(best) else best


def _calibrated(plan: PrivacyPlan, dimension: int) -> _Multiplier:
    """Scale -> noise multiplier that reaches the target at that scale; infinite where no noise does."""
    target = plan.target_epsilon or math.inf
    secure = dataclasses.replace(plan.secure, dimension=dimension, bits=BITS[-1]) if plan.secure else None

    @functools.cache
    def gaussian() -> float:
        from dp_accounting import GaussianDpEvent, SelfComposedDpEvent

        def run_event(sigma: float) -> DpEvent:
            return SelfComposedDpEvent(GaussianDpEvent(sigma), plan.rounds)

        return accounting.calibrate(run_event, epsilon=target, delta=plan.delta)

    @functools.cache
    def multiplier(scale: float) -> float:
        if secure is None:
            return math.inf
        from dp_accounting import ComposedDpEvent, SelfComposedDpEvent

        fixed = secure
        if plan.grid_shape.mechanism == "discrete_gaussian" and plan.votes is None:
            sigma = _of_dominating_gaussian(fixed, plan.grid_shape, scale, gaussian())
            if sigma is not None:
                return sigma

        def run_event(sigma: float) -> DpEvent:
            norm, made = scale * plan.l2_clip_norm, dataclasses.replace(plan, noise_multiplier=sigma)
            held = min(max(made.value_multiplier, _STDDEVS[0] / norm), _STDDEVS[1] / norm)  # beyond, a constant is met
            values = SelfComposedDpEvent(grid_at(fixed, plan.grid_shape, held, scale).event(), plan.rounds)
            if plan.votes is None:
                return values
            votes = event_at(plan.votes, made.vote_multiplier)
            return ComposedDpEvent([values, SelfComposedDpEvent(votes, plan.selections(plan.rounds))])

        try:
            return accounting.calibrate(run_event, epsilon=target, delta=plan.delta)
        except PrivacyConfigError:
            return math.inf

    return multiplier


def _of_dominating_gaussian(secure: SecureSum, shape: Shape, scale: float, gaussian: float) -> float | None:
    """The noise multiplier whose shares a Gaussian of multiplier ``gaussian`` dominates; ``None`` for narrow shares.

    Calibrating at every scale would search for the same Gaussian again.
    """
    from dp_accounting import GaussianDpEvent

    l2 = grid_at(secure, shape, 1.0, scale).l2_sensitivity
    stddev = math.sqrt((gaussian * l2) ** 2 + SMOOTHING_VARIANCE) * (1 + 2.0**-40)
    if stddev > _STDDEVS[1]:
        return math.inf
    sigma = stddev / (scale * shape.l2_clip_norm)
    event = grid_at(secure, shape, sigma, scale).event()
    return sigma if isinstance(event, GaussianDpEvent) and event.noise_multiplier >= gaussian else None
