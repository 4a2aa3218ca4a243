"""Quality tasks: one module each, with the constant ``TASK``, found by listing this package."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from common.discovery import load_member, member_names
from common.evaluation.score import Score
from common.table import EmbeddingTable

CONSTANT = "TASK"


class QualityTask(Protocol):
    """What every task has. ``name`` equals its module's name."""

    name: str
    needs: str  # what it scores: "table" or "encoder"
    reads_training_data: bool  # its figures are exact functions of training records: never published in private modes

    def score(self, table: EmbeddingTable, benchmark: Path | None, *, seed: int) -> list[Score]:
        """Score a table on a benchmark file; ``None`` where the task brings its own.

        Raises:
            EvaluationError: no benchmark where one is needed, nothing covered, or nothing to correlate.
        """


def names() -> list[str]:
    """Names of all tasks."""
    return member_names(__name__)


def load(name: str) -> Any:
    """The task called ``name``. Raises ``ConfigError`` with the nearest known name."""
    return load_member(__name__, name, CONSTANT)
