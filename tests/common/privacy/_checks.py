"""Checks of a privacy mechanism: each raises AssertionError on a wrong one. Their names are what mutants refer to."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent
from scipy import stats

from common.config import FederationConfig, PrivacyConfig, TrainingConfig
from common.privacy.plan import PrivacyPlan, make_plan
from common.privacy.private_sum import Released
from common.update import ParameterSpec, RowBatch, UpdateBatch, concatenated
from simulations.mutants import Subject

ROWS, BOUND = 64, 0.5
SPECS = (
    ParameterSpec("centre", (ROWS, 24), "words"),
    ParameterSpec("context", (ROWS, 16), "words"),
    ParameterSpec("bias", (1200,)),
)
ALARM = 1e-9  # p-value below which a check fails: no false alarm in any number of runs that will be made


def plan(mode: str = "central", unit: str = "client", *, sigma: float = 1.3, **settings: object) -> PrivacyPlan:
    federation = {k: v for k, v in settings.items() if k in FederationConfig.model_fields}
    training = {k: v for k, v in settings.items() if k in TrainingConfig.model_fields}
    privacy = PrivacyConfig(mode=mode, noise_multiplier=sigma, delta=1e-5, l2_clip_norm=BOUND, test_mode=True)
    additive = unit != "client" and mode != "example"
    return make_plan(
        privacy,
        FederationConfig(**federation),
        TrainingConfig(**training),
        unit=unit,
        additive=additive,
        natural_clip=None,
    )


def contribution(
    rng: np.random.Generator, size: float, *, repeats: int = 1, tables: int = 2, dense: bool = True
) -> UpdateBatch:
    """One contribution, not clipped; every row id comes ``repeats`` times."""
    rows = {}
    for spec in SPECS[:tables]:
        ids = np.repeat(np.sort(rng.choice(ROWS // 2, 5, replace=False)), repeats).astype(np.int64)
        values = np.repeat(rng.normal(size=(5, spec.shape[1])), repeats, axis=0).astype(np.float32) * np.float32(size)
        rows[spec.name] = RowBatch(np.array([0, len(ids)]), ids, values)
    bias = rng.normal(size=(1, 1200)).astype(np.float32) * np.float32(size if dense else 0.0)
    return UpdateBatch(1, rows, {"bias": bias})


def run(subject: Subject, batches: list[UpdateBatch], seed: int, fixed: PrivacyPlan | None = None) -> Released:
    """Clip, sum and release."""
    total = subject.make_sum(SPECS)
    total.add(subject.clip(concatenated(batches), BOUND).batch)
    return subject.release(total, fixed or plan(), subject.seeded(seed))


def flat(released: Released) -> np.ndarray:
    """Every number of a release, tables with all their rows."""
    parts = []
    for spec in SPECS[:2]:
        ids, values = released.rows[spec.name]
        table = np.zeros(spec.shape)
        table[slice(None) if ids is None else ids] = values
        parts.append(table.ravel())
    return np.concatenate([*parts, released.dense["bias"].ravel()])


def residuals(subject: Subject, seed: int) -> dict[str, np.ndarray]:
    """Released minus the plain sum of correctly clipped contributions, divided by the declared stddev, per array."""
    rng = np.random.default_rng(seed)
    batches = [contribution(rng, 0.01) for _ in range(4)]
    released = run(subject, batches, seed)
    plain = run(Subject(), batches, seed, _no_noise())
    delta = (flat(released) - flat(plain)) / plan().noise_stddev
    cuts = np.cumsum([np.prod(s.shape) for s in SPECS])
    return dict(zip([s.name for s in SPECS], np.split(delta, cuts[:-1].astype(int)), strict=True))


def _no_noise() -> PrivacyPlan:
    privacy = PrivacyConfig(mode="none", l2_clip_norm=BOUND)
    return make_plan(privacy, FederationConfig(), TrainingConfig(), unit="client", additive=False, natural_clip=None)


def noise_scale(subject: Subject, seed: int = 0) -> None:
    """Every array's residual has the declared variance (chi-square, both tails)."""
    for name, residual in residuals(subject, seed).items():
        statistic, n = float(np.sum(residual**2)), residual.size
        p = 2 * min(stats.chi2.sf(statistic, n), stats.chi2.cdf(statistic, n))
        assert p > ALARM, f"noise on {name} has {math.sqrt(statistic / n):.3f} of the declared stddev (p = {p:.1e})"


def whiteness(subject: Subject, seed: int = 0) -> None:
    """No correlation between neighbouring columns, rows or arrays."""
    found = residuals(subject, seed)
    for spec in SPECS[:2]:
        table = found[spec.name].reshape(spec.shape)
        for a, b in ((table[:, 1:], table[:, :-1]), (table[1:], table[:-1])):
            assert abs(float(np.sum(a * b))) / math.sqrt(a.size) < 6.5, f"correlated noise in {spec.name}"
    a, b = found["centre"].reshape(ROWS, -1)[:, :16], found["context"].reshape(ROWS, -1)
    assert abs(float(np.sum(a * b))) / math.sqrt(a.size) < 6.5, "correlated noise between tables"


def fresh_noise(subject: Subject, seed: int = 0) -> None:
    """Two rounds with two sources have unrelated noise."""
    a, b = (np.concatenate(list(residuals(subject, seed + k).values())) for k in (0, 1))
    assert abs(float(np.sum(a * b))) / math.sqrt(a.size) < 6.5, "two rounds share their noise"


def support(subject: Subject, seed: int = 0) -> None:
    """Which coordinates are exactly zero or present tells nothing: every row of every table is released, noised."""
    rng = np.random.default_rng(seed)
    released = run(subject, [contribution(rng, 0.01)], seed)
    for spec in SPECS[:2]:
        ids, values = released.rows[spec.name]
        assert ids is None and values.shape == spec.shape, f"{spec.name} is released with some of its rows"
        assert np.mean(values == 0.0) < 0.01, f"{spec.name} has untouched rows without noise"


def adversaries(rng: np.random.Generator) -> list[UpdateBatch]:
    """Contributions that stress the clip: long, split over arrays, repeated rows, tiny, huge, dense only."""
    return [
        contribution(rng, 10.0),
        contribution(rng, 0.02),
        contribution(rng, 1.0, repeats=9),
        contribution(rng, 0.016, repeats=9, dense=False),
        contribution(rng, 1e-44),
        contribution(rng, 1e36),
        contribution(rng, 0.011, tables=0),
        contribution(rng, 0.1, tables=1, dense=False),
    ]


def sensitivity(subject: Subject, seed: int = 0) -> None:
    """With the same noise, adding one contribution moves the release by at most C, whatever it is."""
    rng = np.random.default_rng(seed)
    others = [contribution(rng, 0.004) for _ in range(3)]
    without = flat(run(subject, others, seed))
    slack = 2.0**-11 * plan().noise_stddev * math.sqrt(without.size)  # both releases are rounded to a public grid
    for k, extra in enumerate(adversaries(rng)):
        moved = float(np.linalg.norm(flat(run(subject, [*others, extra], seed)) - without))
        assert moved <= BOUND + slack, f"contribution {k} moves the release by {moved / BOUND:.3f} C"


def total_clip(subject: Subject, seed: int = 0) -> None:
    """NaN, Inf and absurd values end as finite values of norm at most C."""
    rng = np.random.default_rng(seed)
    for bad in (math.nan, math.inf, -math.inf, 3e38, 1e-45, 0.0):
        batch = contribution(rng, 0.01)
        batch.rows["centre"].values[2, 3] = bad
        done = subject.clip(concatenated([batch, contribution(rng, 0.01)]), BOUND).batch
        for values in [t.values for t in done.rows.values()] + list(done.dense.values()):
            assert np.isfinite(values).all(), f"{bad} survives the clip"


def secret_source(subject: Subject, seed: int = 0) -> None:
    """Sources made at the same moment have nothing in common."""
    first = {subject.secure().uniform(4).tobytes() for _ in range(5)}
    assert len(first) == 5, "two sources made in the same second are equal"


def poisson_draw(subject: Subject, seed: int = 0) -> None:
    """Every client is drawn with the rate, and the size of the cohort varies as a binomial's does."""
    source, n, rate, rounds = subject.seeded(seed), 300, 0.1, 400
    drawn = np.array([subject.draw(source, n, rate) for _ in range(rounds)])
    assert (
        2 * min(stats.binom.cdf(drawn.sum(), drawn.size, rate), stats.binom.sf(drawn.sum() - 1, drawn.size, rate))
        > ALARM
    )
    dispersion = float(np.var(drawn.sum(axis=1), ddof=1)) * (rounds - 1) / (n * rate * (1 - rate))
    assert 2 * min(stats.chi2.cdf(dispersion, rounds - 1), stats.chi2.sf(dispersion, rounds - 1)) > ALARM
    per_client = float(np.var(drawn.sum(axis=0), ddof=1)) * (n - 1) / (rounds * rate * (1 - rate))
    assert 2 * min(stats.chi2.cdf(per_client, n - 1), stats.chi2.sf(per_client, n - 1)) > ALARM


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


def composition(subject: Subject, seed: int = 0) -> None:
    """T releases with noise sigma cost what one with sigma / sqrt(T) costs; local steps count each."""
    least = gaussian_epsilon(2.0, 1e-5) * (1 - 1e-6)
    assert _costs(subject, plan(sigma=6.0, rounds=9)) >= least, "rounds are not all counted"
    assert _costs(subject, plan(unit="document", sigma=4.0, rounds=4)) >= least, "rounds are not all counted"
    assert _costs(subject, plan("local", sigma=4.0, rounds=4)) >= least, "rounds are not all counted"
    stepped = plan("example", "document", sigma=8.0, rounds=2, local_steps=8, unit_rate=1.0)
    assert _costs(subject, stepped) >= least, "local steps are not all counted"
    sampled = plan(rounds=30, sampling="poisson", rate=0.1)
    truth = SelfComposedDpEvent(PoissonSampledDpEvent(0.1, GaussianDpEvent(1.3)), 30)
    assert subject.event(sampled, "public", 30) == truth, "sampled rounds are not accounted as sampled"


def no_amplification(subject: Subject, seed: int = 0) -> None:
    """Client sampling amplifies nothing for units inside a client, nor for noise that the client adds."""
    least = gaussian_epsilon(2.0, 1e-5) * (1 - 1e-6)
    for mode, unit in (("central", "document"), ("local", "client"), ("local", "document")):
        made = plan(mode, unit, sigma=4.0, rounds=4, sampling="poisson", rate=0.05)
        assert _costs(subject, made) >= least, f"{mode}, unit {unit}: amplification is claimed"


def trusted_coordinator(subject: Subject, seed: int = 0) -> None:
    """In mode central nothing is promised against the coordinator."""
    assert math.isinf(subject.epsilon(subject.event(plan(), "coordinator", 1), 1e-5))


def upper_bound(subject: Subject, seed: int = 0) -> None:
    """The accountant never reports less than the value that two exact ones agree on."""
    event = SelfComposedDpEvent(PoissonSampledDpEvent(0.01, GaussianDpEvent(1.0)), 1000)
    assert subject.epsilon(event, 1e-5) >= 1.8282, "epsilon is under-estimated"


CHECKS: dict[str, Callable[[Subject, int], None]] = {
    check.__name__: check
    for check in (
        noise_scale,
        whiteness,
        fresh_noise,
        support,
        sensitivity,
        total_clip,
        secret_source,
        poisson_draw,
        composition,
        no_amplification,
        trusted_coordinator,
        upper_bound,
    )
}
