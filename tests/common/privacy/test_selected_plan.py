"""Plans, events and claims of votes and values: composed exactly, verified, and refused where nothing is known."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import math
from typing import Any

import dp_accounting as dp
import pytest

from common.config import build_scenario
from common.errors import PrivacyConfigError
from common.privacy import accounting
from common.privacy.claim import problems
from common.privacy.integer_events import SkellamDpEvent
from common.privacy.plan import PrivacyPlan
from common.table import RowDomain
from common.work import Work, work_for

DOMAIN = RowDomain(tuple(f"w{k}" for k in range(400)))
FEDERATION = {
    "rounds": 5,
    "rows": "selected",
    "secure_aggregation": "full",
    "min_clients": 70,
    "max_clients": 80,
    "rows_per_client": 10,
    "max_selected_rows": 20,
    "select_every": 2,
}


def work(family: str = "word2vec", unit: str = "client", noise: float | None = 1.0, **changes: Any) -> Work:
    privacy = {"mode": "distributed", "delta": 1e-5, "l2_clip_norm": 1.0, "selection_ratio": 2.0}
    privacy |= {"noise_multiplier": noise} if noise else {"epsilon": 4.0}
    own = {name: changes.pop(name) for name in ("mode", "mechanism", "selection_ratio") if name in changes}
    raw = {
        "task": {"family": family},
        "data": {"unit": unit},
        "privacy": privacy | own,
        "federation": FEDERATION | changes,
    }
    raw["task"] |= {"dimension": 4} if family != "image" else {}
    return work_for(build_scenario(raw), None if family == "image" else DOMAIN)


def plan(**changes: Any) -> PrivacyPlan:
    return work(**changes).plan


def test_a_run_is_its_rounds_times_values_and_its_selections_times_votes() -> None:
    made = plan()
    grid, votes = made.grid, made.vote_grid
    counted = dict(accounting.grouped(made.event("public", 5)) or ())
    values = SkellamDpEvent(2 * grid.share * 69, grid.l1_sensitivity, grid.l2_sensitivity)
    cast = SkellamDpEvent(2 * votes.share * 69, 10.0, math.sqrt(10) * (1 + 2.0**-50))
    assert counted == {values: 5, cast: 3}  # rounds 1, 3 and 5 vote
    assert dict(accounting.grouped(made.event("public", 5, 4)) or ()) == {values: 5, cast: 4}
    assert made.event("coordinator", 5) == made.event("public", 5)
    one = made.round_event("public")
    assert isinstance(one, dp.ComposedDpEvent) and set(one.events) == {values, cast}
    for every, selections in ((1, 5), (0, 1), (5, 1), (4, 2)):
        assert plan(select_every=every).selections(5) == selections


def test_both_noises_together_cost_what_one_of_the_stated_multiplier_does() -> None:
    """Skellam noise costs a little more than the Gaussian that it is close to."""
    made = plan(select_every=1)
    gaussian = dp.SelfComposedDpEvent(dp.GaussianDpEvent(1.0), 5)
    found, close = made.epsilon("public"), accounting.epsilon(gaussian, 1e-5)
    assert close < found < 1.15 * close
    assert made.value_multiplier == pytest.approx(1 / math.sqrt(1 - 1 / 4))
    assert made.grid.noise_stddev() == pytest.approx(made.value_multiplier, rel=1e-6)
    assert made.vote_grid.stddev == pytest.approx(2 * math.sqrt(10), rel=1e-6)


def test_an_epsilon_without_the_votes_would_be_too_small() -> None:
    made = plan()
    values_alone = dp.SelfComposedDpEvent(made.grid.event(), 5)
    assert accounting.epsilon(values_alone, 1e-5) < 0.97 * made.epsilon("public")
    assert made.epsilon("public", 2) < made.epsilon("public", 3)  # votes and values
    assert made.epsilon("public", 1) < made.epsilon("public", 1, 2) < made.epsilon("public", 2, 2)


@pytest.mark.parametrize("mechanism", ["skellam", "discrete_gaussian"])
@pytest.mark.parametrize("every", [0, 2])
def test_noise_is_calibrated_to_rounds_and_selections_together(mechanism: str, every: int) -> None:
    made = plan(noise=None, mechanism=mechanism, select_every=every)
    assert 0.98 * 4.0 < made.epsilon("public") <= 4.0
    assert made.max_rounds() == 5
    again = dataclasses.replace(made, secure=made.secure)
    assert again.grid == made.grid and again.vote_grid == made.vote_grid
    found = json.loads(json.dumps(made.claim(5)))
    assert problems(found) == []
    assert found["selections_released"] == (1 if every == 0 else 3)


def test_values_are_for_slots_and_not_for_rows() -> None:
    which = work()
    assert which.plan.grid.secure.dimension == 2 * 20 * 4 == which.dimension_of(400) == which.dimension_of(10_000)
    assert {spec.shape for spec in which.sum_specs} == {(20, 4)} and {s.shape for s in which.specs} == {(400, 4)}


def test_a_repeated_selection_is_claimed_and_never_fewer_than_planned() -> None:
    made = plan()
    more, fewer = made.claim(6, 5), made.claim(6, 1)
    assert more["selections_released"] == 5 and fewer["selections_released"] == 3
    assert more["observers"]["public"]["epsilon"] > fewer["observers"]["public"]["epsilon"]
    assert problems(json.loads(json.dumps(more))) == [] == problems(json.loads(json.dumps(fewer)))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("selections_released",), 2),
        (("votes", "rows_per_client"), 9),
        (("votes", "rows"), 401),
        (("votes", "threshold"), 1.0),
        (("votes", "bits"), 16),
        (("votes", "select_every"), 5),
        (("votes", "noise_share"), 1.0),
        (("mechanism", "selection_ratio"), 3.0),
        (("mechanism", "rows"), "dense"),
        (("secure_sum", "dimension"), 161),
        (("unit_is_client",), False),
    ],
)
def test_a_stored_claim_with_another_number_does_not_hold(place: tuple[str, ...], value: Any) -> None:
    claim = json.loads(json.dumps(plan().claim(5)))
    target = claim
    for name in place[:-1]:
        target = target[name]
    assert target[place[-1]] != value
    target[place[-1]] = value
    with contextlib.suppress(PrivacyConfigError):  # malformed is refused as well
        assert problems(claim)


def test_a_claim_that_leaves_the_votes_out_does_not_hold() -> None:
    claim = json.loads(json.dumps(plan().claim(5)))
    without = copy.deepcopy(claim)
    without["votes"] = None
    assert problems(without) == ["votes select the rows of mode distributed, and of it alone"]
    for entry in claim["observers"].values():
        entry["event"] = entry["event"]["of"][0]
    assert any("events are not those" in problem for problem in problems(claim))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"unit": "sentence"}, "protects the unit 'client' alone"),
        ({"family": "spectral"}, "statistic of every row"),
        ({"family": "image"}, "which rows a client holds"),
        ({"mode": "central", "secure_aggregation": "none", "max_clients": 0}, "'example' and 'distributed' alone"),
        ({"max_selected_rows": 0}, "needs federation.max_selected_rows"),
        ({"rows_per_client": 0}, "needs federation.max_selected_rows"),
        ({"max_selected_rows": 401}, "must not exceed the 400 rows"),
        ({"rows": "dense"}, "max_selected_rows has an effect"),
        ({"noise": 1e-4, "rows_per_client": 1}, "no scale fits|cannot be drawn"),
    ],
)
def test_what_is_refused_and_why(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(PrivacyConfigError, match=reason):
        work(**changes)
