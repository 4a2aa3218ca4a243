"""Private row selection: exact false positives, one event, and no trace of a row that was dropped."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy import stats

from common.config import FederationConfig, PrivacyConfig, TrainingConfig
from common.errors import PrivacyConfigError
from common.privacy.plan import PrivacyPlan, make_plan
from common.privacy.rng import NoiseSource
from common.privacy.selection import (
    SelectedTable,
    check_selection,
    distinct_integers,
    expected_false_positives,
    false_positives,
    votes_per_row,
)
from common.privacy.table_gradients import TableGradients, row_sums

from ._toy import CLIP, DOMAIN, FAMILY, ROWS, Training, initial, plan_of, train_example_mode, units_of

V, WIDTH = 500, 3


def seeded(seed: int) -> NoiseSource:
    return NoiseSource.seeded_for_tests(seed)


def gradients(rows: list[int], units: int = 1) -> TableGradients:
    """Every unit touches each of ``rows`` once, with a gradient of ones."""
    place = torch.arange(len(rows)).repeat_interleave(units)
    source = torch.arange(len(rows) * units)
    owner = torch.arange(units).repeat(len(rows))
    weights = torch.ones(len(source), dtype=torch.float64)
    return TableGradients(torch.tensor(rows), place, owner, source, weights, torch.ones(len(source), WIDTH))


def test_false_positives_have_the_size_and_the_places_of_single_draws() -> None:
    touched, threshold, rounds = np.array([0, 3, 4, 400, V - 1]), 1.5, 3000
    chance = stats.norm.sf(threshold / 0.7)
    counts, sizes = np.zeros(V), []
    for seed in range(rounds):
        found = false_positives(touched, V, threshold=threshold, stddev=0.7, source=seeded(seed))
        assert np.all(np.diff(found) > 0)
        counts[found] += 1
        sizes.append(len(found))
    assert not counts[touched].any()
    others = np.delete(counts, touched)
    for values, trials in ((others, rounds), (np.array(sizes), len(others))):
        spread = float(np.square(values - trials * chance).sum()) / (trials * chance * (1 - chance))
        assert 1e-6 < stats.chi2.cdf(spread, len(values)) < 1 - 1e-6
    assert stats.binomtest(int(counts.sum()), len(others) * rounds, chance).pvalue > 1e-6
    assert stats.binomtest(int(counts.sum()), len(others) * rounds, chance * 1.1).pvalue < 1e-6


@pytest.mark.parametrize(("count", "high"), [(0, 0), (0, 5), (5, 5), (4, 5), (1, 1), (3, 1000), (900, 1000)])
def test_distinct_integers_are_a_subset_of_the_wanted_size(count: int, high: int) -> None:
    found = distinct_integers(count, high, seeded(1))
    assert len(found) == count and np.all(np.diff(found) > 0) and np.all((found >= 0) & (found < high))


def test_every_subset_is_as_likely() -> None:
    seen = [tuple(distinct_integers(2, 5, seeded(k))) for k in range(4000)]
    counts = np.unique(np.array(seen), axis=0, return_counts=True)[1]
    assert len(counts) == 10 and stats.chisquare(counts).pvalue > 1e-6


def test_more_than_there_are_is_refused() -> None:
    with pytest.raises(PrivacyConfigError):
        distinct_integers(3, 2, seeded(0))


def test_a_unit_votes_with_norm_one_however_many_rows_it_touches() -> None:
    touched = torch.tensor([0, 1, 4, 1000])
    votes = votes_per_row(touched, 0.8)
    assert torch.allclose(votes * touched.double().sqrt(), torch.tensor([0.0, 0.8, 0.8, 0.8], dtype=torch.float64))


def stepped(
    rows: list[int], *, units: int = 1, threshold: float = 2.0, seed: int = 0, stddev: float = 0.1
) -> tuple[SelectedTable, torch.Tensor]:
    weight = torch.zeros(V, WIDTH)
    table = SelectedTable(weight, source=seeded(seed), threshold=threshold, vote_stddev=0.5, padding_row=7)
    votes = votes_per_row(torch.full((units,), len(rows)), 1.0)
    table.step(
        row_sums(gradients(rows, units), torch.ones(units, dtype=torch.float64), votes), scale=1.0, stddev=stddev
    )
    return table, weight


def test_rows_with_enough_votes_are_updated_with_noise_and_no_others() -> None:
    table, weight = stepped([10, 20], units=400, threshold=100.0)
    assert table.selected[0].tolist() == [10, 20]
    moved = weight[[10, 20]]
    assert torch.all((moved + 400).abs() < 1) and torch.all(moved != -400)
    weight[[10, 20]] = 0.0
    assert not weight.any()


def test_a_dropped_row_leaves_no_trace() -> None:
    """With the same noise, a unit whose rows are all dropped changes nothing that anybody sees."""
    for seed in range(20):
        with_unit, weight = stepped([10, 20, 30], threshold=4.0, seed=seed)
        assert not {10, 20, 30} & set(with_unit.selected[0].tolist())
        assert not weight[[10, 20, 30]].any()
        numbers, values = with_unit.changed()
        assert numbers.tolist() == with_unit.selected[0].tolist() and torch.equal(values, weight[numbers])


def test_padding_is_never_selected() -> None:
    for seed in range(30):
        table, _ = stepped([1], threshold=-0.5, seed=seed)
        assert 7 not in table.selected[0] and len(table.selected[0]) > V // 2


def test_part_of_a_table_behaves_as_the_whole() -> None:
    whole, part = torch.zeros(V, WIDTH), torch.zeros(3, WIDTH)
    held = np.array([10, 20, 30])
    settings = {"threshold": 0.4, "vote_stddev": 0.5}
    tables = [
        SelectedTable(whole, source=seeded(3), **settings),
        SelectedTable(part, source=seeded(3), row_numbers=held, total_rows=V, **settings),
    ]
    for table, rows in zip(tables, ([10, 20, 30], [0, 1, 2]), strict=True):
        for _ in range(3):
            votes = votes_per_row(torch.full((2,), 3), 1.0)
            sums = row_sums(gradients(rows, 2), torch.ones(2, dtype=torch.float64), votes)
            table.step(sums, scale=0.5, stddev=0.1)
    (first, values), (second, others) = (table.changed() for table in tables)
    assert np.array_equal(first, second) and torch.allclose(values, others, atol=1e-6)


def selecting(**settings: object) -> PrivacyPlan:
    return dataclasses.replace(plan_of(**settings), rows="selected", selection_ratio=5.0, selection_threshold=2.0)


def test_example_mode_releases_selected_rows_alone() -> None:
    plan = selecting(local_steps=2, noise_multiplier=1.0)
    units = units_of(*[[5, 6]] * 60)
    update = train_example_mode(
        FAMILY, initial(), units, DOMAIN, None, plan=plan, training=Training(local_steps=2), source=seeded(4)
    )
    for name in ("centre.weight", "context.weight"):
        ids = update.rows[name].ids
        assert np.all(np.diff(ids) > 0) and len(ids) < ROWS and update.rows[name].offsets.tolist() == [0, len(ids)]
        assert np.abs(update.rows[name].values).min() > 0
    assert {5, 6} <= set(update.rows["centre.weight"].ids.tolist())


def test_rows_of_a_client_without_units_are_those_that_noise_selects() -> None:
    plan = selecting(local_steps=1, noise_multiplier=1.0)
    sizes = []
    for seed in range(300):
        update = train_example_mode(
            FAMILY,
            initial(),
            units_of(),
            DOMAIN,
            None,
            plan=plan,
            training=Training(local_steps=1),
            source=seeded(seed),
        )
        sizes += [len(update.rows[name].ids) for name in ("centre.weight", "context.weight")]
    expected = expected_false_positives(ROWS, threshold=2.0, stddev=1.0)
    assert stats.binomtest(sum(sizes), 600 * ROWS, expected / ROWS).pvalue > 1e-6


def test_votes_and_values_are_one_event() -> None:
    privacy = PrivacyConfig(mode="example", noise_multiplier=1.0, l2_clip_norm=CLIP, selection_ratio=5.0)
    training = TrainingConfig(local_steps=10, unit_rate=0.1)
    plans = [
        make_plan(privacy, FederationConfig(rows=rows), training, unit="record", additive=False, natural_clip=None)
        for rows in ("dense", "selected")
    ]
    dense, selected = plans
    assert selected.event("public", 2) == dense.event("public", 2), "the same budget"
    assert selected.noise_stddev == pytest.approx(1.0206 * dense.noise_stddev, abs=1e-4)
    combined = (selected.value_multiplier**-2 + selected.vote_multiplier**-2) ** -0.5
    assert combined == pytest.approx(selected.noise_multiplier)


@pytest.mark.parametrize("mode", ["central", "local"])
def test_selection_is_refused_where_no_proof_covers_it(mode: str) -> None:
    privacy = PrivacyConfig(mode=mode, noise_multiplier=1.0, l2_clip_norm=1.0)
    with pytest.raises(PrivacyConfigError, match="selected"):
        make_plan(
            privacy,
            FederationConfig(rows="selected"),
            TrainingConfig(),
            unit="client",
            additive=False,
            natural_clip=None,
        )


@pytest.mark.parametrize(
    ("vote_norm", "noise", "threshold"),
    [
        (0.0, 1.0, 1.0),
        (-1.0, 1.0, 1.0),
        (1.0, 0.0, 1.0),
        (1.0, math.inf, 1.0),
        (1.0, 1.0, math.nan),
        (1.0, 1.0, math.inf),
    ],
)
def test_bad_selections_are_refused(vote_norm: float, noise: float, threshold: float) -> None:
    with pytest.raises(PrivacyConfigError):
        check_selection(vote_norm=vote_norm, noise_multiplier=noise, threshold=threshold)
