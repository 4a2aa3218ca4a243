"""What contracts share: conformance of anything that can be put on a bench."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from common.evaluation.conformance import COORDINATOR, Bench, Setup, failures
from common.evaluation.conformance.subject import toy_setup

Conforms = Callable[..., None]


@pytest.fixture
def conforms() -> Conforms:
    """Function: assert that a bench passes the checks of the given tests, T1 to T5, over some seeds."""

    def passes(bench: Bench, *tests: str, checks: Any = COORDINATOR, seeds: int = 2) -> None:
        chosen = [check for check in checks if check.test in tests]
        found = [finding for seed in range(seeds) for check in chosen for finding in check.run(bench, seed)]
        assert found and failures(found) == []

    return passes


def mechanism_bench(mechanism: str) -> Bench:
    """Two tables and a dense parameter under central noise of the given mechanism."""
    toy = toy_setup()
    return Bench(setup=Setup(dataclasses.replace(toy.plan, mechanism=mechanism), toy.specs))
