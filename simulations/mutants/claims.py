"""Claims gone wrong: the mechanism is right, the epsilon is not."""

from __future__ import annotations

import dataclasses
import warnings

import dp_accounting as dp
import numpy as np
from numpy.typing import NDArray

from common.evaluation.conformance import Subject
from common.privacy import accounting
from common.privacy.accounting import grouped
from common.privacy.plan import PrivacyPlan
from common.privacy.rng import NoiseSource
from simulations.mutants import Mutant


def _amplified_always(plan: PrivacyPlan, observer: str, rounds: int) -> dp.DpEvent:
    """Poisson amplification also for record-like units, whose client's other data show that it took part."""
    if not plan.protects(observer) or plan.sampling != "poisson" or plan.mode == "example":
        return plan.event(observer, rounds)
    step = dp.PoissonSampledDpEvent(plan.rate, dp.GaussianDpEvent(plan.noise_multiplier))
    return dp.SelfComposedDpEvent(step, rounds)


def _one_release_for_all(plan: PrivacyPlan, observer: str, rounds: int) -> dp.DpEvent:
    return plan.event(observer, min(rounds, 1))


def _trusts_nobody(plan: PrivacyPlan, observer: str, rounds: int) -> dp.DpEvent:
    return plan.event("public", rounds)


def _forgets_local_steps(plan: PrivacyPlan, observer: str, rounds: int) -> dp.DpEvent:
    return dataclasses.replace(plan, local_steps=min(plan.local_steps, 1)).event(observer, rounds)


def _counts_expected_rounds(plan: PrivacyPlan, observer: str, rounds: int) -> dp.DpEvent:
    """Charges a client for rate * rounds releases instead of sampling."""
    return plan.event(observer, max(1, round(rounds * plan.rate)))


def _central_limit_epsilon(event: dp.DpEvent, delta: float) -> float:
    from opacus.accountants import GaussianAccountant

    (rate, sigma), count = (grouped(event) or ())[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Opacus itself warns that this accountant may under-estimate
        accountant = GaussianAccountant()
    accountant.history = [(sigma, rate, count)]
    return float(accountant.get_epsilon(delta))


def _shuffled(source: NoiseSource, clients: int, rate: float) -> NDArray[np.bool_]:
    """A cohort of fixed size, accounted as Poisson."""
    chosen = np.zeros(clients, dtype=bool)
    chosen[np.argsort(source.uniform(clients))[: round(clients * rate)]] = True
    return chosen


def _everyone(source: NoiseSource, clients: int, rate: float) -> NDArray[np.bool_]:
    return np.ones(clients, dtype=bool)


def _half_sensitivity(plan: PrivacyPlan, observer: str, rounds: int) -> dp.DpEvent:
    """Accounted as if a unit moved the sum by C / 2: neighbours that replace, sold as ones that add or remove."""
    return dataclasses.replace(plan, noise_multiplier=2 * plan.noise_multiplier).event(observer, rounds)


def _other_delta(event: dp.DpEvent, delta: float) -> float:
    """An epsilon at ten times the delta that is stated."""
    return accounting.epsilon(event, 10 * delta)


def _delta_anew(event: dp.DpEvent, delta: float) -> float:
    """Spends the whole delta in each of nine rounds and states it once."""
    return accounting.epsilon(event, 9 * delta)


MUTANTS = (
    Mutant(
        "amplification by client sampling claimed for record units",
        "no_amplification",
        Subject(event=_amplified_always),
    ),
    Mutant("two releases accounted as one", "composition", Subject(event=_one_release_for_all)),
    Mutant("rounds times rate accounted without sampling", "composition", Subject(event=_counts_expected_rounds)),
    Mutant("central noise claimed against the coordinator", "trusted_coordinator", Subject(event=_trusts_nobody)),
    Mutant("local steps accounted as one", "composition", Subject(event=_forgets_local_steps)),
    Mutant("epsilon by the central limit approximation", "upper_bound", Subject(epsilon=_central_limit_epsilon)),
    Mutant("sensitivity C accounted for neighbours 2 C apart", "adjacency", Subject(event=_half_sensitivity)),
    Mutant("epsilon at another delta than is stated", "second_accountant", Subject(epsilon=_other_delta)),
    Mutant("delta spent anew in every round", "composition", Subject(epsilon=_delta_anew)),
    Mutant("cohort of fixed size sold as Poisson", "poisson_draw", Subject(draw=_shuffled)),
    Mutant("everyone drawn, sold as Poisson", "poisson_draw", Subject(draw=_everyone)),
)
