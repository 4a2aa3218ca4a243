"""Benchmarks against the peers of each job: one module each, with the constant ``BENCHMARK``.

``python -m simulations.benchmarks NAME [--quick] [--json FILE]`` runs one and exits 1 when a bar is missed.
"""

from __future__ import annotations

from typing import Any, Protocol

from common.discovery import load_member, member_names
from simulations.benchmarks._harness import Row

CONSTANT = "BENCHMARK"

__all__ = ["Benchmark", "Row", "load", "names"]


class Benchmark(Protocol):
    """What every benchmark has. ``name`` equals its module's name."""

    name: str

    def run(self, quick: bool) -> list[Row]:
        """Measure; ``quick`` is the tiny size that shows the code runs, where bars of speed and quality say nothing."""


def names() -> list[str]:
    """Names of all benchmarks."""
    return member_names(__name__)


def load(name: str) -> Any:
    """The benchmark called ``name``. Raises ``ConfigError`` with the nearest known name."""
    return load_member(__name__, name, CONSTANT)
