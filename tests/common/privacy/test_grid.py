"""The grid of a secure sum and the plans that stand on it: bounds, bits, calibration, refusals."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction
from typing import Any

import dp_accounting as dp
import numpy as np
import pytest
from scipy import stats

from common.config import FederationConfig, build_scenario
from common.errors import ConfigError, PrivacyConfigError
from common.privacy import accounting
from common.privacy.grid import LEAST_CLIPS, SecureSum, grid_at, noise_reach, padded, scales, too_fine
from common.privacy.integer_events import SkellamDpEvent
from common.privacy.integer_noise import discrete_gaussian, skellam
from common.privacy.plan import OBSERVERS
from common.privacy.plan_sizing import grid_of, sized
from common.privacy.rng import NoiseSource
from common.table import RowDomain
from common.work import work_for

from ._distributed_toy import DIMENSION, FEDERATION, open_plan, plan


def real(unit: str = "client", **settings: Any) -> Any:
    return plan(unit, test_mode=False, **settings)


@pytest.mark.parametrize("unit", ["client", "record"])
@pytest.mark.parametrize("mechanism", ["skellam", "discrete_gaussian"])
def test_one_event_of_exactly_the_guaranteed_shares(unit: str, mechanism: str) -> None:
    made = real(unit, mechanism=mechanism, min_clients=6, colluders=2, rounds=3)
    grid, event = made.grid, made.round_event("public")
    if mechanism == "skellam":
        assert event == SkellamDpEvent(2 * grid.share * 4, grid.l1_sensitivity, grid.l2_sensitivity)
        exact = 2 * Fraction(grid.share) * 4
        assert Fraction(event.variance) == exact
    else:
        exact = Fraction(grid.share) ** 2 * 4
        assert event.noise_multiplier == pytest.approx(math.sqrt(exact - 64) / grid.l2_sensitivity, rel=1e-12)
        assert Fraction(event.noise_multiplier) ** 2 * grid.most_squared_norm <= exact - 64
    wanted = (Fraction(made.noise_multiplier) * Fraction(made.l2_clip_norm) * Fraction(grid.scale)) ** 2
    assert wanted <= exact * (1 + Fraction(1, 2**50)) and exact < wanted * (1 + Fraction(1, 2**29))
    assert made.event("public", 3) == dp.SelfComposedDpEvent(event, 3)
    assert made.client_run_event() == made.event("public", 3)


def test_sensitivities_are_those_of_the_enforced_norm() -> None:
    for made in (real(), real("record"), real(bits=32)):
        grid = made.grid
        assert Fraction(grid.l2_sensitivity) ** 2 >= grid.most_squared_norm
        length = padded(DIMENSION) if made.unit_is_client else DIMENSION
        assert grid.length == length
        smaller = min(grid.most_squared_norm, math.sqrt(length * grid.most_squared_norm))
        assert smaller <= grid.l1_sensitivity <= smaller * (1 + 1e-12)
        assert (
            grid.l2_sensitivity == pytest.approx(made.l2_clip_norm * grid.scale * (1 + grid.inflation))
            and 0 <= grid.inflation < 0.02
        )


def test_everybody_is_protected_and_nobody_by_sampling() -> None:
    full, drawn = real(rounds=4), real(rounds=4, sampling="poisson", rate=0.1)
    assert not drawn.amplified
    for observer in OBSERVERS:
        assert full.protects(observer) and drawn.epsilon(observer) == full.epsilon("public")


def test_an_ideal_sum_protects_from_everybody_but_the_coordinator() -> None:
    ideal = real(secure_aggregation="ideal")
    assert math.isinf(ideal.epsilon("coordinator")) and ideal.round_event("coordinator") == dp.NonPrivateDpEvent()
    assert ideal.epsilon("public") == ideal.epsilon("other_clients") == real().epsilon("public")
    assert ideal.grid == dataclasses.replace(real().grid, secure=ideal.secure)


def test_adjacency_is_zero_out_for_clients_and_add_or_remove_for_units() -> None:
    assert real().adjacency.startswith("zero-out") and real("record").adjacency.startswith("add or remove one unit")


@pytest.mark.parametrize("unit", ["client", "record"])
@pytest.mark.parametrize("mechanism", ["skellam", "discrete_gaussian"])
@pytest.mark.parametrize("epsilon", [0.5, 3.0, 30.0])
def test_noise_is_calibrated_at_the_scale_that_is_used(unit: str, mechanism: str, epsilon: float) -> None:
    made = real(unit, epsilon=epsilon, rounds=5, mechanism=mechanism)
    assert 0.99 * epsilon <= made.epsilon("coordinator") <= epsilon
    assert made.max_rounds() >= 5
    terms = {"noise_multiplier": made.noise_multiplier, "bits": made.secure.bits, "mechanism": mechanism}
    again = sized(open_plan(unit, rounds=5, **terms), DIMENSION)
    assert again.grid == made.grid


@pytest.mark.parametrize(("mechanism", "most"), [("skellam", 1.1), ("discrete_gaussian", 1.012)])
def test_noise_is_near_that_of_one_central_gaussian(mechanism: str, most: float) -> None:
    """Skellam noise has a Renyi bound alone; discrete Gaussian shares cost what the Gaussian does, and the rounding."""
    made = real(epsilon=3.0, rounds=5, mechanism=mechanism)
    sigma = accounting.calibrate(
        lambda s: dp.SelfComposedDpEvent(dp.GaussianDpEvent(s), 5), epsilon=3.0, delta=made.delta
    )
    assert sigma * (1 - 2e-3) < made.noise_multiplier < most * sigma


def test_more_colluders_and_fewer_survivors_need_larger_shares() -> None:
    shares = [real(min_clients=t, colluders=c, bits=32).grid for t, c in ((8, 1), (8, 4), (5, 1), (4, 2))]
    variance = [g.share_variance / g.scale**2 for g in shares]
    assert variance[1] == pytest.approx(7 / 4 * variance[0], rel=1e-6)
    assert variance[2] == pytest.approx(variance[1], rel=1e-6)
    assert variance[3] == pytest.approx(7 / 2 * variance[0], rel=1e-6)


def test_one_share_is_never_counted_as_every_client_knows_its_own() -> None:
    none, one = (real(min_clients=8, colluders=c, bits=32).grid for c in (0, 1))
    assert none.secure.honest == one.secure.honest == 7
    assert none.event() == one.event()


def test_the_scale_is_the_largest_that_fits() -> None:
    for made in (real(bits=16), real("record", bits=24), real(bits=32)):
        choice = scales(made.l2_clip_norm)
        finer = choice[choice.index(made.grid.scale) + 1]
        assert not too_fine(made.grid)
        assert too_fine(grid_at(made.secure, made.grid_shape, made.noise_multiplier, finer))


def test_scales_have_few_bits() -> None:
    """Then a float32 times a scale is exact in float64."""
    for bound in (0.3, 1.0, 700.0):
        choice = scales(bound)
        assert choice == sorted(set(choice)) and 0.25 <= choice[0] * bound <= 1 and 2**29 <= choice[-1] * bound <= 2**31
        assert all(math.frexp(s)[0] * 32 == int(math.frexp(s)[0] * 32) for s in choice)


def test_bits_are_the_fewest_that_serve() -> None:
    assert real(epsilon=20.0).secure.bits == 16
    wide = real(dimension=2**20, epsilon=1.0, rounds=10, min_clients=50, max_clients=100)
    assert wide.secure.bits > 16 and wide.grid.inflation <= 0.01
    record = real("record", dimension=2**19, epsilon=3.0, max_clients=1000)
    assert record.secure.bits == 32 and record.grid.clamp >= LEAST_CLIPS * record.grid.scale * record.l2_clip_norm


def test_bits_that_are_asked_for_are_taken_and_their_price_is_accounted() -> None:
    wide, narrow = (real(dimension=2**18, noise_multiplier=4.0, max_clients=20, bits=b) for b in (32, 16))
    assert narrow.secure.bits == 16 and narrow.grid.inflation > 0.02 > wide.grid.inflation
    assert narrow.epsilon("public") > wide.epsilon("public")
    claim = narrow.claim(1)
    assert claim["secure_sum"]["sensitivity_added_by_rounding"] == narrow.grid.inflation


def test_sums_stay_inside_the_modulus_but_for_the_tail() -> None:
    for made in (real(bits=16), real("record", bits=24), real(bits=16, mechanism="discrete_gaussian")):
        grid = made.grid
        assert grid.clamp * grid.secure.max_clients + noise_reach(grid) <= grid.room == 2 ** (grid.secure.bits - 1) - 1


@pytest.mark.parametrize("mechanism", ["skellam", "discrete_gaussian"])
def test_the_reach_of_the_noise_is_a_bound(mechanism: str) -> None:
    grid = real("record", mechanism=mechanism).grid
    reach, clients = noise_reach(grid), grid.secure.max_clients
    if mechanism == "skellam":
        beyond = 2 * stats.skellam.sf(reach - 1, clients * grid.share, clients * grid.share)
    else:
        beyond = 2 * stats.norm.sf(reach / (grid.share * math.sqrt(clients)))
    assert beyond * grid.length <= 2.0**-40 * 1.01
    assert reach < 12 * math.sqrt(grid.share_variance * clients)


@pytest.mark.parametrize("mechanism", ["skellam", "discrete_gaussian"])
@pytest.mark.parametrize("survivors", [4, 6, 8])
def test_the_noise_of_a_sum_has_the_law_of_its_survivors(mechanism: str, survivors: int) -> None:
    """Chi-square against the exact law for Skellam, and the declared variance, for T to n survivors."""
    grid = real("record", mechanism=mechanism, noise_multiplier=0.05).grid
    parent, draw = NoiseSource.seeded_for_tests(survivors), skellam if mechanism == "skellam" else discrete_gaussian
    key = "mu" if mechanism == "skellam" else "sigma"
    shares = [draw(parent.derive(k), 20_000, **{key: Fraction(grid.share)}) for k in range(survivors)]
    total = np.sum(shares, axis=0)
    squares = float(np.sum((total / (grid.scale * grid.noise_stddev(survivors))) ** 2))
    assert min(stats.chi2.cdf(squares, 20_000), stats.chi2.sf(squares, 20_000)) > 1e-6
    for wrong in (2 / 3, 3 / 2):
        other = squares * wrong
        assert min(stats.chi2.cdf(other, 20_000), stats.chi2.sf(other, 20_000)) < 1e-9
    stddev = grid.scale * grid.noise_stddev(survivors)
    edges = np.floor(np.linspace(-2, 2, 21) * stddev)
    counts = np.histogram(total, np.concatenate([[-np.inf], edges + 0.5, [np.inf]]))[0]
    mean = survivors * grid.share
    law = stats.skellam(mean, mean) if mechanism == "skellam" else stats.norm(0, stddev)
    shift = 0.0 if mechanism == "skellam" else 0.5
    cumulative = np.concatenate([[0.0], law.cdf(edges + shift), [1.0]])
    assert stats.chisquare(counts, np.diff(cumulative) * 20_000).pvalue > 1e-6


def test_a_plan_without_dimension_accounts_nothing() -> None:
    made = open_plan()
    for ask in (
        lambda: made.epsilon("public"),
        lambda: made.round_event("public"),
        lambda: made.noise_stddev,
        lambda: made.claim(1),
        made.client_run_event,
    ):
        with pytest.raises(PrivacyConfigError, match="not known yet"):
            ask()
    with pytest.raises(PrivacyConfigError, match="one number"):
        sized(made, 0)


def test_work_completes_the_plan_once_the_rows_are_known() -> None:
    raw = {
        "task": {"family": "spectral", "dimension": 4},
        "data": {"unit": "record"},
        "privacy": {"mode": "distributed", "noise_multiplier": 2.0},
        "federation": FEDERATION,
    }
    without = work_for(build_scenario(raw), None)
    assert without.plan.secure.dimension == 0 and without.dimension_of(3) == 12
    work = work_for(build_scenario(raw), RowDomain(("a", "b", "c")))
    assert work.plan.secure.dimension == 12 and work.plan.mechanism == "skellam"


REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("needs secure aggregation", {"secure_aggregation": "none"}),
    ("needs federation.max_clients", {"max_clients": 0}),
    ("continuous Gaussian noise", {"mechanism": "gaussian"}),
    ("must be 2 or more", {"min_clients": 1}),
    ("must be 2 or more", {"min_clients": 4, "colluders": 4}),
    ("must lie between", {"min_clients": 9}),
    ("mix the units", {"unit": "sentence"}),
]


@pytest.mark.parametrize(("match", "settings"), REFUSED)
def test_settings_without_a_claim_are_refused(match: str, settings: dict[str, Any]) -> None:
    from common.config import PrivacyConfig, TrainingConfig
    from common.privacy.plan import make_plan

    unit = settings.pop("unit", "client") if "unit" in settings else "client"
    privacy = {"mode": "distributed", "noise_multiplier": 1.0, "l2_clip_norm": 0.5}
    privacy |= {k: v for k, v in settings.items() if k == "mechanism"}
    federation = FEDERATION | {k: v for k, v in settings.items() if k != "mechanism"}
    with pytest.raises(PrivacyConfigError, match=match) as caught:
        make_plan(
            PrivacyConfig(**privacy),
            FederationConfig(**federation),
            TrainingConfig(),
            unit=unit,
            additive=False,
            natural_clip=None,
        )
    assert caught.value.hint


@pytest.mark.parametrize(
    "federation",
    [{"secure_aggregation": "full"}, {"bits": 16}, {"max_clients": 9}, {"colluders": 1}, {"roster": "roster.json"}],
)
@pytest.mark.parametrize("mode", ["none", "central", "local"])
def test_other_modes_refuse_the_settings_of_a_secure_sum(mode: str, federation: dict[str, Any]) -> None:
    from common.config import PrivacyConfig, TrainingConfig
    from common.privacy.plan import make_plan

    privacy = {"mode": mode} | ({} if mode == "none" else {"noise_multiplier": 1.0, "l2_clip_norm": 1.0})
    with pytest.raises(PrivacyConfigError, match=r"no effect in mode|offered in mode 'distributed' alone"):
        make_plan(
            PrivacyConfig(**privacy),
            FederationConfig(**federation),
            TrainingConfig(),
            unit="client",
            additive=False,
            natural_clip=None,
        )


@pytest.mark.parametrize("bits", [8, 17, 64, -16])
def test_other_numbers_of_bits_are_refused(bits: int) -> None:
    with pytest.raises(ConfigError, match="bits"):
        build_scenario({"federation": {"bits": bits}})


def test_bits_that_cannot_hold_the_sum_are_refused() -> None:
    with pytest.raises(PrivacyConfigError, match="no scale fits") as caught:
        real("record", bits=16, max_clients=100_000)
    assert "federation.bits" in caught.value.hint
    with pytest.raises(PrivacyConfigError, match="no scale fits"):
        real(noise_multiplier=1e-13)
    with pytest.raises(PrivacyConfigError, match="no scale fits"):
        real("record", epsilon=1e-5, bits=16)


def test_terms_are_checked_wherever_they_come_from() -> None:
    good = SecureSum("full", 8, 4, 0, False, 100, 16)
    for wrong in (
        {"aggregation": "none"},
        {"survivors": 1},
        {"colluders": -1},
        {"max_clients": 3},
        {"max_clients": 10**7},
        {"bits": 20},
        {"dimension": -1},
    ):
        with pytest.raises(PrivacyConfigError):
            dataclasses.replace(good, **wrong)


def test_a_plan_that_is_changed_has_the_grid_of_the_change() -> None:
    made = real(bits=32)
    louder = dataclasses.replace(made, noise_multiplier=2 * made.noise_multiplier)
    assert louder.grid != made.grid
    assert louder.noise_stddev == pytest.approx(2 * made.noise_stddev, rel=1e-6)
    assert grid_of(made.secure, made.grid_shape, made.noise_multiplier) is made.grid
