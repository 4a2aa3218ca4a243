"""The policy: what a client refuses, in which words, and that a policy file cannot be half understood."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from client.policy import Policy, Refusal, check, check_colluders, check_message, check_spend, read_policy
from common.errors import ConfigError

POLICY = Policy(max_epsilon=4.0, families=("spectral",), units=("client", "sentence"), max_rounds=10)
TERMS: dict[str, Any] = {
    "mode": "local",
    "family": "spectral",
    "unit": "client",
    "epsilon": 3.0,
    "delta": 1e-6,
    "rounds": 5,
    "test_mode": False,
}


def refused(policy: Policy = POLICY, **changed: Any) -> Refusal:
    refusal = check(policy, **(TERMS | changed))
    assert refusal is not None
    return refusal


def test_terms_within_the_limits_are_allowed() -> None:
    assert check(POLICY, **TERMS) is None
    assert check(POLICY, **(TERMS | {"epsilon": 4.0, "rounds": 10, "delta": 1e-5})) is None


@pytest.mark.parametrize(
    ("changed", "code", "words"),
    [
        ({"mode": "central"}, "mode", "'central' is not among those allowed: example, local"),
        ({"mode": "none"}, "mode", "'none'"),
        ({"family": "word2vec"}, "family", "'word2vec' is not among those allowed: spectral"),
        ({"unit": "record"}, "unit", "'record' is not among those allowed: client, sentence"),
        ({"rounds": 11}, "rounds", "11 rounds are asked for, between 1 and 10"),
        ({"rounds": 0}, "rounds", "0 rounds"),
        ({"delta": 1e-4}, "delta", "0.0001 exceeds the limit 1e-05"),
        ({"delta": float("nan")}, "delta", "nan"),
        ({"epsilon": 4.001}, "epsilon", "4.001, the limit is 4"),
        ({"epsilon": float("inf")}, "epsilon", "inf"),
        ({"epsilon": float("nan")}, "epsilon", "nan"),
    ],
)
def test_each_limit_refuses_with_its_numbers(changed: dict[str, Any], code: str, words: str) -> None:
    refusal = refused(**changed)
    assert refusal.code == code
    assert words in refusal.message


def test_spend_over_the_budget_is_refused() -> None:
    assert check_spend(POLICY, unit="client", before=1.0, after=4.0) is None
    refusal = check_spend(POLICY, unit="client", before=3.5, after=4.25)
    assert refusal is not None and refusal.code == "budget"
    assert "from 3.5 to 4.25 for unit 'client', the limit is 4" in refusal.message
    for bad in (float("nan"), float("inf")):
        assert check_spend(POLICY, unit="client", before=0.0, after=bad) is not None


def test_a_second_unit_needs_permission() -> None:
    refusal = check_spend(POLICY, unit="sentence", before=0.0, after=1.0, other_units=1)
    assert refusal is not None and refusal.code == "mixed_units"
    mixed = POLICY.model_copy(update={"mixed_units": True})
    assert check_spend(mixed, unit="sentence", before=0.0, after=1.0, other_units=1) is None


def test_messages_have_a_limit() -> None:
    policy = Policy(max_epsilon=1, max_message_bytes=1000)
    assert check_message(policy, 1000) is None
    refusal = check_message(policy, 1001)
    assert refusal is not None and refusal.code == "message_bytes" and "1,001 bytes" in refusal.message


@settings(max_examples=30, deadline=None)
@given(
    mode=st.sampled_from(["none", "central", "local", "example"]),
    family=st.sampled_from(["word2vec", "x"]),
    unit=st.sampled_from(["client", "edge", "*"]),
    epsilon=st.floats(0, allow_nan=False),
    rounds=st.integers(1, 2**31 - 1),
)
def test_the_permissive_policy_allows_every_run(**terms: Any) -> None:
    policy = Policy.permissive()
    assert check(policy, **terms, delta=1e-6, test_mode=True) is None
    assert check_spend(policy, unit="u", before=0.0, after=terms["epsilon"], other_units=3) is None
    assert not policy.limits_spend
    assert POLICY.limits_spend


@settings(max_examples=50, deadline=None)
@given(limit=st.floats(0, 100), epsilon=st.floats(allow_nan=True))
def test_nothing_above_the_limit_passes(limit: float, epsilon: float) -> None:
    allowed = check(Policy(max_epsilon=limit), **(TERMS | {"epsilon": epsilon})) is None
    assert allowed == (epsilon <= limit and limit > 0)


def test_a_policy_file(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text('max_epsilon = 2\nmodes = ["example"]\nunits = ["record"]\nmax_rounds = 7\n')
    assert read_policy(path) == Policy(max_epsilon=2.0, modes=("example",), units=("record",), max_rounds=7)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "max_epsilon: Field required"),
        ("max_epsilon = 1\nmax_epsilom = 2", "unknown key 'max_epsilom'; did you mean 'max_epsilon'?"),
        ("max_epsilon = 1\n[limits]\nrounds = 3", "unknown key 'limits'"),
        ("max_epsilon = -1", "max_epsilon: Input should be greater than or equal to 0"),
        ("max_epsilon = nan", "max_epsilon"),
        ('max_epsilon = "much"', "max_epsilon"),
        ("max_epsilon = 1\nmax_delta = 0", "max_delta"),
        ("max_epsilon = 1\nmax_rounds = 0", "max_rounds"),
        ('max_epsilon = 1\nmodes = ["lokal"]', "no mode 'lokal'; did you mean 'local'?"),
        ('max_epsilon = 1\nmodes = "local"', "modes"),
        ("max_epsilon =", "cannot read policy"),
    ],
)
def test_policy_files_that_are_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_policy(path)
    assert words in caught.value.message
    assert str(path) in caught.value.message


def test_unreadable_policy_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no policy file"):
        read_policy(tmp_path / "absent.toml")
    with pytest.raises(ConfigError, match="cannot read"):
        read_policy(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b"# \xe9\nmax_epsilon = 1\n")
    with pytest.raises(ConfigError, match="cannot read"):
        read_policy(tmp_path / "latin.toml")


def test_a_policy_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        POLICY.max_epsilon = 100.0  # type: ignore[misc]


def test_noise_for_too_few_colluders_is_refused() -> None:
    policy = Policy(max_epsilon=1, min_colluders=3)
    assert check_colluders(policy, 3) is None
    refusal = check_colluders(policy, 2)
    assert refusal is not None and refusal.code == "colluders"
    assert "allows for 2 colluding clients, at least 3" in refusal.message
    assert check_colluders(Policy(max_epsilon=1), 0) is None
