"""A client's epsilon over runs of different kinds, beside dp_accounting called directly and a closed form."""

from __future__ import annotations

import json
import math
from pathlib import Path

import dp_accounting as dp
import pytest
from dp_accounting.pld import PLDAccountant
from scipy import optimize, stats

from client.ledger import Ledger, Reservation
from common.errors import LedgerError
from common.privacy.accounting import event_to_json, examples_event, truncated_poisson_event
from common.privacy.integer_events import DiscreteGaussianDpEvent

DELTA = 1e-6


def local(sigma: float) -> dp.DpEvent:
    return dp.GaussianDpEvent(sigma)


def example(rate: float, sigma: float, steps: int) -> dp.DpEvent:
    return dp.SelfComposedDpEvent(dp.PoissonSampledDpEvent(rate, dp.GaussianDpEvent(sigma)), steps)


# One round of each run, and its rounds: example mode with two rates, noises and step counts; local mode twice.
RUNS = [(example(0.05, 1.5, 3), 10), (example(0.2, 4.0, 5), 4), (local(9.0), 6), (local(20.0), 3)]


def book(ledger: Ledger, runs: list[tuple[dp.DpEvent, int]], *, unit: str = "sentence", prefix: str = "run") -> None:
    for k, (event, rounds) in enumerate(runs):
        text = json.dumps(event_to_json(event), sort_keys=True)
        ledger.reserve([Reservation("data", unit, f"{prefix}{k}", f"hub{k % 2}", text, rounds, DELTA)])


def composed_directly(runs: list[tuple[dp.DpEvent, int]], delta: float) -> float:
    """Oracle: every single release composed one after the other, on dp_accounting's own distributions."""
    accountant = PLDAccountant(value_discretization_interval=1e-4)
    for event, rounds in runs:
        accountant.compose(event, rounds)
    return float(accountant.get_epsilon(delta))


def balle_wang(sigma: float, delta: float) -> float:
    """Oracle: the exact epsilon of one Gaussian (Balle and Wang 2018, theorem 8)."""

    def excess(eps: float) -> float:
        upper = stats.norm.cdf(1 / (2 * sigma) - eps * sigma)
        return float(upper - math.exp(eps) * stats.norm.cdf(-1 / (2 * sigma) - eps * sigma)) - delta

    return float(optimize.brentq(excess, 0, 100))


@pytest.fixture
def ledger(tmp_path: Path):  # type: ignore[no-untyped-def]
    with Ledger.open(tmp_path / "ledger.sqlite") as opened:
        yield opened


def test_runs_of_both_modes_compose_in_one_distribution(ledger: Ledger) -> None:
    book(ledger, RUNS)
    found = ledger.epsilon("data", "sentence", DELTA)
    assert found == pytest.approx(composed_directly(RUNS, DELTA), rel=1e-5)
    apart = sum(composed_directly([run], DELTA) for run in RUNS)
    assert max(composed_directly([run], DELTA) for run in RUNS) < found < apart


@pytest.mark.parametrize("left_out", range(len(RUNS)))
def test_a_forgotten_run_would_be_noticed(ledger: Ledger, left_out: int) -> None:
    book(ledger, RUNS[:left_out] + RUNS[left_out + 1 :])
    assert ledger.epsilon("data", "sentence", DELTA) < 0.999 * composed_directly(RUNS, DELTA)


def test_unsampled_runs_cost_the_closed_form(ledger: Ledger) -> None:
    runs = [(local(9.0), 6), (local(20.0), 3), (local(5.0), 1)]
    book(ledger, runs)
    pooled = (6 / 9.0**2 + 3 / 20.0**2 + 1 / 5.0**2) ** -0.5
    exact = balle_wang(pooled, DELTA)
    assert exact * (1 - 1e-9) <= ledger.epsilon("data", "sentence", DELTA) <= exact * 1.001


def test_units_have_accounts_of_their_own(ledger: Ledger) -> None:
    book(ledger, RUNS[:1], unit="sentence", prefix="a")
    book(ledger, RUNS[2:], unit="client", prefix="b")
    assert ledger.units("data") == ("client", "sentence")
    assert ledger.epsilon("data", "sentence", DELTA) == pytest.approx(composed_directly(RUNS[:1], DELTA), rel=1e-5)
    assert ledger.epsilon("data", "client", DELTA) == pytest.approx(composed_directly(RUNS[2:], DELTA), rel=1e-3)
    assert ledger.epsilon("data", "document", DELTA) == 0


def test_more_charges_than_reserved_are_composed_too(ledger: Ledger) -> None:
    book(ledger, RUNS)
    for attempt in range(1, 9):
        ledger.charge("run2", 1, attempt, ["data"])
    more = [*RUNS[:2], (local(9.0), 8), RUNS[3]]
    assert ledger.epsilon("data", "sentence", DELTA) == pytest.approx(composed_directly(more, DELTA), rel=1e-5)


def test_rare_events_are_kept_and_compose(ledger: Ledger) -> None:
    rare = [
        (truncated_poisson_event(8.0, rate=0.1, units=50, most_units=9), 2),
        (examples_event(12.0, rate=0.1, most_examples=2), 2),
    ]
    book(ledger, rare)
    found = ledger.epsilon("data", "sentence", DELTA)
    assert found == pytest.approx(composed_directly(rare, DELTA), rel=2e-2)
    assert found >= composed_directly(rare, DELTA) * (1 - 1e-5)
    book(ledger, [(DiscreteGaussianDpEvent(800.0, 100.0), 1)], prefix="integer")
    assert ledger.epsilon("data", "sentence", DELTA) > found


@pytest.mark.parametrize(
    "event",
    [
        {"event": "poisson_sampled", "rate": 0.1, "of": {"event": "composed", "of": []}},
        {
            "event": "poisson_sampled",
            "rate": 0.1,
            "of": {"event": "discrete_gaussian", "sigma": 1, "l2_sensitivity": 1},
        },
        {"event": "skellam", "variance": 4.0, "l1_sensitivity": 1.0, "l2_sensitivity": 2.0},
        {"event": "truncated_poisson_sampled", "units": 9, "most_units": 0, "rate": 0.1, "noise_multiplier": 1.0},
    ],
)
def test_events_without_an_accountant_are_never_booked(ledger: Ledger, event: dict[str, object]) -> None:
    with pytest.raises(LedgerError, match="accounted"):
        ledger.reserve([Reservation("data", "sentence", "r", "hub", json.dumps(event), 1, DELTA)])
    assert ledger.units("data") == ()


class Clock:
    """Tells the day that a test sets."""

    def __init__(self, day: str) -> None:
        self.day = day

    def __call__(self) -> str:
        return self.day


def test_a_period_holds_the_runs_that_were_reserved_or_charged_in_it(tmp_path: Path) -> None:
    clock = Clock("2026-01-01")
    with Ledger.open(tmp_path / "ledger.sqlite", today=clock) as ledger:
        book(ledger, RUNS[2:3], prefix="old")
        clock.day = "2026-03-01"
        book(ledger, RUNS[3:], prefix="new")
        assert sum(ledger.spent("data", "sentence").values()) == 9
        assert sum(ledger.spent("data", "sentence", since="2026-02-01").values()) == 3
        assert sum(ledger.spent("data", "sentence", since="2026-03-02").values()) == 0
        ledger.charge("old0", 1, 1, ["data"])  # a run that goes on counts in full
        assert sum(ledger.spent("data", "sentence", since="2026-02-01").values()) == 9
        ledger.verify()


def test_a_clock_that_is_put_back_hides_nothing(tmp_path: Path) -> None:
    clock = Clock("2026-03-01")
    with Ledger.open(tmp_path / "ledger.sqlite", today=clock) as ledger:
        book(ledger, RUNS[2:3], prefix="before")
        clock.day = "2025-01-01"
        book(ledger, RUNS[3:], prefix="after")
        assert sum(ledger.spent("data", "sentence", since="2026-03-01").values()) == 9
        assert [entry.run for entry in ledger.rows() if entry.kind == "day"] == ["2026-03-01"]
