"""``python -m simulations.benchmarks NAME [--quick] [--json FILE] [--peers DIR]``."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from common.errors import FedembedError
from simulations import benchmarks
from simulations.benchmarks import _harness, _peers


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one benchmark. Returns 0 when every bar holds, 1 when one is missed, an error's own exit code otherwise."""
    parser = argparse.ArgumentParser(prog="python -m simulations.benchmarks", description=benchmarks.__doc__)
    parser.add_argument("name", metavar="NAME", help=f"one of: {', '.join(benchmarks.names())}")
    parser.add_argument("--quick", action="store_true", help="the tiny size: shows that it runs, proves no bar")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the result as JSON")
    parser.add_argument(
        "--peers", metavar="DIR", help="compare with peers that need environments of their own, kept here"
    )
    chosen = parser.parse_args(arguments)
    if chosen.peers:
        os.environ[_peers.FOLDER_VARIABLE] = chosen.peers
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what a benchmark has started ends with it
    try:
        return _run(chosen.name, quick=chosen.quick, path=chosen.json)
    except FedembedError as error:
        print(f"error: {error.message}\n{error.hint}", file=sys.stderr)
        return error.exit_code


def _run(name: str, *, quick: bool, path: Path | None) -> int:
    start = time.perf_counter()
    rows = benchmarks.load(name).run(quick)
    result = _harness.as_json(name, rows, quick=quick, seconds=time.perf_counter() - start)
    print(_harness.table(rows))
    if path is not None:
        _harness.write_json(path, result)
    return 1 if _harness.missed(rows) else 0


if __name__ == "__main__":
    sys.exit(main())
