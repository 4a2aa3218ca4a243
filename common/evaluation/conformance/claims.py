"""T5 for plans: what is accounted is what happens, and a second accountant agrees."""

from __future__ import annotations

import math

from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent
from scipy import stats

from common.evaluation.conformance.findings import Finding
from common.evaluation.conformance.subject import Setup, Subject, toy_plan
from common.privacy import accounting
from common.privacy.plan import PrivacyPlan

_SLACK = 1e-6


def gaussian_epsilon(sigma: float, delta: float) -> float:
    """Oracle: the exact epsilon of one Gaussian release (Balle and Wang 2018, theorem 8), by bisection."""

    def excess(eps: float) -> float:
        a, b = 1 / (2 * sigma) - eps * sigma, -1 / (2 * sigma) - eps * sigma
        return float(stats.norm.cdf(a) - math.exp(eps + stats.norm.logcdf(b))) - delta

    low, high = 0.0, 1.0
    while excess(high) > 0:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    return high


def _costs(subject: Subject, made: PrivacyPlan) -> float:
    return subject.epsilon(subject.event(made, "public", made.rounds), 1e-5)


def _at_least(name: str, value: float, least: float) -> Finding:
    return Finding("T5", name, f"epsilon {value:.4f}, at least {least:.4f}", value >= least * (1 - _SLACK))


def composition(subject: Subject, setup: Setup, seed: int = 0) -> list[Finding]:
    """T releases with noise sigma cost what one with sigma / sqrt(T) costs; local steps count each."""
    least = gaussian_epsilon(2.0, 1e-5)
    plans = {
        "9 rounds of clients": toy_plan(sigma=6.0, rounds=9),
        "4 rounds of documents": toy_plan(unit="document", sigma=4.0, rounds=4),
        "4 rounds of local noise": toy_plan("local", sigma=4.0, rounds=4),
        "2 rounds of 8 local steps": toy_plan("example", "document", sigma=8.0, rounds=2, local_steps=8, unit_rate=1.0),
    }
    sampled = toy_plan(rounds=30, sampling="poisson", rate=0.1)
    truth = SelfComposedDpEvent(PoissonSampledDpEvent(0.1, GaussianDpEvent(1.3)), 30)
    same = subject.event(sampled, "public", 30) == truth
    return [
        *(_at_least(name, _costs(subject, made), least) for name, made in plans.items()),
        Finding("T5", "30 sampled rounds", "accounted as sampled" if same else "accounted otherwise", same),
    ]


def no_amplification(subject: Subject, setup: Setup, seed: int = 0) -> list[Finding]:
    """Client sampling amplifies nothing for units inside a client, nor for noise that the client adds."""
    least = gaussian_epsilon(2.0, 1e-5)
    cases = (("central", "document"), ("local", "client"), ("local", "document"))
    plans = {(m, u): toy_plan(m, u, sigma=4.0, rounds=4, sampling="poisson", rate=0.05) for m, u in cases}
    return [_at_least(f"mode {m}, unit {u}", _costs(subject, made), least) for (m, u), made in plans.items()]


def trusted_coordinator(subject: Subject, setup: Setup, seed: int = 0) -> list[Finding]:
    """In mode central nothing is promised against the coordinator."""
    epsilon = subject.epsilon(subject.event(toy_plan(), "coordinator", 1), 1e-5)
    return [Finding("T5", "central noise against the coordinator", f"epsilon {epsilon:g}", math.isinf(epsilon))]


def upper_bound(subject: Subject, setup: Setup, seed: int = 0) -> list[Finding]:
    """The accountant never reports less than what another one proves, on a case where approximations fall short."""
    event = SelfComposedDpEvent(PoissonSampledDpEvent(0.01, GaussianDpEvent(1.0)), 1000)
    return [_at_least("rate .01, sigma 1, 1000 steps", subject.epsilon(event, 1e-5), 1.8282)]


def adjacency(subject: Subject, setup: Setup, seed: int = 0) -> list[Finding]:
    """The noise multiplier is what T2 finds divided by C: for units that are added or removed, never C / 2 or 2 C."""
    made = setup.plan
    stated = accounting.grouped(subject.event(made, "public", 1))
    if stated is None:
        return [Finding("T5", "one release", "accounted as not private", made.mode == "none")]
    if made.mechanism != "gaussian" or made.mode == "example":
        return []
    (_, sigma), count = stated[0]
    fits = count == 1 and sigma <= made.noise_stddev / made.l2_clip_norm * (1 + _SLACK)
    return [
        Finding("T5", "noise multiplier of one release", f"{sigma:.4f} accounted for {made.noise_multiplier:.4f}", fits)
    ]


def second_accountant(subject: Subject, setup: Setup, seed: int = 0) -> list[Finding]:
    """The plan's epsilon, by the first accountant, is not below what the second one proves, nor far above it."""
    made = setup.plan
    event = made.event("public", made.rounds)
    first, second = subject.epsilon(event, made.delta), accounting.second_opinion(event, made.delta)
    if second.accountant == "none":
        return [Finding("T5", "second accountant", f"none covers this event; the first says {first:.4f}", True)]
    agree = second.lower <= first * (1 + 1e-3) and first <= second.upper * (1 + 1e-2) + 1e-3
    told = f"{first:.4f}; {second.accountant} {second.lower:.4f} to {second.upper:.4f}"
    return [Finding("T5", "epsilon by two accountants", told, agree)]
