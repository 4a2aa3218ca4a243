"""The normal form of an event: what happened how often, checked, with everything that pools exactly pooled."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from common.errors import PrivacyConfigError

if TYPE_CHECKING:
    from dp_accounting import DpEvent

# What happened, and how often. A pair is a Gaussian: (sampling rate, noise multiplier), where rate 1 stands for no
# sampling and comes once, first. All else is an event without parts. Hashable, so results can be cached.
Key = Any
Groups = tuple[tuple[Key, int], ...]

MOST_EXAMPLES = 1000  # of a unit, in a mixture
_SUM_ERROR = 1e-12  # of a mixture's probabilities: far below every delta that is accepted


def grouped(event: DpEvent) -> Groups | None:
    """The event as counted elementary ones; ``None`` if part of it is not private.

    Unsampled Gaussians pool exactly into one: noise multipliers add as inverse squares. Equal others are counted.

    Raises:
        PrivacyConfigError: the event is not of the closed set, or a number in it is out of range.
    """
    counts: Counter[Key] = Counter()
    if not _count(event, 1, counts):
        return None
    precision = sum(n / key[1] ** 2 for key, n in counts.items() if is_gaussian(key) and key[0] == 1.0)
    sampled = sorted((key, n) for key, n in counts.items() if is_gaussian(key) and key[0] < 1.0)
    others = sorted(((key, n) for key, n in counts.items() if not is_gaussian(key)), key=repr)
    pooled = [((1.0, precision**-0.5), 1)] if precision > 0 else []
    return tuple(pooled + sampled + others)


def is_gaussian(key: Key) -> bool:
    """Whether a key is a Gaussian, sampled or not."""
    return isinstance(key, tuple)


def is_integer(key: Key) -> bool:
    """Whether a key is integer noise, which has a Renyi bound alone."""
    return hasattr(key, "renyi")


def split(groups: Groups) -> tuple[Groups, Groups]:
    """Those with a privacy loss distribution, and those with a Renyi bound alone."""
    return tuple(g for g in groups if not is_integer(g[0])), tuple(g for g in groups if is_integer(g[0]))


def reach(key: Key) -> float:
    """The largest shift of the mean that a unit can cause, in standard deviations of the noise; not of integer noise.

    Truncation is accounted as a replacement at half the noise (Ganesh 2025, arXiv 2508.15089): a shift of 4.
    """
    if is_gaussian(key):
        return 1 / float(key[1])
    if hasattr(key, "sensitivities"):
        return float(key.sensitivities[-1] / key.standard_deviation)
    return 4 / float(key.noise_multiplier)


def _count(event: DpEvent, times: int, counts: Counter[Key]) -> bool:
    import dp_accounting as dp
    from dp_accounting.dp_event import MixtureOfGaussiansDpEvent

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
        case dp.TruncatedSubsampledGaussianDpEvent():
            return _count_truncated(event, times, counts)
        case MixtureOfGaussiansDpEvent():
            return _count_mixture(event, times, counts)
    if is_integer(event):
        counts[event] += times
        return True
    raise PrivacyConfigError(
        f"no accountant here covers {type(event).__name__}",
        remedy="Two Gaussians on one sample are one event: see accounting.combined_noise_multiplier. Integer noise is "
        "accounted without sampling.",
    )


def _count_gaussian(event: Any, rate: float, times: int, counts: Counter[Key]) -> bool:
    sigma = float(event.noise_multiplier)
    if not (0 <= rate <= 1 and sigma >= 0):
        raise PrivacyConfigError("an event needs a rate in [0, 1] and a noise multiplier that is not negative")
    if rate == 0 or math.isinf(sigma):
        return True
    if sigma == 0:
        return False
    counts[(rate, sigma)] += times
    return True


def _count_truncated(event: Any, times: int, counts: Counter[Key]) -> bool:
    units, most, rate = event.dataset_size, event.truncated_batch_size, float(event.sampling_probability)
    whole = all(isinstance(n, int) and not isinstance(n, bool) and n >= 1 for n in (units, most))
    if not whole or not 0 < rate <= 1 or (rate == 1 and most < units):
        raise PrivacyConfigError(
            "truncated Poisson sampling needs a public number of units, a positive batch limit and a rate in (0, 1)"
        )
    if most >= units or event.noise_multiplier == 0 or math.isinf(event.noise_multiplier):
        return _count_gaussian(event, rate, times, counts)  # nothing is ever cut off
    _count_gaussian(event, rate, 0, Counter())  # checks the noise
    counts[event] += times
    return True


def _count_mixture(event: Any, times: int, counts: Counter[Key]) -> bool:
    """A mixture with ordered, hashable contents; the unit of one example is the plain sampled Gaussian."""
    from dp_accounting.dp_event import MixtureOfGaussiansDpEvent

    sigma = float(event.standard_deviation)
    shifts, chances = (tuple(float(x) for x in xs) for xs in (event.sensitivities, event.sampling_probs))
    check_mixture(shifts, chances)
    if not sigma >= 0:
        raise PrivacyConfigError("a mixture of Gaussians needs a standard deviation that is not negative")
    if math.isinf(sigma):
        return True
    if sigma == 0:
        return False
    plain = shifts == (0.0, 1.0)
    counts[(chances[1], sigma) if plain else MixtureOfGaussiansDpEvent(sigma, shifts, chances)] += times
    return True


def check_mixture(shifts: tuple[float, ...], chances: tuple[float, ...]) -> None:
    """Raise ``PrivacyConfigError`` unless these are increasing shifts from 0 or above, and their probabilities."""
    fits = len(shifts) == len(chances) and 1 <= len(shifts) <= MOST_EXAMPLES + 1
    good = fits and all(0 <= a < b for a, b in zip((-1.0, *shifts)[1:], (*shifts[1:], math.inf), strict=True))
    if not good or not all(0 < p <= 1 for p in chances) or abs(math.fsum(chances) - 1) > _SUM_ERROR:
        raise PrivacyConfigError(
            f"a mixture of Gaussians needs at most {MOST_EXAMPLES + 1} increasing sensitivities from 0 on, each with a "
            "positive probability, which add up to 1"
        )
    if shifts[-1] == 0:
        raise PrivacyConfigError("a mixture of Gaussians whose unit changes nothing is no event")
