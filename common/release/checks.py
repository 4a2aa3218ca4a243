"""What verification ends with: a list of checks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from common.errors import FedembedError


@dataclass(frozen=True)
class Check:
    """One thing that was checked. A ``warning`` passed, and must be read all the same."""

    name: str
    passed: bool
    detail: str
    warning: bool = False


@dataclass(frozen=True)
class VerificationReport:
    """Every check of one release, in the order in which they were made."""

    path: Path
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return all(check.passed for check in self.checks)

    @property
    def warnings(self) -> tuple[Check, ...]:
        """What a reader must know although nothing was altered: a void certificate, a run without protection."""
        return tuple(check for check in self.checks if check.warning)


def guarded(name: str, check: Callable[[], str]) -> Check:
    """Run a check: its return value is the detail, an error of ours is the reason why it failed."""
    try:
        return Check(name, True, check())
    except FedembedError as error:
        return Check(name, False, error.message)
    except (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError) as error:
        # The files may come from anybody: a value of an unexpected kind, wherever it hides, fails the check that meets
        # it and must not keep the others from being made.
        return Check(name, False, f"malformed content ({type(error).__name__})")
