"""Every attack on a protected run beside the same attack on an unprotected one; what has nothing to look at says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from common.errors import EvaluationError
from common.evaluation import leakage
from common.evaluation.leak import Leak
from common.evaluation.view import Truth, View
from common.table import IntArray
from simulations.audit.asked import rows_of
from simulations.audit.families import ordinary
from simulations.audit.planting import Planted


@dataclass(frozen=True)
class NotRun:
    """An attack that had nothing to look at, or nothing to be compared with.

    Attributes:
        attack, sees: as of the attack.
        reason: why it did not run.
    """

    attack: str
    sees: str
    reason: str


def truth_of(planted: Planted) -> Truth:
    """What is true of the real clients of an audited run."""
    asked = planted.asked
    return Truth(
        held_rows=tuple(_held(planted, k) for k in range(planted.real_clients)),
        candidates=asked.candidates,
        member=asked.member,
        interactions=asked.interactions,
        interacted=asked.interacted,
    )


def tried(
    view: View, control: View | None, truth: Truth, *, names: Sequence[str] | None = None, seed: int = 0
) -> tuple[list[Leak], list[NotRun]]:
    """All attacks that ``view`` allows, each with its figure on ``control``; and those that it does not allow."""
    found: list[Leak] = []
    refused: list[NotRun] = []
    for name in names if names is not None else leakage.names():
        attack = leakage.load(name)
        try:
            leaks = attack.run(view, truth, seed=seed)
        except EvaluationError as error:
            refused.append(NotRun(name, attack.sees, error.message))
            continue
        found += _beside(leaks, _on_control(attack, control, truth, seed))
    return found, refused


def _on_control(attack: Any, control: View | None, truth: Truth, seed: int) -> dict[str, float]:
    if control is None:
        return {}
    try:
        return {leak.metric: leak.value for leak in attack.run(control, truth, seed=seed)}
    except EvaluationError:
        return {}


def _beside(leaks: list[Leak], control: dict[str, float]) -> list[Leak]:
    return [replace(leak, control_value=control.get(leak.metric, np.nan)) for leak in leaks]


def _held(planted: Planted, index: int) -> IntArray:
    """Rows that a real client's data hold, ascending."""
    rows = rows_of(ordinary(planted.store.client(index)))
    return np.empty(0, np.int64) if rows is None else np.unique(rows)
