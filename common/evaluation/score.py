"""One measured figure, always with its interval, its coverage and the baseline it must be read beside."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from common.errors import EvaluationError


@dataclass(frozen=True)
class Score:
    """The value of one metric on one benchmark.

    Attributes:
        task: which benchmark (``similarity:wordsim353``).
        metric: what is measured (``spearman``, ``hit_rate@10``); part of the identity of the figure.
        value: the figure itself.
        ci_low: lower end of its 95 % interval; NaN when no interval was computed.
        ci_high: upper end of its 95 % interval; NaN when no interval was computed.
        n: number of items (pairs, users, questions) behind the figure.
        coverage: share of the benchmark's items that the table could answer, in [0, 1].
        higher_is_better: direction of improvement.
        baseline_name: what ``baseline_value`` is (``random table``, ``popularity``); empty when there is none.
        baseline_value: the same metric reached by the baseline; NaN when there is none.
    """

    task: str
    metric: str
    value: float
    ci_low: float
    ci_high: float
    n: int
    coverage: float
    higher_is_better: bool
    baseline_name: str
    baseline_value: float

    @property
    def beats_baseline(self) -> bool | None:
        """Whether the whole interval lies on the better side of the baseline; ``None`` when that cannot be said."""
        worst = self.ci_low if self.higher_is_better else self.ci_high
        if math.isnan(worst) or math.isnan(self.baseline_value):
            return None
        return worst > self.baseline_value if self.higher_is_better else worst < self.baseline_value

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary; NaN becomes ``None`` because JSON has no NaN."""
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(self).items()}

    @classmethod
    def from_json(cls, data: Any) -> Score:
        """Inverse of ``to_json``.

        Raises:
            EvaluationError: ``data`` is not a score: a field is missing, unknown or of the wrong type.
        """
        names = {f.name for f in fields(cls)}
        if not isinstance(data, Mapping) or set(data) != names:
            raise EvaluationError(f"a score has exactly the fields {', '.join(sorted(names))}")
        values = dict(data)
        for name in ("value", "ci_low", "ci_high", "coverage", "baseline_value"):
            values[name] = _number(name, values[name])
        if any(not isinstance(values[name], str) for name in ("task", "metric", "baseline_name")):
            raise EvaluationError("task, metric and baseline_name of a score are strings")
        if not isinstance(values["n"], int) or not isinstance(values["higher_is_better"], bool):
            raise EvaluationError("n of a score is an integer and higher_is_better is true or false")
        return cls(**values)


def _number(name: str, value: Any) -> float:
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise EvaluationError(f"{name} of a score is a number or null, not {type(value).__name__}")
    return float(value)
