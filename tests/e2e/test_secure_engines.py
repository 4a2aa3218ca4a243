"""Secure aggregation through all three engines: in process, on Ray, and between sites of a signed roster."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.ledger import Ledger
from common.config import Scenario, build_scenario
from common.release import load_release
from common.secagg.keys import Identity
from common.secagg.roster import Roster
from server.progress import LogReporter
from simulations.federation import run_simulation
from tests.e2e.deployment import SITES, deployment, planted_texts, run_config_for, run_to_end, site_files


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three text files, one a site, and a public vocabulary beside them."""
    return planted_texts(tmp_path_factory.mktemp("data"), every=30)


def scenario(data: Path, **federation: Any) -> Scenario:
    """Test mode: the noise is seeded by the clients' names, so that engines can be compared."""
    return build_scenario(
        {
            "task": {"family": "word2vec", "dimension": 4},
            "data": {"reader": "text", "path": str(data / "texts"), "unit": "client"},
            "vocabulary": {"path": str(data / "words.tsv")},
            "privacy": {"mode": "distributed", "noise_multiplier": 0.1, "l2_clip_norm": 1.0, "test_mode": True},
            "training": {"local_steps": 2, "batch_size": 8},
            "federation": {
                "rounds": 1,
                "secure_aggregation": "full",
                "min_clients": 3,
                "max_clients": 3,
                **federation,
            },
        }
    )


def vectors(out: Path) -> np.ndarray:
    return load_release(out / "release").tables["words"].vectors


@pytest.fixture(scope="module")
def in_process(data: Path, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    out = tmp_path_factory.mktemp("in-process")
    run_simulation(scenario(data), out=out, engine="local", reporter=LogReporter())
    return vectors(out)


def test_ray_gives_the_same_table(data: Path, in_process: np.ndarray, tmp_path: Path) -> None:
    run_simulation(scenario(data), out=tmp_path, engine="ray", reporter=LogReporter())
    np.testing.assert_allclose(vectors(tmp_path), in_process, rtol=1e-4, atol=1e-6)


@pytest.mark.deployment
def test_sites_of_a_roster_give_the_same_table(data: Path, in_process: np.ndarray, tmp_path: Path) -> None:
    organiser = Identity.fresh(os.urandom)
    identities = {name: Identity.fresh(os.urandom) for name in SITES}
    roster = tmp_path / "roster.json"
    roster.write_bytes(Roster.signed({n: i.public for n, i in identities.items()}, organiser).to_bytes())
    sites = []
    for name in SITES:
        site = site_files(tmp_path, name, data / "texts" / f"{name}.txt")
        (site / "identity.key").write_bytes(identities[name].to_pem())
        described = (site / "site.toml").read_text()
        pinned = f'identity = "identity.key"\nroster = "{roster}"\norganiser = "{organiser.public.hex()}"\n'
        (site / "site.toml").write_text(f"{described}\n[secure_aggregation]\n{pinned}")
        (site / "policy.toml").write_text(
            'max_epsilon = inf\nmax_delta = 1e-3\nmodes = ["distributed"]\ntest_mode = true\nroster_required = true\n'
        )
        sites.append(site)
    out = tmp_path / "coordinator"
    which = scenario(data, min_nodes=3, roster=str(roster))
    with deployment(tmp_path / "flower", sites, run_config_for(which, out)) as (app, environment):
        run_to_end(app, environment)
    np.testing.assert_allclose(vectors(out), in_process, rtol=1e-4, atol=1e-6)
    for site in sites:
        with Ledger.open(site / "state" / "ledger.sqlite", create=False) as ledger:
            assert [charges for _, charges in ledger.accounts()] == [1]
