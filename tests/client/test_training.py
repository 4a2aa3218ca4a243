"""A client whose data break the arithmetic contributes nothing, and nobody can tell from an error."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from client import training as training_module
from client.device import Device
from client.training import Randomness, client_updates, isolated_updates, local_training
from common.config import build_scenario
from common.errors import ConfigError
from common.families import LocalTraining
from common.privacy.rng import NoiseSource
from common.table import RowDomain
from common.units import Record, Units, joined
from common.update import UpdateBatch
from common.work import Work, work_for

DOMAIN = RowDomain(("wa", "wb", "wc"))


def work(mode: str) -> Work:
    privacy = {"mode": mode} if mode == "none" else {"mode": mode, "noise_multiplier": 1.0, "delta": 1e-5}
    data = {"unit": "record"}
    return work_for(
        build_scenario({"task": {"family": "spectral", "dimension": 2}, "data": data, "privacy": privacy}), DOMAIN
    )


def updates(which: Work, clients: list[Units]):
    start = which.family.initial(which.options, which.specs, DOMAIN, 0)
    randomness = [Randomness(k, NoiseSource.from_os()) for k in range(len(clients))]
    return client_updates(which, start, clients, training=local_training(which, 1), randomness=randomness)


@pytest.fixture
def clients() -> list[Units]:
    which = work("none")
    return [which.family.encode([Record("c", str(k), "wa wb")] * (k + 1), DOMAIN, which.options) for k in range(3)]


@pytest.fixture
def second_fails(monkeypatch: pytest.MonkeyPatch, clients: list[Units]) -> None:
    from common.families.spectral import FAMILY

    original = FAMILY.contributions
    bad = int(clients[1].columns["weight"].view(np.int32)[0])

    def contributions(parameters, units, options):
        if bad in units.columns["weight"].view(np.int32):
            raise np.linalg.LinAlgError("Singular matrix")
        return original(parameters, units, options)

    monkeypatch.setattr(type(FAMILY), "contributions", staticmethod(contributions))


def test_one_failure_costs_that_client_alone(clients: list[Units], second_fails: None) -> None:
    clients[0], clients[2] = (Units(c.offsets, {**c.columns, "weight": c.columns["weight"] * 3}) for c in clients[::2])
    batch = updates(work("central"), clients)
    sizes = np.diff(batch.rows["rows"].offsets)
    assert sizes[1] == 0
    assert sizes[0] > 0
    assert sizes[2] > 0


def test_a_failure_of_all_is_a_fault_of_the_program(clients: list[Units], second_fails: None) -> None:
    with pytest.raises(np.linalg.LinAlgError):
        updates(work("central"), [clients[1], clients[1]])
    with pytest.raises(np.linalg.LinAlgError):
        updates(work("none"), [clients[1]])


def test_one_unit_that_fails_costs_its_client_nothing_else(clients: list[Units], second_fails: None) -> None:
    """Else a unit more or less would change everything that its client contributes."""
    bad, good = (
        clients[1].take(np.array([0])),
        Units(clients[0].offsets, {**clients[0].columns, "weight": clients[0].columns["weight"] * 3}),
    )
    with_bad, without = (
        updates(work("central"), [joined([good, bad, good])]),
        updates(work("central"), [joined([good, good])]),
    )
    np.testing.assert_array_equal(with_bad.rows["rows"].values, without.rows["rows"].values)
    assert np.any(without.rows["rows"].values)


def test_so_does_one_that_is_computed_alone(
    clients: list[Units], second_fails: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client.training.UNITS_PER_CHUNK", 2)  # as the last of 1,025 units would be
    test_one_unit_that_fails_costs_its_client_nothing_else(clients, second_fails)
    bad, good = (
        clients[1].take(np.array([0])),
        Units(clients[0].offsets, {**clients[0].columns, "weight": clients[0].columns["weight"] * 3}),
    )
    whole, without = (updates(work("central"), [joined(units)]) for units in ([good, good, bad], [good, good]))
    np.testing.assert_array_equal(whole.rows["rows"].values, without.rows["rows"].values)


def test_a_site_decides_what_it_trains_on(monkeypatch: pytest.MonkeyPatch) -> None:
    which = work("none")
    monkeypatch.setattr("client.device.resolved_device", lambda name: name)
    assert local_training(which, 1).device == which.scenario.training.device == "auto"
    assert local_training(which, 1, Device("cpu")).device == "cpu"
    assert local_training(which, 1, Device("cuda")).device == "cuda"


@pytest.mark.parametrize(("memory_mib", "fraction"), [(0, None), (512, 0.5), (4096, 1.0)])
def test_the_bound_of_gpu_memory_is_set_before_anything_is_computed(
    monkeypatch: pytest.MonkeyPatch, memory_mib: int, fraction: float | None
) -> None:
    told: list[float] = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.current_device", lambda: 0)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda _: SimpleNamespace(total_memory=2**30))
    monkeypatch.setattr("torch.cuda.set_per_process_memory_fraction", told.append)
    assert Device("auto", memory_mib).chosen("auto") == "cuda"
    assert told == ([] if fraction is None else [fraction])
    assert Device("cpu", memory_mib).chosen("cuda") == "cpu"


@pytest.mark.parametrize("mode", ["none", "central", "local"])
def test_a_gpu_without_room_gives_way_to_the_cpu(
    clients: list[Units], monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    which, real, tried = work(mode), training_module._raw_updates, []

    def raw(*args: Any, training: LocalTraining, **options: Any) -> UpdateBatch:
        tried.append(training.device)
        if training.device == "cuda":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(*args, training=training, **options)

    monkeypatch.setattr(training_module, "_raw_updates", raw)
    cuda = replace(local_training(which, 1, Device("cpu")), device="cuda")
    seeds = [Randomness(k, NoiseSource.from_os()) for k in range(len(clients))]
    start = which.family.initial(which.options, which.specs, DOMAIN, 0)
    found = isolated_updates(which, start, clients, training=cuda, randomness=seeds)
    assert tried == ["cuda", "cpu"]
    assert found.count == len(clients)


@pytest.mark.parametrize(("name", "asked"), [("auto", "cuda"), ("cuda", "cpu"), ("cuda", "auto")])
def test_a_site_without_a_gpu_computes_on_its_cpu_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str, asked: str
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert Device(name, or_cpu=True).chosen(asked) == "cpu"
    assert "no usable GPU" in caplog.text
    with pytest.raises(ConfigError, match="no usable GPU"):
        Device(name).chosen(asked)
