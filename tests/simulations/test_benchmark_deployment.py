"""The benchmark of rounds between sites at its tiny size: nothing is started, what would be submitted is sound."""

from __future__ import annotations

from pathlib import Path

from common.work import work_for
from simulations import benchmarks
from simulations.benchmarks.deployment import MODES, scenario_of


def test_quick_makes_the_scenarios_and_claims_no_bar() -> None:
    rows = benchmarks.load("deployment").run(quick=True)
    assert len(rows) == len(MODES) and all(row.holds is None and row.value > 1 for row in rows)


def test_every_site_takes_part_in_every_round() -> None:
    for mode in MODES:
        federation = work_for(scenario_of(mode, Path("words.tsv")), None).scenario.federation
        assert federation.sampling == "full" and federation.min_nodes == 3
