"""Deliberately broken privacy mechanisms: every one must be killed by the check it names, the correct one by none.

A module of this package has a constant ``MUTANTS``: a tuple of mutants, each with one function of the correct code
replaced by a wrong one of a kind that has shipped somewhere. ``python -m simulations.mutants`` tries all of them.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from common.config import build_scenario
from common.discovery import load_member, member_names
from common.evaluation.conformance import CHECKS as OF_MECHANISMS
from common.evaluation.conformance import Bench, Check, Finding, Subject, failures
from common.evaluation.conformance.row_votes import row_vote_checks
from common.evaluation.conformance.secure_sum import secure_sum_checks
from common.table import RowDomain
from common.work import Work, work_for
from simulations.auditor_checks import AUDITOR
from simulations.conformance import example_setup
from simulations.neighbours import NEIGHBOURS
from simulations.protocol_checks import PROTOCOL
from simulations.trial import ledger_findings

_EXAMPLE = {
    "task": {"family": "word2vec", "dimension": 8, "subsample": 0.0},
    "data": {"unit": "sentence"},
    "privacy": {"mode": "example", "noise_multiplier": 1.3, "l2_clip_norm": 0.5, "test_mode": True},
    "training": {"local_steps": 3, "unit_rate": 0.25, "batch_size": 8, "lr": 0.1},
}
_TRIAL = {
    "task": {"family": "spectral", "dimension": 4},
    "data": {"unit": "record"},
    "vocabulary": {"source": "hashed", "buckets": 50},
    "privacy": {"noise_multiplier": 2.0},
    "federation": {"rounds": 2},
}
_KEYS = tuple(f"word{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(200))


def _ledger(bench: Bench, seed: int) -> list[Finding]:
    """T5 of a tiny federation: rounds that left, rounds charged, what is claimed."""
    return ledger_findings(_work(_TRIAL))


CHECKS: dict[str, Check] = OF_MECHANISMS | {
    c.name: c
    for c in (
        *NEIGHBOURS,
        Check("ledger", "T5", _ledger, False),
        *PROTOCOL,
        *secure_sum_checks(),
        *row_vote_checks(),
        *AUDITOR,
    )
}


@dataclass(frozen=True)
class Replacement:
    """One attribute of a class or module, and what stands in its place while a mutant is tried."""

    owner: Any
    name: str
    by: Any


@dataclass(frozen=True)
class Mutant:
    """A broken variant.

    Attributes:
        name: says what is broken.
        killed_by: the check that must notice it.
        subject: the coordinator's functions, one of them wrong; or the correct ones, with
        replacing: the function of the other code that is wrong.
    """

    name: str
    killed_by: str
    subject: Subject = field(default_factory=Subject)
    replacing: Replacement | None = None

    @contextmanager
    def installed(self) -> Iterator[Bench]:
        """What is under test, while the wrong function stands in its place."""
        bench = Bench(subject=self.subject, example=example_bench())
        if self.replacing is None:
            yield bench
            return
        owner, name = self.replacing.owner, self.replacing.name
        inherited = name not in vars(owner)
        before = vars(owner)[name] if not inherited else getattr(owner, name)
        setattr(owner, name, self.replacing.by)
        try:
            yield bench
        finally:
            if inherited:
                delattr(owner, name)
            else:
                setattr(owner, name, before)

    def findings(self, seed: int = 0) -> list[Finding]:
        """What the check that must kill it finds wrong."""
        with self.installed() as bench:
            return failures(CHECKS[self.killed_by].run(bench, seed))


def instead_of(owner: Any, name: str, by: Any) -> Replacement:
    """``by`` in the place of ``owner.name``, which must exist."""
    getattr(owner, name)
    return Replacement(owner, name, by)


def broken(name: str, killed_by: str, *, owner: Any, attribute: str, by: Any) -> Mutant:
    """A mutant that has ``by`` in the place of ``owner.attribute``."""
    return Mutant(name, killed_by, replacing=instead_of(owner, attribute, by))


CORRECT = Subject()


def correct() -> Bench:
    """Everything as it should be."""
    return Bench(example=example_bench())


@functools.cache
def example_bench() -> Any:
    """word2vec in example mode, small."""
    return example_setup(_work(_EXAMPLE))


def all_mutants() -> tuple[Mutant, ...]:
    """Every mutant of every module of this package."""
    names = [name for name in member_names(__name__) if not name.startswith("_")]
    return tuple(m for name in names for m in load_member(__name__, name, "MUTANTS"))


def _work(raw: dict[str, Any]) -> Work:
    return work_for(build_scenario(raw), RowDomain(_KEYS))
