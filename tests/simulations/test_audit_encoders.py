"""Audits of encoders: whose data an update is of is found by computing it anew; mode example is refused in words."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.config import Scenario, build_scenario
from common.errors import EvaluationError
from common.evaluation.leak import Leak
from common.evaluation.view import RoundView
from simulations.audit import rehearsal
from simulations.audit.attacks import tried, truth_of
from simulations.audit.planting import Planted, plant, unprotected
from simulations.audit.watching import Watched, watch
from simulations.progress import Silent

CLIENTS = 10


def images(folder: Path, mode: str, **sections: dict[str, Any]) -> Scenario:
    pixels = np.random.default_rng(0).integers(0, 256, (4 * CLIENTS, 8, 8)).astype(np.uint8)
    writer = np.repeat(np.arange(CLIENTS), 4)
    np.savez(folder / "images.npz", images=pixels, writer=writer, label=np.arange(len(pixels)) % 2)
    unit = "image" if mode == "example" else "client"
    raw = {
        "task": {"family": "image", "size": 8, "dimension": 4, "channels": 8, "blocks": 1, "classes": 2, "shift": 0},
        "data": {
            "reader": "images",
            "path": str(folder / "images.npz"),
            "client_key": ["writer"],
            "unit": unit,
        },
        "privacy": {"mode": mode, "noise_multiplier": 5.0, "delta": 1e-5, "l2_clip_norm": 1.0},
        "federation": {"rounds": 2},
        "training": {"local_steps": 2, "batch_size": 4, "lr": 0.05} | sections.get("training", {}),
    }
    return build_scenario(raw)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Planted, Watched]]:
    folder = tmp_path_factory.mktemp("encoders")
    given, found = images(folder, "local"), {}
    for name, which in (("local", given), ("none", unprotected(given))):
        made = plant(which, folder, Silent(), count=100, seed=2)
        found[name] = made, watch(made)
    return found


def line_up(made: Planted, watched: Watched, rounds: tuple[RoundView, ...] | None = None) -> Leak:
    view = dataclasses.replace(watched.view, rounds=watched.view.rounds if rounds is None else rounds)
    (found,), _ = tried(view, None, truth_of(made), names=["gradient_inversion"])
    assert found.metric == "line-up" and found.n == CLIENTS and found.chance_value == 1 / CLIENTS
    return found


def test_whose_data_an_update_is_of_shows_without_noise_alone(seen: dict[str, tuple[Planted, Watched]]) -> None:
    assert line_up(*seen["none"]).value == 1.0
    assert not line_up(*seen["local"]).above_chance


def test_the_rehearsal_is_of_the_first_round_and_of_real_clients(seen: dict[str, tuple[Planted, Watched]]) -> None:
    made, watched = seen["none"]
    assert [k for k, part in enumerate(watched.view.rounds) if part.rehearsed is not None] == [1]
    told = watched.view.rounds[1]
    assert told.rehearsed is not None and told.updates is not None and told.rehearsed.count == CLIENTS
    for name, array in told.rehearsed.dense.items():  # others' order of batches, the same data
        assert array.shape[1:] == told.updates.dense[name].shape[1:] and np.isfinite(array).all()
    moved = {name: np.roll(array, 1, axis=0) for name, array in told.rehearsed.dense.items()}
    wrong = dataclasses.replace(told.rehearsed, dense=moved)
    assert line_up(made, watched, (dataclasses.replace(told, rehearsed=wrong),)).value == 0.0


def test_without_updates_in_view_nothing_is_rehearsed(
    seen: dict[str, tuple[Planted, Watched]], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, watched = seen["none"]
    hidden = tuple(RoundView(part.participants) for part in watched.view.rounds)
    assert rehearsal.with_rehearsal(hidden, made, {}) == hidden
    monkeypatch.setattr(rehearsal, "MOST_REHEARSED", 1)
    assert rehearsal.with_rehearsal(watched.view.rounds, made, {}) is watched.view.rounds


def test_encoders_in_mode_example_are_refused_with_the_reason(tmp_path: Path) -> None:
    which = images(tmp_path, "example", training={"unit_rate": 0.5})
    with pytest.raises(EvaluationError, match="no rows of their own for canaries") as refused:
        watch(plant(which, tmp_path, Silent(), count=100, seed=2))
    assert "conformance" in refused.value.hint
