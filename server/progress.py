"""What the server tells whoever watches: three calls, no state."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from common.deployment.journal import Journal
from common.errors import FedembedError

ROUNDS_FILE = "rounds.jsonl"
LOGGER = logging.getLogger("fedembed")


class Reporter(Protocol):
    """Receives progress; ``facts`` are for the coordinator's own eyes and never part of a release."""

    def preparing(self, message: str) -> None:
        """Work before a round; who takes part."""

    def round_finished(self, round: int, rounds: int, facts: Mapping[str, object]) -> None:
        """A round was applied and its checkpoint is on disk."""

    def done(self) -> None:
        """Nothing follows."""


class LogReporter:
    """One log line a step: for apps that run without a terminal."""

    def preparing(self, message: str) -> None:
        LOGGER.info("%s", message)

    def round_finished(self, round: int, rounds: int, facts: Mapping[str, object]) -> None:
        LOGGER.info("round %d/%d %s", round, rounds, " ".join(f"{k}={v}" for k, v in facts.items()))

    def done(self) -> None:
        LOGGER.info("done")


class JournalReporter:
    """One JSON object a step, in ``rounds.jsonl`` of the run's folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._journal = Journal(folder / ROUNDS_FILE)

    def preparing(self, message: str) -> None:
        self._journal.write("preparing", {"message": message})

    def round_finished(self, round: int, rounds: int, facts: Mapping[str, object]) -> None:
        self._journal.write("round", {"round": round, "rounds": rounds, **facts})

    def done(self) -> None:
        self._journal.write("done", {})

    def failed(self, error: FedembedError) -> None:
        """The run ends with this error."""
        self._journal.write("failed", {"error": type(error).__name__, "message": error.message, "remedy": error.hint})
