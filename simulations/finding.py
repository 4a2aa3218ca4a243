"""One thing that ``fedembed doctor`` looked at."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One thing looked at.

    Attributes:
        topic: what was looked at.
        found: what is there, for a reader.
        level: ``ok``, ``note`` (works, worth knowing) or ``missing`` (something required is not there or not right).
    """

    topic: str
    found: str
    level: str = "ok"
