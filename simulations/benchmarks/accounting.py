"""The two accountants on a grid of 200 settings, the golden values, and how long calibration takes.

Both are correct where they differ by no more than the second one's stated error. Settings are rate, noise multiplier,
steps and delta; those whose epsilon nobody uses (above 50) are left out of the grid.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.privacy import accounting, pld
from simulations.benchmarks._harness import Row, at_least, at_most, reported

if TYPE_CHECKING:
    from dp_accounting import DpEvent

RATES, STEPS = (1.0, 0.3, 0.1, 0.03, 0.01, 0.001), (1, 10, 100, 1000, 10_000)
SIGMAS, DELTAS = (0.5, 0.7, 1.0, 2.0, 4.0, 10.0, 30.0), (1e-5, 1e-6)
SETTINGS, QUICK_SETTINGS = 200, 6
MOST_EPSILON, LEAST_EPSILON = 50.0, 1e-3
TARGETS = ((0.5, 1e-5), (2.0, 1e-6), (8.0, 1e-5))  # epsilon, delta
GOLDEN_DIGITS = 5.1e-5


@dataclass(frozen=True)
class Setting:
    """A run of Poisson-sampled Gaussians (rate 1: unsampled)."""

    rate: float
    sigma: float
    steps: int
    delta: float

    def event(self, sigma: float | None = None) -> DpEvent:
        """The run's event, with another noise multiplier if one is given."""
        import dp_accounting as dp

        step = dp.GaussianDpEvent(self.sigma if sigma is None else sigma)
        drawn = dp.PoissonSampledDpEvent(self.rate, step) if self.rate < 1 else step
        return dp.SelfComposedDpEvent(drawn, self.steps)


def settings(wanted: int) -> list[Setting]:
    """The first ``wanted`` settings of usual cost, spread over the whole grid in a fixed order."""
    every = [Setting(*values) for values in itertools.product(RATES, SIGMAS, STEPS, DELTAS)]
    stride = 143  # has no factor in common with the 420 of them, so every one comes up once
    ordered = (every[k * stride % len(every)] for k in range(len(every)))
    usual = (s for s in ordered if LEAST_EPSILON < _rough(s) < MOST_EPSILON)
    return list(itertools.islice(usual, wanted))


def _rough(setting: Setting) -> float:
    return pld.rough_epsilon(accounting.grouped(setting.event()) or (), setting.delta)


def disagreement(setting: Setting) -> float:
    """How far the first accountant's value lies from the second one's estimate, in the error that the second states."""
    second = accounting.second_opinion(setting.event(), setting.delta)
    if second.accountant != "PRV":
        return math.inf  # which never meets a bar
    first = accounting.epsilon(setting.event(), setting.delta)
    return abs(first - second.estimate) / ((second.upper - second.lower) / 2)


def goldens(quick: bool) -> Iterator[Row]:
    """Rate .01, 1000 steps, delta 1e-5 (notes on accounting): differences, to four decimals."""
    setting = Setting(0.01, 1.0, 1000, 1e-5)
    second = accounting.second_opinion(setting.event(), setting.delta)
    found = {
        "PLD 1.8282": accounting.epsilon(setting.event(), setting.delta) - 1.82824,
        "PRV lower 1.8181": second.lower - 1.81811,
        "PRV estimate 1.8282": second.estimate - 1.82824,
        "PRV upper 1.8384": second.upper - 1.83837,
        "two noises on one sample 1.8282": accounting.epsilon(
            setting.event(accounting.combined_noise_multiplier(2.0, (1 - 1 / 4) ** -0.5)), setting.delta
        )
        - 1.82824,
    }
    if not quick:
        found["truncated Poisson, n 10,000, cap 150: 1.8305"] = _truncated() - 1.83047
    for label, difference in found.items():
        yield at_most(f"off the golden value: {label}", abs(difference), GOLDEN_DIGITS)


def _truncated() -> float:
    import dp_accounting as dp

    step = accounting.truncated_poisson_event(1.0, rate=0.01, units=10_000, most_units=150)
    return accounting.epsilon(dp.SelfComposedDpEvent(step, 1000), 1e-5)


def calibration(quick: bool) -> Iterator[Row]:
    """CPU seconds from a target to a noise multiplier, nothing cached, and how close the cost on the finest grid is."""
    rates, steps = ((0.01,), (100,)) if quick else ((1.0, 0.1, 0.01, 0.001), (1, 100, 1000, 10_000))
    seconds, costs = [], []
    accounting.calibrate(Setting(0.5, 1.0, 2, 1e-5).event, epsilon=1.0, delta=1e-5)  # imports, once a process
    for rate, count, (target, delta) in itertools.product(rates, steps, TARGETS[1:] if quick else TARGETS):
        setting = Setting(rate, 1.0, count, delta)
        pld.pld_epsilon.cache_clear()
        start = time.process_time()
        sigma = accounting.calibrate(setting.event, epsilon=target, delta=delta)
        seconds.append(time.process_time() - start)
        costs.append(accounting.epsilon(setting.event(sigma), delta) / target)
    yield reported("calibrations", len(seconds))
    yield reported("slowest calibration (CPU s)", max(seconds))
    yield reported("calibrations under a CPU second (share)", sum(s < 1 for s in seconds) / len(seconds))
    yield at_most("calibrated cost over target, largest", max(costs), 1)
    yield at_least("calibrated cost over target, smallest", min(costs), 0.998)


class Accounting:
    """Agreement, goldens, calibration."""

    name = "accounting"

    def run(self, quick: bool) -> list[Row]:
        """Compare and time; the quick size takes six settings and two calibrations."""
        wanted = QUICK_SETTINGS if quick else SETTINGS
        chosen = settings(wanted)
        found = [disagreement(setting) for setting in chosen]
        rows = [
            at_least("settings compared", len(chosen), wanted),
            at_most("largest disagreement (second one's stated error)", max(found), 1),
            reported("mean disagreement (second one's stated error)", sum(found) / len(found)),
        ]
        return [*rows, *goldens(quick), *calibration(quick)]


BENCHMARK = Accounting()
