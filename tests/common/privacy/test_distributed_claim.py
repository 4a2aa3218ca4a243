"""The claim of mode distributed: what it says, and that every number in it is recomputed."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest

from common.errors import PrivacyConfigError
from common.privacy import accounting
from common.privacy.claim import plan_of, problems, recompute
from common.privacy.integer_events import DiscreteGaussianSumDpEvent

from ._distributed_toy import DIMENSION, plan
from .test_claim import altered_claim


def claim_of(unit: str = "client", **settings: Any) -> dict[str, Any]:
    made = plan(unit, **({"test_mode": False, "rounds": 3, "min_clients": 6, "colluders": 2} | settings))
    return json.loads(json.dumps(made.claim(2), allow_nan=False))


@pytest.mark.parametrize("unit", ["client", "record"])
@pytest.mark.parametrize("mechanism", ["skellam", "discrete_gaussian"])
@pytest.mark.parametrize("aggregation", ["full", "ideal"])
def test_a_claim_is_confirmed_from_its_own_content(unit: str, mechanism: str, aggregation: str) -> None:
    made = plan(unit, test_mode=False, rounds=3, mechanism=mechanism, secure_aggregation=aggregation, epsilon=4.0)
    claim = json.loads(json.dumps(made.claim(2), allow_nan=False))
    assert plan_of(claim) == made and problems(claim) == []
    for observer, value in recompute(claim).items():
        stated = claim["observers"][observer]["epsilon"]
        assert (stated is None and math.isinf(value)) or stated == value == made.epsilon(observer, 2)
    second = claim["observers"]["public"]["second_opinion"]
    if mechanism == "skellam":
        assert claim["accountants"]["first"]["name"] == "RDP" and second is None
    else:
        assert claim["accountants"]["first"]["name"] == "PLD" and second["accountant"] == "PRV"


def test_everything_about_the_sum_is_stated() -> None:
    claim = claim_of(roster="roster.json", bits=24)
    stated = claim["secure_sum"]
    grid = plan(rounds=3, min_clients=6, colluders=2, bits=24).grid
    assert stated["aggregation"] == "full" and stated["bits"] == 24 and stated["dimension"] == DIMENSION
    assert (stated["survivors"], stated["colluders"], stated["noise_shares_accounted"]) == (6, 2, 4)
    assert (stated["scale"], stated["clamp"], stated["noise_share"]) == (grid.scale, grid.clamp, grid.share)
    assert stated["coordinator"] == "identities from a signed roster"
    assert claim_of()["secure_sum"]["coordinator"] == "semi-honest coordinator"
    assert claim["mechanism"]["name"] == "skellam" and "share" in claim["mechanism"]["noise_added"]
    assert not claim["sampler"]["amplification_by_client_sampling"]


def test_words_say_what_is_not_covered() -> None:
    full, signed, ideal = claim_of(), claim_of(roster="r.json"), claim_of(secure_aggregation="ideal")
    assert "the coordinator included" in full["sentence"] and "anyone but the coordinator" in ideal["sentence"]
    assert ideal["observers"]["coordinator"]["epsilon"] is None
    assert "simulator" in ideal["observers"]["coordinator"]["reason"]
    assert any("more than 2 other clients" in gap for gap in full["not_covered"])
    assert any("fewer than 6 clients" in gap for gap in full["not_covered"])
    assert any("roster" in gap for gap in full["not_covered"]) > any("roster" in gap for gap in signed["not_covered"])
    assert any("in the clear" in gap for gap in ideal["not_covered"])
    assert any("amplifies nothing" in known for known in full["public"])


def test_other_modes_say_nothing_about_a_secure_sum() -> None:
    from .test_claim import claim_of as of_another_mode

    claim = of_another_mode("central")
    assert claim["secure_sum"] is None and problems(claim) == []
    claim["secure_sum"] = claim_of()["secure_sum"]
    assert problems(claim)


def altered(path: str, value: Any) -> dict[str, Any]:
    return altered_claim(claim_of(), path, value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("observers/public/epsilon", 0.1),
        ("observers/coordinator/epsilon", None),
        ("observers/public/event/of/variance", 1e9),
        ("observers/public/event/of/l2_sensitivity", 1.0),
        ("observers/public/event/of/l1_sensitivity", 1e6),
        ("observers/public/event/count", 1),
        ("secure_sum/aggregation", "ideal"),
        ("secure_sum/survivors", 8),
        ("secure_sum/colluders", 0),
        ("secure_sum/max_clients", 7),
        ("secure_sum/bits", 24),
        ("secure_sum/dimension", 100),
        ("secure_sum/roster", True),
        ("secure_sum/coordinator", "identities from a signed roster"),
        ("secure_sum/scale", 1.0),
        ("secure_sum/clamp", 10**6),
        ("secure_sum/noise_share", 1e6),
        ("secure_sum/noise_shares_accounted", 6),
        ("secure_sum/l2_sensitivity_in_steps", 1.0),
        ("secure_sum/sensitivity_added_by_rounding", 0.0),
        ("secure_sum/rotated", False),
        ("secure_sum/extra", 1),
        ("secure_sum", None),
        ("mechanism/noise_multiplier", 4.0),
        ("mechanism/l2_clip_norm", 0.1),
        ("mechanism/noise_stddev", 9.0),
        ("mechanism/name", "discrete_gaussian"),
        ("sampler/amplification_by_client_sampling", True),
        ("unit_is_client", False),
        ("mode", "local"),
        ("adjacency", "add or remove everything one client contributes"),
        ("not_covered", []),
        ("plan_digest", "0" * 64),
    ],
)
def test_alterations_are_noticed(path: str, value: Any) -> None:
    assert problems(altered(path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("secure_sum", "full"),
        ("secure_sum/aggregation", "none"),
        ("secure_sum/aggregation", ...),
        ("secure_sum/survivors", 1),
        ("secure_sum/survivors", 6.0),
        ("secure_sum/colluders", 6),
        ("secure_sum/max_clients", 5),
        ("secure_sum/max_clients", 10**9),
        ("secure_sum/bits", 0),
        ("secure_sum/bits", 12),
        ("secure_sum/dimension", 0),
        ("secure_sum/dimension", 2**50),
        ("secure_sum/roster", "yes"),
        ("observers/public/event/of", {"event": "skellam", "variance": 1.0}),
    ],
)
def test_malformed_claims_are_refused(path: str, value: Any) -> None:
    with pytest.raises(PrivacyConfigError):
        problems(altered(path, value))


def test_continuous_noise_in_a_stored_claim_is_refused() -> None:
    made = plan(test_mode=False)
    claim = dataclasses.replace(made, test_mode=True).claim(1)
    claim["mechanism"]["name"] = "gaussian"
    with_problems = problems(claim)
    assert any("integer noise alone" in problem for problem in with_problems)


def test_sums_of_discrete_gaussians_are_stored_strictly() -> None:
    event = DiscreteGaussianSumDpEvent(40.0, 5, 512, 900.0, 90.0)
    stored = accounting.event_to_json(event)
    assert accounting.event_from_json(json.loads(json.dumps(stored))) == event
    assert accounting.first_accountant(event) == "RDP"
    for change in (
        {"shares": 0},
        {"shares": 2.5},
        {"dimension": 0},
        {"sigma": -1.0},
        {"l1_sensitivity": 1.0},
        {"x": 1},
    ):
        with pytest.raises(PrivacyConfigError):
            accounting.event_from_json({**stored, **change})
    for name in set(stored) - {"event"}:
        with pytest.raises(PrivacyConfigError):
            accounting.event_from_json({k: v for k, v in stored.items() if k != name})
