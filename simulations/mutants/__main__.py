"""``python -m simulations.mutants [--seeds N]``: who kills which mutant; how often the correct code is accused."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from common.evaluation.conformance import failures
from simulations.commands.output import note, say, table
from simulations.mutants import CHECKS, all_mutants, correct


def main(arguments: Sequence[str] | None = None) -> int:
    """Try every mutant, then the correct code with every seed; 1 where a mutant lives or the correct is accused."""
    parser = argparse.ArgumentParser(prog="python -m simulations.mutants", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20, help="seeds of the correct code (default 20)")
    parser.add_argument("--first", type=int, default=0, help="the first of them, to share a series among processes")
    options = parser.parse_args(arguments)
    started = time.monotonic()
    rows = [(m.name, m.killed_by, "killed" if m.findings() else "ALIVE") for m in all_mutants()]
    alive = sum(row[2] == "ALIVE" for row in rows)
    for line in table(("mutant", "killed by", "verdict"), rows):
        say(line)
    say(f"{len(rows)} mutants, {alive} alive, {time.monotonic() - started:.0f} s")
    alarms = false_alarms(range(options.first, options.first + options.seeds))
    say(f"{alarms} false alarms over {options.seeds} seeds, {time.monotonic() - started:.0f} s in all")
    return 1 if alive or alarms else 0


def false_alarms(seeds: Sequence[int]) -> int:
    """How many findings accuse the correct code; checks without randomness are asked once."""
    bench, alarms = correct(), 0
    for done, seed in enumerate(seeds):
        for check in CHECKS.values():
            if check.random or done == 0:
                for finding in failures(check.run(bench, seed)):
                    note(f"seed {seed}, {check.name}: {finding.subject}: {finding.statistic}")
                    alarms += 1
        if done and done % 100 == 0:
            note(f"{done} seeds, {alarms} false alarms")
    return alarms


if __name__ == "__main__":
    sys.exit(main())
