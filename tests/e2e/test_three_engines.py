"""One small scenario through all three engines: in process, on Ray, and on a SuperLink with three SuperNodes."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest

from client.ledger import Ledger
from common.config import Scenario, build_scenario
from common.deployment.flower import background, free_port, wait_for_port
from common.errors import RoundError
from common.release import load_release
from server.progress import LogReporter
from simulations.federation import run_simulation
from tests.e2e.deployment import SITES, deployment, planted_texts, run_config_for, run_to_end, site_files


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three text files, one a site, and a public vocabulary beside them."""
    return planted_texts(tmp_path_factory.mktemp("data"), every=20)


def scenario(data: Path) -> Scenario:
    """Local training with every kind of randomness in it, in seeded test mode so that engines can be compared."""
    return build_scenario(
        {
            "task": {"family": "word2vec", "dimension": 8, "shared_negatives": 16},
            "data": {"reader": "text", "path": str(data / "texts"), "unit": "client"},
            "vocabulary": {"path": str(data / "words.tsv")},
            "privacy": {"mode": "local", "noise_multiplier": 0.01, "l2_clip_norm": 1.0, "test_mode": True},
            "federation": {"rounds": 2, "min_nodes": 1},
            "training": {"local_steps": 4, "batch_size": 8},
            "server": {"optimizer": "adagrad", "lr": 0.1},
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
def test_a_running_ray_cluster_is_used_by_address(
    data: Path, in_process: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    command = ["ray", "start", "--head", "--block", f"--port={port}", "--num-cpus=1", "--include-dashboard=false"]
    with tempfile.TemporaryDirectory(prefix="ray") as short:  # Ray's sockets lie in it: pytest's own path is too long
        environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
        log = tmp_path / "ray.log"
        with background([*command, f"--temp-dir={short}"], cwd=tmp_path, environment=environment, log=log) as process:
            wait_for_port(port, process, log)
            monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
            run_simulation(scenario(data), out=tmp_path / "run", engine="ray", reporter=LogReporter())
            drivers = list(Path(short).glob("session_latest/logs/python-core-driver-*"))
    assert drivers  # the simulation was a job of this cluster
    np.testing.assert_allclose(vectors(tmp_path / "run"), in_process, rtol=1e-4, atol=1e-6)


def test_a_ray_address_without_a_cluster_is_refused_at_once(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{free_port()}")
    with pytest.raises(RoundError, match="no Ray cluster answers"):
        run_simulation(scenario(data), out=tmp_path, engine="ray", reporter=LogReporter())


def test_deployment_gives_the_same_table(data: Path, in_process: np.ndarray, tmp_path: Path) -> None:
    sites = [site_files(tmp_path, name, data / "texts" / f"{name}.txt") for name in SITES]
    which = scenario(data)
    which = which.model_copy(update={"federation": which.federation.model_copy(update={"min_nodes": 3})})
    out = tmp_path / "coordinator"
    with deployment(tmp_path / "flower", sites, run_config_for(which, out)) as (app, environment):
        run_to_end(app, environment)
    np.testing.assert_allclose(vectors(out), in_process, rtol=1e-4, atol=1e-6)
    assert load_release(out / "release").certificate["void"]
    for site in sites:
        with Ledger.open(site / "state" / "ledger.sqlite", create=False) as ledger:
            ledger.verify()
            assert [charges for _, charges in ledger.accounts()] == [2]
