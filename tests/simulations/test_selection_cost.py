"""What selection by votes covers: beside simulated votes and the figures known from simulations, and the advice."""

from __future__ import annotations

import math

import numpy as np
import pytest

from common.config import build_scenario
from common.privacy.row_votes import vote_grid
from common.table import RowDomain
from common.work import Work, work_for
from simulations import cost
from simulations.commands import plan_table
from simulations.selection_cost import DRAWS, Cohort, advice, bytes_of_phases, expected_coverage, votes_selection
from simulations.timing import estimated_seconds


@pytest.mark.parametrize(
    ("rows", "clients", "votes", "noise", "selected", "useful", "covered"),
    [
        (10**6, 1000, 100, 1.0, 277, 247, 0.213),
        (10**6, 1000, 100, 3.0, 92, 66, 0.106),
        (10**6, 100, 100, 1.0, 36, 0, 0.0),
        (10**5, 100, 200, 1.0, 7, 4, 0.005),
    ],
)
def test_the_estimate_is_near_to_what_simulations_gave(
    rows: int, clients: int, votes: int, noise: float, selected: float, useful: float, covered: float
) -> None:
    stddev = noise * math.sqrt(votes)
    found = expected_coverage(Cohort(rows, clients, votes, stddev), threshold=4 * stddev)
    assert found.selected == pytest.approx(selected, rel=0.06, abs=2)
    assert found.useful == pytest.approx(useful, rel=0.04, abs=3.5)
    assert found.mass == pytest.approx(covered, abs=0.011)


def simulated(cohort: Cohort, threshold: float, most: int, seed: int) -> tuple[int, float]:
    rng = np.random.default_rng(seed)
    q = 1 / np.arange(1, cohort.rows + 1)
    counts = np.zeros(cohort.rows, np.int64)
    for _ in range(cohort.clients):
        held = np.unique(rng.choice(cohort.rows, DRAWS * cohort.votes, p=q / q.sum()))
        counts[rng.permutation(held)[: cohort.votes]] += 1
    noised = counts + rng.normal(0, cohort.noise_stddev, cohort.rows)
    order = np.argsort(-noised)[:most]
    kept = order[noised[order] >= threshold]
    return len(kept), float(counts[kept].sum() / counts.sum())


@pytest.mark.parametrize("most", [40, 1000])
def test_the_estimate_is_near_to_simulated_votes(most: int) -> None:
    """With a cap that cuts the selection and with one that does not."""
    cohort = Cohort(2000, 300, 20, math.sqrt(20))
    found = expected_coverage(cohort, threshold=1 + 3 * math.sqrt(20), most=most)
    trials = [simulated(cohort, 1 + 3 * math.sqrt(20), most, seed) for seed in range(5)]
    assert found.selected == pytest.approx(np.mean([n for n, _ in trials]), rel=0.1)
    assert found.mass == pytest.approx(np.mean([m for _, m in trials]), rel=0.1)


def test_the_advice_speaks_of_what_is_wrong() -> None:
    assert advice(0.01, 80, share=0.4).startswith("Not worth it: a row needs the votes of 40%")
    assert "1.5 times less" in advice(0.5, 1.5, share=0.01)
    assert advice(0.213, 85, share=0.04).startswith("Worth it where bytes matter: a client sends 85 times less")


def work(**federation: int) -> Work:
    raw = {
        "task": {"family": "word2vec", "dimension": 8},
        "data": {"unit": "client"},
        "vocabulary": {"source": "hashed", "buckets": 20_000},
        "privacy": {"mode": "distributed", "noise_multiplier": 1.0, "l2_clip_norm": 1.0, "selection_ratio": 1.5},
        "federation": {
            "rows": "selected",
            "secure_aggregation": "full",
            "min_clients": 900,
            "max_clients": 1000,
            "rows_per_client": 40,
            "max_selected_rows": 256,
            **federation,
        },
    }
    return work_for(build_scenario(raw), RowDomain(tuple(f"b{k}" for k in range(20_000))))


def test_bytes_are_those_of_the_two_phases() -> None:
    made = work()
    grid = made.plan.vote_grid
    assert bytes_of_phases(made) == {
        "votes": 20_000 * grid.bits // 8,
        "values": 2 * 256 * 8 * 2,
        "dense": 2**19 * 2,
    }
    assert cost.bytes_per_round(made)["client_sends_beside_keys_and_shares"] == 20_000 * grid.bits // 8 + 8192
    assert cost.rows_sent(made.plan) == "selected"


def test_a_plan_tells_whether_selection_is_worth_it() -> None:
    found = votes_selection(work())
    assert found["advice"].startswith("Worth it") and 0.05 < found["update_covered"] < 1
    few = votes_selection(work(min_clients=20, max_clients=25, rows_per_client=200))
    assert few["advice"].startswith("Not worth it") and few["share_of_clients_that_must_hold_it"] > 1
    seldom = votes_selection(work(rounds=10, select_every=0))
    assert seldom["selections_a_run"] == 1
    assert seldom["times_less_sent_than_dense"] > 1.5 * found["times_less_sent_than_dense"]


def test_the_table_shows_it() -> None:
    page = "\n".join(plan_table.lines({"selection": votes_selection(work())}))
    assert "advice" in page and "update covered" in page


def test_the_time_of_both_phases_is_measured() -> None:
    found = estimated_seconds(work())
    assert found["client_a_round"] > 0 and found["coordinator_a_round"] > 0


def test_the_threshold_of_the_plan_is_that_of_its_grid() -> None:
    made = work(min_contributors=5).plan
    assert made.votes is not None and made.secure is not None
    grid = vote_grid(made.votes, made.secure, noise_multiplier=made.vote_multiplier, threshold=4.0)
    assert votes_selection(work(min_contributors=5))["votes_that_select_a_row"] == grid.threshold
