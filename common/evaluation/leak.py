"""One measured leak: how well an attack did, beside chance and beside the same attack on an unprotected run."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Leak:
    """The success of one attack.

    Attributes:
        attack: name of the attack.
        sees: what the adversary has seen (``common.evaluation.leakage.SIGHTS``).
        metric: what is measured (``f1``, ``auc``, ``tpr@0.01``); higher always means that more leaks.
        value: the attack's success.
        ci_low, ci_high: 95 % interval; NaN where none was computed.
        n: number of candidates (clients, pairs, units) behind the figure.
        chance_name: what ``chance_value`` is: ``most popular rows``, ``coin``, ``most frequent label``.
        chance_value: what is reached without having seen anything.
        promised: whether the guarantee speaks about this.
        control_value: the same attack on the same data without protection; NaN where none was run.
    """

    attack: str
    sees: str
    metric: str
    value: float
    ci_low: float
    ci_high: float
    n: int
    chance_name: str
    chance_value: float
    promised: bool
    control_value: float = math.nan

    @property
    def above_chance(self) -> bool | None:
        """Whether the whole interval lies above chance; ``None`` where no interval was computed."""
        return None if math.isnan(self.ci_low) else self.ci_low > self.chance_value

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary; NaN becomes ``None`` because JSON has no NaN."""
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(self).items()}
