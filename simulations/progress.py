"""Progress of long work on standard error: a bar on a terminal, one line a round otherwise.

Each class here follows the protocol ``server.progress.Reporter``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from server.progress import Reporter


class Silent:
    """Says nothing."""

    def preparing(self, message: str) -> None:
        """Ignore what is being prepared."""

    def round_finished(self, round: int, rounds: int, facts: Mapping[str, object]) -> None:
        """Ignore a finished round."""

    def done(self) -> None:
        """Ignore the end."""


class Lines:
    """One line for each step and round, for logs and pipes."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def preparing(self, message: str) -> None:
        """Say what is being prepared."""
        self._line(message)

    def round_finished(self, round: int, rounds: int, facts: Mapping[str, object]) -> None:
        """Say which round is over, and what it reported."""
        self._line(f"round {round}/{rounds}  {facts_shown(facts)}".rstrip())

    def done(self) -> None:
        """Say nothing: the last round's line was the end."""

    def _line(self, text: str) -> None:
        print(f"[{time.monotonic() - self._began:6.1f} s] {text}", file=sys.stderr, flush=True)


class Bar:
    """A bar over the rounds, for a terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._progress: Progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=False,
        )
        self._task: TaskID | None = None

    def preparing(self, message: str) -> None:
        """Show what is being prepared beside a bar without a length."""
        self._show(message, total=None, completed=0)

    def round_finished(self, round: int, rounds: int, facts: Mapping[str, object]) -> None:
        """Move the bar and show what the round reported."""
        self._show(f"round {round}/{rounds}  {facts_shown(facts)}".rstrip(), total=rounds, completed=round)

    def done(self) -> None:
        """Leave the bar as it stands and give the terminal back."""
        self._progress.stop()

    def _show(self, text: str, *, total: int | None, completed: int) -> None:
        if self._task is None:
            self._task = self._progress.add_task(text, total=total)
            self._progress.start()
        self._progress.update(self._task, description=text, total=total, completed=completed)


def facts_shown(facts: Mapping[str, object]) -> str:
    """``name value`` pairs on one line, floats to four digits."""
    parts = (f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in facts.items())
    return "  ".join(parts)


def reporter(*, json_output: bool = False) -> Reporter:
    """The reporter that fits where standard error goes; under ``--json`` always plain lines."""
    return Bar() if sys.stderr.isatty() and not json_output else Lines()
