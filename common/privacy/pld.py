"""Privacy loss distributions by dp_accounting, on a grid: always an upper bound, closer as the grid gets finer.

Distributions, discretization (connect-the-dots) and composition are dp_accounting's. One thing is done here: the
hockey-stick divergences of a sampled Gaussian are evaluated for all grid points at once, where dp_accounting inverts
the loss in a Python loop that takes three quarters of its time. ``tests`` compare the two point by point.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.privacy.groups import Groups, Key, is_gaussian, reach

_ROUGH_GRID = 1e-2
_MOST_POINTS = 1e5  # on the rough grid


def fine_epsilon(groups: Groups, delta: float) -> float:
    """What is reported: on a grid of 1e-5 below epsilon 0.05, of 1e-4 below 20, and coarser above.

    Mixtures, for which dp_accounting takes a minute on the finer ones, stay on a grid of 1e-3.
    """
    middle = middle_epsilon(groups, delta)
    if not 0 < middle <= 20 or any(hasattr(key, "sensitivities") for key, _ in groups):
        return middle
    return pld_epsilon(groups, delta, 1e-4 if middle > 0.05 else 1e-5)


def close_epsilon(groups: Groups, delta: float) -> float:
    """On twice the grid of ``fine_epsilon``: half its cost, never below it, and close."""
    middle = middle_epsilon(groups, delta)
    if not 0 < middle <= 20 or any(hasattr(key, "sensitivities") for key, _ in groups):
        return middle
    return pld_epsilon(groups, delta, 2e-4 if middle > 0.05 else 2e-5)


def middle_epsilon(groups: Groups, delta: float) -> float:
    """Close enough to leave little to the finer grids; its own is a multiple of theirs."""
    rough = rough_epsilon(groups, delta)
    if not 0 < rough < math.inf:
        return rough
    return pld_epsilon(groups, delta, max(1e-3, 10.0 ** math.floor(math.log10(rough)) * 1e-5))


def rough_epsilon(groups: Groups, delta: float) -> float:
    """A fast estimate, accurate enough to choose the grid and to bracket a root."""
    if not groups:
        return 0.0
    if len(groups) == 1 and is_gaussian(groups[0][0]) and groups[0][0][0] == 1.0:
        import dp_accounting as dp

        return float(dp.get_epsilon_gaussian(groups[0][0][1], delta))
    # One step's loss reaches about r^2 / 2 + 8 r: the grid keeps that to some 1e5 points.
    widest = max(0.5 * reach(key) ** 2 + 8 * reach(key) for key, _ in groups)
    return pld_epsilon(groups, delta, max(_ROUGH_GRID, widest / _MOST_POINTS))


@functools.lru_cache(maxsize=1024)
def pld_epsilon(groups: Groups, delta: float, grid: float) -> float:
    """Epsilon at ``delta`` of all groups composed, on one grid. Adjacency: add/remove, equal to zero-out.

    Source: Koskela et al. 2020; Doroshenko et al. 2022 (connect-the-dots).
    """
    from dp_accounting.pld import privacy_loss_distribution

    total = privacy_loss_distribution.identity(value_discretization_interval=grid)
    for key, count in groups:
        one = _distribution(key, grid)
        total = total.compose(one if count == 1 else one.self_compose(count))
    return float(total.get_epsilon_for_delta(delta))


def _distribution(key: Key, grid: float) -> Any:
    """dp_accounting's distribution of one elementary event."""
    from dp_accounting.pld import privacy_loss_distribution as pld

    if is_gaussian(key):
        return gaussian_distribution(key[0], key[1], grid)
    if hasattr(key, "sensitivities"):
        return pld.from_mixture_gaussian_mechanism(
            key.standard_deviation, key.sensitivities, key.sampling_probs, value_discretization_interval=grid
        )
    return pld.from_truncated_subsampled_gaussian_mechanism(
        dataset_size=key.dataset_size,
        sampling_probability=key.sampling_probability,
        truncated_batch_size=key.truncated_batch_size,
        noise_multiplier=key.noise_multiplier,
        value_discretization_interval=grid,
    )


def gaussian_distribution(rate: float, sigma: float, grid: float) -> Any:
    """The distribution of one Poisson-sampled Gaussian (rate 1: unsampled), as dp_accounting makes it, in less time."""
    from dp_accounting.pld import pld_pmf, privacy_loss_distribution
    from dp_accounting.pld.privacy_loss_mechanism import AdjacencyType, GaussianPrivacyLoss

    masses = []
    for adjacency in (AdjacencyType.REMOVE, AdjacencyType.ADD)[: 1 if rate == 1.0 else 2]:
        loss = GaussianPrivacyLoss(sigma, sampling_prob=rate, adjacency_type=adjacency)
        bounds = loss.connect_dots_bounds()
        low, high = math.floor(bounds.epsilon_lower / grid), math.ceil(bounds.epsilon_upper / grid)
        deltas = _divergences(loss, np.arange(low, high + 1) * grid, remove=adjacency == AdjacencyType.REMOVE)
        masses.append(pld_pmf.create_pmf_pessimistic_connect_dots_fixed_gap(grid, low, high, deltas))
    return privacy_loss_distribution.PrivacyLossDistribution(*masses)


def _divergences(loss: Any, epsilons: NDArray[np.float64], *, remove: bool) -> NDArray[np.float64]:
    """The hockey-stick divergence at every epsilon: ``AdditiveNoisePrivacyLoss.get_delta_for_epsilon`` at once.

    The best event is a half line that ends where the loss is epsilon. Without sampling that loss is
    log(1 + (e^epsilon - 1) / q) for removal, its mirror image for addition.
    """
    rate, variance = loss.sampling_prob, loss.standard_deviation**2
    edge = -math.inf if rate == 1.0 else math.log1p(-rate)
    inside = epsilons > edge if remove else epsilons < -edge
    deltas = np.zeros_like(epsilons)
    if remove:  # below log(1 - q) the whole line is the best event
        deltas[~inside] = -np.expm1(epsilons[~inside])
    some = epsilons[inside]
    x = -0.5 - _unsampled(some, rate) * variance if remove else 0.5 + _unsampled(-some, rate) * variance
    deltas[inside] = loss.mu_upper_cdf(x) - np.exp(some + loss.mu_lower_log_cdf(x))
    return np.clip(deltas, 0.0, 1.0)


def _unsampled(epsilons: NDArray[np.float64], rate: float) -> NDArray[np.float64]:
    """log(1 + (e^epsilon - 1) / rate) without overflow or cancellation; minus infinity at and below log(1 - rate)."""
    if rate == 1.0:
        return epsilons
    with np.errstate(divide="ignore"):
        small = np.log1p(np.maximum(np.expm1(np.minimum(epsilons, 1.0)) / rate, -1.0))
        large = epsilons + np.log1p(-(1 - rate) * np.exp(-np.maximum(epsilons, 1.0))) - math.log(rate)
    return np.where(epsilons < 1.0, small, large)
