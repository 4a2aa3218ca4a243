"""The sides of the benchmark dp_step at a tiny size, and that they take the same step without noise and clipping."""

from __future__ import annotations

import pytest
import torch

from common.privacy.unit_clipping import FlatClip
from simulations.benchmarks import _dp_step_side as sides
from simulations.benchmarks import dp_step
from simulations.benchmarks._dp_step_side import StepJob


def job(side: str) -> StepJob:
    return StepJob(side, rows=300, dimension=8, units=16, length=4, steps=4)


@pytest.mark.filterwarnings("ignore")  # Opacus warns about its generator and its hooks
@pytest.mark.parametrize("side", sorted(sides.SIDES))
def test_every_side_runs(side: str) -> None:
    threads = torch.get_num_threads()
    try:
        found = sides.measure(job(side))
    finally:
        torch.set_num_threads(threads)
    assert found["seconds"] > 0 and found["process_bytes"] > 0


def test_without_noise_and_clipping_a_private_step_is_that_of_sgd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sides, "SIGMA", 1e-10)
    monkeypatch.setattr(sides, "FlatClip", lambda _: FlatClip(1e3))
    models: list[torch.nn.Module] = []
    skip_gram = sides.SkipGram

    def remembered(*tables: torch.nn.Module) -> torch.nn.Module:
        models.append(skip_gram(*tables))
        return models[-1]

    monkeypatch.setattr(sides, "SkipGram", remembered)
    for side in ("sgd", "dense"):
        step = sides.SIDES[side](job(side))
        for batch in sides.batches(job(side)):
            step(*batch)
    plain, private = (model.state_dict() for model in models)
    for name in ("centre.weight", "context.weight"):
        moved = (plain[name] - sides.weights(job("sgd"))[name.startswith("context")]).abs().max()
        assert moved > 1e-4 and torch.allclose(plain[name], private[name], atol=1e-3 * float(moved))


def test_the_quick_rows_are_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dp_step, "_measured", lambda *_: {"seconds": 1.0, "peak_bytes": 1.0, "process_bytes": 1.0})
    assert all(row.holds is None for row in dp_step.BENCHMARK.run(quick=True))
    judged = {row.measure: row for row in dp_step.BENCHMARK.run(quick=False) if row.bar}
    assert len(judged) == 10 and not judged["V=1000000 D=128 B=1024 L=20: ghost / selected"].holds
