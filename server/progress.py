"""What the server tells whoever watches: three calls, no state."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Protocol

LOGGER = logging.getLogger("fedembed")


class Reporter(Protocol):
    """Receives progress; ``facts`` are for the coordinator's own eyes and never part of a release."""

    def preparing(self, message: str) -> None:
        """Work before the first round."""

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
