from __future__ import annotations

import pytest
import torch

from simulations import benchmarks
from simulations.benchmarks import noise
from simulations.benchmarks._harness import missed


def test_quick_measures_everything_and_claims_no_bar() -> None:
    before = torch.get_num_threads()
    rows = benchmarks.load("noise").run(quick=True)
    assert len(rows) == 1 + 5 + len(noise.SIGMAS) + len(noise.MUS)
    assert all(row.holds is None and row.value > 0 for row in rows)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(("ours", "exact", "fails"), [(40.0, 25.0, False), (29.0, 25.0, True), (40.0, 19.0, True)])
def test_the_bars_are_a_share_of_torch_and_a_speed_of_exact_noise(ours: float, exact: float, fails: bool) -> None:
    speeds = {"torch.randn": [100.0] * 3, "secure normals": [ours] * 3, "keystream": [500.0] * 3}
    found = noise.rows({**speeds, "Skellam, mu 10": [exact] * 3}, bar=True)
    assert missed(found) is fails
    assert {row.measure: row.value for row in found}["keystream AES-256-CTR, GB per CPU second"] == 4.0


def test_the_ratio_is_taken_within_a_repetition() -> None:
    speeds = {"torch.randn": [100.0, 10.0, 50.0], "secure normals": [50.0, 5.0, 25.0], "keystream": [1.0] * 3}
    assert noise.rows(speeds, bar=True)[0].value == 0.5
