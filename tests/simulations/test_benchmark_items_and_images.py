"""The recommendation and image benchmarks run at their tiny size and say what they promise to."""

from __future__ import annotations

import math

import pytest

from simulations import benchmarks


@pytest.mark.slow
def test_recommendation_runs_at_its_tiny_size() -> None:
    pytest.importorskip("implicit", reason="the peer comes with the extra [bench]")
    rows = {row.measure: row for row in benchmarks.load("quality_recommendation").run(quick=True)}
    for who in ("popularity", "implicit BPR", "federated ALS", "federated BPR"):
        for measure in ("hit_rate@10", "ndcg@10"):
            assert 0.0 <= rows[f"{who}: {measure}"].value <= 1.0
    assert not any(row.bar for row in rows.values())  # at this size no bar says anything
    assert sum("share of implicit ALS's lift" in measure for measure in rows) == 2


def test_images_run_at_their_tiny_size() -> None:
    rows = benchmarks.load("quality_image").run(quick=True)
    assert rows[-1].measure == "federated / collected" and all(row.holds is None for row in rows)
    assert all(math.isfinite(row.value) and row.value > 0 for row in rows)
