"""Refusals that all statistics share: a bad number is an error, never a bound that looks like one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from common.errors import EvaluationError

REMEDY = "Correct the numbers given to the audit's statistics; common/evaluation/audit says what each one takes."


def refused(message: str) -> EvaluationError:
    """The error to raise."""
    return EvaluationError(message, remedy=REMEDY)


def require_error_rate(alpha: float) -> None:
    """Raises ``EvaluationError`` unless 0 < alpha < 1."""
    if not 0 < alpha < 1:
        raise refused(f"the error rate alpha must lie between 0 and 1, not be {alpha}")


def require_delta(delta: float, *, positive: bool = False) -> None:
    """Raises ``EvaluationError`` unless 0 <= delta < 1, or 0 < delta < 1 where it must be ``positive``."""
    if not 0 <= delta < 1 or (positive and delta == 0):
        raise refused(f"delta must be {'above' if positive else 'at least'} 0 and below 1, not {delta}")


def require_epsilon(epsilon: float) -> None:
    """Raises ``EvaluationError`` unless epsilon is finite and not negative."""
    if not (math.isfinite(epsilon) and epsilon >= 0):
        raise refused(f"epsilon must be finite and at least 0, not {epsilon}")


def require_whole(name: str, value: Any, *, at_least: int = 0) -> None:
    """Raises ``EvaluationError`` unless ``value`` is an integer of at least ``at_least``."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < at_least:
        raise refused(f"{name} must be a whole number of at least {at_least}, not {value}")


def against(scores: NDArray[np.float64], included: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The scores with every NaN where it is most wrong: last for an included canary, first for one left out."""
    return np.where(np.isnan(scores), np.where(included, -np.inf, np.inf), scores)


def as_scored(scores: ArrayLike, included: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Scores (m,) as float64 and who was included (m,) as bool; NaN is allowed and never helps.

    Raises:
        EvaluationError: shapes that differ, answers that are not booleans, or only one kind of canary.
    """
    found, answers = np.asarray(scores, dtype=np.float64), np.asarray(included)
    if answers.dtype != np.bool_ or found.ndim != 1 or answers.shape != found.shape:
        raise refused("scores and answers must be two lists of one length, the answers true or false")
    if not answers.any() or answers.all():
        raise refused("there must be canaries of both kinds: some that were included, some that were left out")
    return found, answers
