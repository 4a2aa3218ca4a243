"""Every family, found by discovery, against its contract; every broken family against the check that must see it."""

from __future__ import annotations

from typing import Any

import pytest

from common import families
from common.errors import PrivacyConfigError

from ._broken_families import BROKEN
from ._family_cases import case_for
from ._family_checks import ADDITIVE, EVERY, LOCAL, checks_for
from ._module_checks import MODULE

APPLICABLE = [(name, check) for name in families.names() for check in checks_for(families.load(name))]


@pytest.mark.parametrize(("name", "check"), APPLICABLE)
def test_family_keeps_its_contract(name: str, check: str) -> None:
    family = families.load(name)
    checks_for(family)[check](case_for(family))


def test_every_check_meets_a_family() -> None:
    assert {check for _, check in APPLICABLE} == {*EVERY, *ADDITIVE, *LOCAL, *MODULE}


@pytest.mark.parametrize("name", families.names())
def test_family_is_named_after_its_module(name: str) -> None:
    assert families.load(name).name == name


@pytest.mark.parametrize(
    ("family", "check"), BROKEN, ids=lambda value: value if isinstance(value, str) else type(value).__name__
)
def test_contract_rejects_broken_families(family: Any, check: str) -> None:
    # example mode itself refuses some of them, and a row number that was not renumbered may be out of range
    with pytest.raises((AssertionError, PrivacyConfigError, IndexError)):
        checks_for(family)[check](case_for(family))
