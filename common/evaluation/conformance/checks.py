"""All conformance checks by name: what mutants refer to. docs/sharp_edges.md says what each prevents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from common.evaluation.conformance import (
    claims,
    coupled,
    engine_checks,
    engine_selection,
    example_mode,
    noise,
    refusals,
    sampler,
)
from common.evaluation.conformance.engine import EngineSubject
from common.evaluation.conformance.example_mode import ExampleSetup
from common.evaluation.conformance.findings import Finding
from common.evaluation.conformance.subject import Setup, Subject, toy_setup


@dataclass(frozen=True)
class Bench:
    """Everything under test, with the settings that it is tried in.

    Attributes:
        subject, setup: the coordinator's mechanism.
        engine: the table engine.
        example: a family in example mode; without one its checks report nothing.
    """

    subject: Subject = field(default_factory=Subject)
    setup: Setup = field(default_factory=toy_setup)
    engine: EngineSubject = field(default_factory=EngineSubject)
    example: ExampleSetup | None = None


@dataclass(frozen=True)
class Check:
    """``run(bench, seed)`` says what was found; ``random``: other seeds are other trials."""

    name: str
    test: str
    run: Callable[[Bench, int], list[Finding]]
    random: bool = True


def _of_subject(function: Callable[[Subject, Setup, int], list[Finding]], test: str, *, random: bool = True) -> Check:
    return Check(function.__name__, test, lambda bench, seed: function(bench.subject, bench.setup, seed), random)


def _of_engine(function: Callable[[EngineSubject, int], list[Finding]], test: str, *, random: bool = True) -> Check:
    return Check(function.__name__, test, lambda bench, seed: function(bench.engine, seed), random)


def _of_example(function: Callable[[ExampleSetup, int], list[Finding]], test: str) -> Check:
    def run(bench: Bench, seed: int) -> list[Finding]:
        return [] if bench.example is None else function(bench.example, seed)

    return Check(function.__name__, test, run)


COORDINATOR = (
    _of_subject(coupled.sensitivity, "T1"),
    _of_subject(coupled.total_clip, "T1"),
    _of_subject(coupled.cardinality, "T1"),
    _of_subject(noise.noise_scale, "T2"),
    _of_subject(noise.whiteness, "T3"),
    _of_subject(noise.fresh_noise, "T3"),
    _of_subject(coupled.support, "T3"),
    _of_subject(noise.tails, "T3"),
    _of_subject(noise.secret_source, "T3"),
    _of_subject(sampler.poisson_draw, "T4"),
)
CLAIMS = (
    _of_subject(claims.adjacency, "T5", random=False),
    _of_subject(claims.second_accountant, "T5", random=False),
    _of_subject(claims.composition, "T5", random=False),
    _of_subject(claims.no_amplification, "T5", random=False),
    _of_subject(claims.trusted_coordinator, "T5", random=False),
    _of_subject(claims.upper_bound, "T5", random=False),
)
EXAMPLE_MODE = (
    _of_example(example_mode.example_sensitivity, "T1"),
    _of_example(example_mode.example_cardinality, "T1"),
    _of_example(example_mode.example_noise, "T2"),
    _of_example(example_mode.example_whiteness, "T3"),
    _of_example(example_mode.example_sampler, "T4"),
)
ENGINE = (
    _of_engine(engine_checks.table_sensitivity, "T1"),
    _of_engine(engine_checks.table_units, "T1"),
    _of_engine(engine_checks.table_cardinality, "T1"),
    _of_engine(engine_selection.vote_sensitivity, "T1"),
    _of_engine(engine_checks.table_noise, "T2"),
    _of_engine(engine_checks.table_reads, "T2"),
    _of_engine(engine_selection.false_positives, "T2"),
    _of_engine(engine_checks.table_whiteness, "T3"),
    _of_engine(engine_checks.own_randomness, "T3"),
    _of_engine(engine_selection.dropped_rows, "T3"),
    _of_engine(refusals.refusals, "T1", random=False),
    Check("unit_sampler", "T4", lambda bench, seed: sampler.unit_sampler(seed)),
    _of_engine(engine_selection.engine_account, "T5", random=False),
    _of_engine(engine_selection.one_event, "T5", random=False),
)


def _beside(check: Check) -> Check:
    """The same check, its findings marked as the table engine's: they stand beside those of a family."""

    def run(bench: Bench, seed: int) -> list[Finding]:
        return [replace(found, subject=f"table engine: {found.subject}") for found in check.run(bench, seed)]

    return replace(check, run=run)


def _engine_checks(*names: str) -> tuple[Check, ...]:
    return tuple(_beside(check) for check in ENGINE if check.name in names)


# What is shared between example mode and the table engine, by the rows of a plan: clip, sums, and the rows' guard.
ENGINE_ROWS: dict[str, tuple[Check, ...]] = {
    "dense": _engine_checks("table_sensitivity", "table_cardinality", "table_noise", "table_reads", "table_whiteness"),
    "selected": _engine_checks("vote_sensitivity", "false_positives", "dropped_rows", "one_event"),
}
CHECKS: dict[str, Check] = {c.name: c for c in (*COORDINATOR, *CLAIMS, *EXAMPLE_MODE, *ENGINE)}
