"""Flower's SuperLink, with a database that waits its turn.

With fifty sites on a busy machine a writer waits for longer than Flower's five seconds. What it then refuses is lost:
a site's answer, or the run. If Flower moves what is set here, this process says so and ends.
"""

from __future__ import annotations

import sys
from typing import Any

WAIT_MS = 60_000


def main() -> None:
    """Run ``flower-superlink`` with our own words."""
    from flwr.supercore import sql_mixin
    from flwr.superlink.cli import flower_superlink

    module: Any = sql_mixin
    module.SQLITE_PRAGMAS = patient(module.SQLITE_PRAGMAS)
    sys.argv[0] = "flower-superlink"
    flower_superlink()


def patient(pragmas: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """The settings of SQLite's connections, with our time to wait for a lock."""
    if "busy_timeout" not in dict(pragmas):
        sys.exit("Flower's SuperLink no longer says how long its database waits for a lock")
    return tuple({**dict(pragmas), "busy_timeout": str(WAIT_MS)}.items())


if __name__ == "__main__":
    main()
