from __future__ import annotations

import copy
import math
from types import SimpleNamespace
from typing import Any

import pytest

from common.errors import PrivacyConfigError
from common.privacy.claim import plan_of, problems, recompute
from common.privacy.claim_words import rounded_up

from .test_plan import EXAMPLE, POISSON, made

COMBINATIONS: list[tuple[str, str, bool, dict[str, Any]]] = [
    ("central", "client", False, POISSON),
    ("central", "sentence", True, {}),
    ("local", "client", False, {}),
    ("example", "sentence", False, EXAMPLE),
    ("example", "sentence", False, {**EXAMPLE, "rows": "selected"}),
    ("none", "client", False, {}),
]


def claim_of(mode: str = "central", unit: str = "client", **settings: Any) -> dict[str, Any]:
    return made(mode, unit, additive=settings.pop("additive", False), rounds=3, **settings).claim(2)


@pytest.mark.parametrize(("mode", "unit", "additive", "settings"), COMBINATIONS)
def test_a_claim_is_confirmed_from_its_own_content(mode: str, unit: str, additive: bool, settings: Any) -> None:
    plan = made(mode, unit, additive=additive, rounds=3, **settings)
    claim = plan.claim(2)
    assert plan_of(claim) == plan
    assert problems(claim) == []
    for observer, value in recompute(claim).items():
        stated = claim["observers"][observer]["epsilon"]
        assert (stated is None and math.isinf(value)) or stated == value == plan.epsilon(observer, 2)


def test_each_observer_has_epsilon_or_a_reason() -> None:
    central = claim_of()["observers"]
    assert central["coordinator"]["epsilon"] is None and "trusted" in central["coordinator"]["reason"]
    assert central["public"]["epsilon"] > 0 and central["public"]["reason"] is None
    second = central["public"]["second_opinion"]
    assert second["lower"] - 1e-3 <= central["public"]["epsilon"] <= second["upper"] + 1e-3
    assert second["error"] == pytest.approx((second["upper"] - second["lower"]) / 2)
    assert second["accountant"] == "PRV" and central["public"]["second_opinion_reason"] is None
    assert central["coordinator"]["second_opinion_reason"] == central["coordinator"]["reason"]
    rates = central["public"]["tpr_at_fpr"]
    assert 0.01 < rates["0.01"] <= 1.0


def test_another_second_accountant_is_named_with_the_reason() -> None:
    claim = claim_of("local", noise_multiplier=0.03)
    entry = claim["observers"]["public"]
    assert entry["second_opinion"]["accountant"] == claim["accountants"]["second"]["name"] == "RDP"
    assert (
        claim["accountants"]["second"]["package"] == "dp-accounting" and "overflows" in entry["second_opinion_reason"]
    )
    assert entry["epsilon"] <= entry["second_opinion"]["upper"] and problems(claim) == []


def test_the_lack_of_a_second_opinion_has_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    from common.privacy import mechanisms
    from common.privacy.integer_events import DiscreteGaussianDpEvent

    mechanism = SimpleNamespace(name="gaussian", event=lambda sigma: DiscreteGaussianDpEvent(64 * sigma, 64.0))
    monkeypatch.setattr(mechanisms, "load", lambda name: mechanism)
    claim = claim_of("local")
    entry = claim["observers"]["public"]
    assert (
        entry["epsilon"] > 0 and entry["second_opinion"] is None and "integer noise" in entry["second_opinion_reason"]
    )
    assert claim["accountants"]["first"]["name"] == "RDP" and problems(claim) == []
    claim["accountants"]["first"]["name"] = "PLD"
    assert any("first accountant" in problem for problem in problems(claim))


def test_test_mode_voids_the_claim() -> None:
    claim = claim_of(test_mode=True)
    assert claim["void"] and "seed" in claim["void_reason"] and claim["sentence"].startswith("NOT PRIVATE")
    for entry in claim["observers"].values():
        assert entry["epsilon"] is None and entry["second_opinion"] is None and "test mode" in entry["reason"]
    assert problems(claim) == []
    claim["observers"]["public"]["epsilon"] = 1.0
    assert any("nothing protects" in p for p in problems(claim))


def test_mode_none_claims_nothing() -> None:
    claim = claim_of("none")
    assert claim["void"] and claim["sentence"].startswith("NOT PRIVATE")
    assert all(entry["epsilon"] is None for entry in claim["observers"].values())


def test_a_large_epsilon_is_called_weak() -> None:
    weak, fair = claim_of(noise_multiplier=0.3), claim_of(noise_multiplier=5.1)
    assert weak["observers"]["public"]["epsilon"] > 10 and "WEAK" in weak["sentence"] and "99.9 %" in weak["sentence"]
    assert "WEAK" not in fair["sentence"]
    assert problems(weak) == []
    weak["sentence"] = weak["sentence"].split(" WEAK")[0]
    assert any("sentence" in problem for problem in problems(weak))


def test_the_sentence_never_rounds_down() -> None:
    for sigma in (1.7, 2.3, 5.1):
        claim = claim_of(noise_multiplier=sigma)
        shown = float(claim["sentence"].split("epsilon = ")[1].split(",")[0])
        assert claim["observers"]["public"]["epsilon"] <= shown <= claim["observers"]["public"]["epsilon"] * 1.001


def test_the_sentence_says_unit_and_observer() -> None:
    assert "anyone but the coordinator" in claim_of()["sentence"]
    assert "one sentence of a client" in claim_of("central", "sentence", additive=True)["sentence"]
    assert "the coordinator included" in claim_of("local")["sentence"]


def test_only_amplified_claims_keep_the_cohort_secret() -> None:
    drawn, full = claim_of(**POISSON), claim_of("local", **POISSON)
    assert (
        drawn["sampler"]["amplification_by_client_sampling"] and not full["sampler"]["amplification_by_client_sampling"]
    )
    assert any("drawn" in gap for gap in drawn["not_covered"])
    assert any("took part" in known for known in full["public"])


def altered_claim(claim: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of ``claim`` with one field changed; ``...`` takes it out."""
    changed = copy.deepcopy(claim)
    target: Any = changed
    *folders, last = path.split("/")
    for folder in folders:
        target = target[folder]
    if value is ...:
        del target[last]
    else:
        target[last] = value
    return changed


def altered(path: str, value: Any) -> dict[str, Any]:
    return altered_claim(claim_of(**POISSON), path, value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("observers/public/epsilon", 0.1),
        ("observers/public/epsilon", None),
        ("observers/public/epsilon", "small"),
        ("observers/coordinator/epsilon", 1.0),
        ("observers/public/event/of/rate", 0.1),
        ("observers/public/event/count", 1),
        ("observers/public/event/of/of/noise_multiplier", 4.0),
        ("observers/public", ...),
        ("rounds_released", 1),
        ("mechanism/noise_multiplier", 4.0),
        ("mechanism/l2_clip_norm", 0.1),
        ("mechanism/test_mode", True),
        ("sampler/client_rate", 0.1),
        ("unit", "sentence"),
        ("unit_is_client", False),
        ("mode", "none"),
        ("delta", 1e-3),
        ("void", True),
        ("adjacency", "two data sets of my choice"),
        ("plan_digest", "0" * 64),
        ("accountants/first/name", "RDP"),
    ],
)
def test_alterations_are_noticed(path: str, value: Any) -> None:
    assert problems(altered(path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("accountants/first/name", "GDP"),
        ("accountants", ...),
        ("format", 2),
        ("delta", "tiny"),
        ("delta", 0.0),
        ("observers/public/event", {"event": "unknown"}),
        ("observers/public/event", ...),
        ("observers", []),
        ("mode", 3),
        ("void", "no"),
        ("rounds_released", None),
        ("rounds_released", True),
        ("mechanism/name", ...),
        ("mechanism/rows", "some"),
        ("mechanism/rows", "selected"),
        ("mechanism/selection_ratio", 0.5),
        ("mechanism/selection_ratio", math.nan),
        ("mechanism/selection_threshold", ...),
    ],
)
def test_malformed_claims_are_refused(path: str, value: Any) -> None:
    with pytest.raises(PrivacyConfigError):
        problems(altered(path, value))


@pytest.mark.parametrize(
    ("value", "words"), [(1.0, "1"), (3.0, "3"), (0.12341, "0.1235"), (1e-5, "1e-05"), (1.00001e-6, "1.001e-06")]
)
def test_figures_in_words_are_never_below_the_value(value: float, words: str) -> None:
    assert rounded_up(value) == words
    assert float(rounded_up(value)) >= value
