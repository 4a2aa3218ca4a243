"""Conformance: exact white-box tests of a privacy mechanism, T1 to T5.

* T1 coupled neighbours: with the same noise, one adversarial unit more moves the release by at most C; a unit that
  takes no part moves nothing, at any number of units.
* T2 residual scale: what is released less the clipped sum has the declared variance, array by array.
* T3 whiteness: no correlation in time, across dimensions, rows or tables; no row without noise.
* T4 sampler: rate, dispersion of every member's and every cohort's count, bounded contributions.
* T5 ledger: releases counted by somebody else are those accounted; a second accountant finds the same epsilon.

They need the source of noise seeded, so they test the code and the settings, not one run's secret numbers. What no test
here sees: a predictable operating system's generator, floating-point attacks, a wrong choice of unit, side channels.
"""

from common.evaluation.conformance.checks import (
    CHECKS,
    CLAIMS,
    COORDINATOR,
    ENGINE,
    ENGINE_ROWS,
    EXAMPLE_MODE,
    Bench,
    Check,
)
from common.evaluation.conformance.engine import EngineSubject
from common.evaluation.conformance.example_mode import ExampleSetup
from common.evaluation.conformance.findings import Finding, failures
from common.evaluation.conformance.subject import Setup, Subject

__all__ = [
    "CHECKS",
    "CLAIMS",
    "COORDINATOR",
    "ENGINE",
    "ENGINE_ROWS",
    "EXAMPLE_MODE",
    "Bench",
    "Check",
    "EngineSubject",
    "ExampleSetup",
    "Finding",
    "Setup",
    "Subject",
    "failures",
]
