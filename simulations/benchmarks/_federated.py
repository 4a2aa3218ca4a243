"""Runs for benchmarks: clients encoded once, then many scenarios on them, each through the whole product."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.config import Scenario, build_scenario
from common.release import load_release
from common.table import EmbeddingTable
from common.units import ClientStore
from server.progress import LogReporter
from simulations.federation import enrolled_work, prepared_clients, run_locally


def scenario(*parts: Mapping[str, Any]) -> Scenario:
    """A scenario from sections; where several parts have one section, later keys win."""
    merged: dict[str, Any] = {}
    for part in parts:
        for section, values in part.items():
            merged[section] = {**merged.get(section, {}), **values} if isinstance(values, Mapping) else values
    return build_scenario(merged)


def privacy(mode: str, epsilon: float | None, delta: float) -> dict[str, Any]:
    """The section ``[privacy]``; ``None`` is no privacy.

    Noise is seeded (``test_mode``), so that a table of figures can be made again; it has the distribution and the
    strength of a run whose claim counts.
    """
    if epsilon is None:
        return {"privacy": {"mode": "none"}}
    return {"privacy": {"mode": mode, "epsilon": epsilon, "delta": delta, "test_mode": True}}


def clients_of(chosen: Scenario, folder: Path) -> ClientStore:
    """Read and encode the clients of a scenario; a split for recommendation lands in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    return prepared_clients(enrolled_work(chosen), folder, LogReporter())


def table_of(chosen: Scenario, store: ClientStore, name: str) -> EmbeddingTable:
    """Train by the in-process engine, ledger and certificate included, and return a table of the release."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder).resolve()
        run_config = {"scenario": chosen.canonical_json(), "out": str(out), "benchmarks": "{}", "simulation": str(out)}
        run_locally(store, out, run_config, LogReporter())
        return load_release(out / "release").tables[name]
